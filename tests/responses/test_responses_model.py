"""A real model behind ``/v1/responses``."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

pytestmark = pytest.mark.model

SCHEMA: Any = {
    "type": "object",
    "properties": {"town": {"type": "string", "maxLength": 12}, "warm": {"type": "boolean"}},
    "required": ["town", "warm"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory, starter_gguf: Path) -> Iterator[openai.OpenAI]:
    from serving import serving

    from dockyard.artifact.store import Store
    from dockyard.ops.pack import Sources, package
    from dockyard.settings import Settings

    home = tmp_path_factory.mktemp("model")
    store = Store.open(Settings(home=str(home)))
    package(store, Sources(weights=(starter_gguf,)), reference=store.named("tiny"), link=True)
    with serving(home, context=512, log_level="warning") as found:
        with openai.OpenAI(base_url=f"{found.url}/v1", api_key="none", max_retries=0, timeout=100) as made:
            yield made


def test_a_schema_holds_streamed_and_not(client: openai.OpenAI) -> None:
    asked: Any = {
        "model": "tiny",
        "input": "Is Rome warm? Answer in JSON.",
        "text": {"format": {"type": "json_schema", "name": "weather", "schema": SCHEMA, "strict": True}},
        "temperature": 0,
        "max_output_tokens": 60,
    }
    whole = client.responses.create(**asked)
    assert set(json.loads(whole.output_text)) == {"town", "warm"}
    text = "".join(
        event.delta for event in client.responses.create(stream=True, **asked) if event.type.endswith("text.delta")
    )
    assert text == whole.output_text


def test_a_conversation_counts_and_goes_on(client: openai.OpenAI) -> None:
    asked: Any = {"model": "tiny", "temperature": 0, "max_output_tokens": 12}
    first = client.responses.create(input="Name a colour.", **asked)
    count = client.responses.input_tokens.count(model="tiny", input="Another.", previous_response_id=first.id)
    second = client.responses.create(input="Another.", previous_response_id=first.id, **asked)
    assert first.usage is not None
    assert second.usage is not None
    assert second.usage.input_tokens > first.usage.input_tokens + first.usage.output_tokens
    assert count.input_tokens == second.usage.input_tokens


def test_too_long_a_prompt_is_refused_or_cut(client: openai.OpenAI) -> None:
    turns: Any = [{"role": "user", "content": f"word{n} " * 20} for n in range(12)]
    with pytest.raises(openai.BadRequestError) as refused:
        client.responses.create(model="tiny", input=turns, max_output_tokens=4)
    assert refused.value.code == "context_length_exceeded"
    answer = client.responses.create(model="tiny", input=turns, max_output_tokens=4, truncation="auto")
    assert answer.status in ("completed", "incomplete")
