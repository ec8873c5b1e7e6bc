"""LangChain's standard tests of a chat model, over its own OpenAI client. Run in an environment of its own."""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Callable
from typing import Any

import pytest
from langchain_openai import ChatOpenAI
from langchain_tests.integration_tests import ChatModelIntegrationTests

SCRIPTED = os.environ["DOCKYARD_MODEL"] == "echo"
UNCALLED = "135 million weights answer in words where they may, rather than call a tool"
RAMBLING = "135 million weights write on inside a string until the limit cuts them off"
BEYOND = {
    "test_tool_calling": UNCALLED,
    "test_tool_calling_async": UNCALLED,
    "test_tool_calling_with_no_arguments": UNCALLED,
    "test_agent_loop": UNCALLED,
    "test_structured_output_pydantic_2_v1": RAMBLING,
    "test_structured_output_optional_param": RAMBLING,
}
"""Standard tests that need what the starter model can't, and why."""


def room() -> int:
    """Tokens for an answer: a real model's are slow, and only JSON must come to its end."""
    if SCRIPTED:
        return 1000
    return 160 if re.search("structured|bind|choice|unicode", os.environ.get("PYTEST_CURRENT_TEST", "")) else 12


class TestChat(ChatModelIntegrationTests):
    """Says what the model can; the suite leaves out the rest by itself.

    Its pictures and sounds come from the network, so those tests are left out too.
    """

    @property
    def chat_model_class(self) -> type[ChatOpenAI]:
        return ChatOpenAI

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {
            "model": os.environ["DOCKYARD_MODEL"],
            "base_url": os.environ["DOCKYARD_URL"],
            "api_key": os.environ["DOCKYARD_KEY"],
            "stream_usage": True,
            "max_retries": 0,
            "temperature": 0,
            "max_tokens": room(),
        }

    @property
    def standard_chat_model_params(self) -> dict[str, Any]:
        return {}

    @property
    def supports_json_mode(self) -> bool:
        return SCRIPTED

    @property
    def has_tool_calling(self) -> bool:
        return True

    @property
    def has_structured_output(self) -> bool:
        return True

    @property
    def structured_output_kwargs(self) -> dict[str, Any]:
        return {"method": "json_schema"}


def beyond(name: str, why: str) -> Callable[..., Any]:
    """The standard test, expected to fail: the suite's own way to leave one out."""
    standard = getattr(ChatModelIntegrationTests, name)

    @functools.wraps(standard)
    def test(self: Any, **fixtures: Any) -> Any:
        return standard(self, **fixtures)

    return pytest.mark.xfail(reason=why, run=False)(test)


if not SCRIPTED:
    for each, reason in BEYOND.items():
        setattr(TestChat, each, beyond(each, reason))
