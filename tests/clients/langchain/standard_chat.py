"""LangChain's standard tests of a chat model, over its own OpenAI client. Run in an environment of its own."""

from __future__ import annotations

import os
from typing import Any

from langchain_openai import ChatOpenAI
from langchain_tests.integration_tests import ChatModelIntegrationTests

SCRIPTED = os.environ["DOCKYARD_MODEL"] == "echo"


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
            "max_tokens": 1000 if SCRIPTED else 100,
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
