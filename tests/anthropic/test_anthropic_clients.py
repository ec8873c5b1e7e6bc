"""Anthropic's official clients, unchanged but for their address."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import anthropic
from suite_results import node_version, note

HELLO: list[Any] = [{"role": "user", "content": "one two three"}]
TOOLS: list[Any] = [
    {
        "name": "get_weather",
        "description": "The weather of a city",
        "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    }
]
PASSED = "messages, streamed events, tools, counting, errors"
ASK: list[Any] = [{"role": "user", "content": "Use get_weather for Rome"}]


@pytest.fixture(params=["", "/anthropic"])
def client(server: str, request: pytest.FixtureRequest) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=server + request.param, api_key="sk-anthropic", max_retries=0) as found:
        yield found


def test_a_message_whole_and_streamed(client: anthropic.Anthropic) -> None:
    whole = client.messages.create(model="echo", max_tokens=20, messages=HELLO)
    assert [block.text for block in whole.content if block.type == "text"] == ["one two three"]
    assert (whole.stop_reason, whole.usage.input_tokens, whole.usage.output_tokens) == ("end_turn", 3, 3)
    with client.messages.stream(model="echo", max_tokens=2, messages=HELLO) as stream:
        assert "".join(stream.text_stream) == "one two"
        last = stream.get_final_message()
    assert (last.stop_reason, last.usage.output_tokens) == ("max_tokens", 2)
    stopped = client.messages.create(model="echo", max_tokens=20, messages=HELLO, stop_sequences=["three", "x"])
    assert (stopped.stop_reason, stopped.stop_sequence) == ("stop_sequence", "three")


def test_a_tool_is_called_and_its_result_answered(client: anthropic.Anthropic) -> None:
    with client.messages.stream(model="echo", max_tokens=99, messages=ASK, tools=TOOLS) as stream:
        streamed = stream.get_final_message()
    whole = client.messages.create(
        model="echo", max_tokens=99, messages=ASK, tools=TOOLS, tool_choice={"type": "tool", "name": "get_weather"}
    )
    for message in (streamed, whole):
        (call,) = [block for block in message.content if block.type == "tool_use"]
        assert (message.stop_reason, call.name, list(call.input)) == ("tool_use", "get_weather", ["city"])
    results: list[Any] = [{"type": "tool_result", "tool_use_id": call.id, "content": "It is sunny"}]
    turns = [*ASK, {"role": "assistant", "content": whole.content}, {"role": "user", "content": results}]
    answer = client.messages.create(model="echo", max_tokens=99, messages=turns, tools=TOOLS)
    assert [block.text for block in answer.content if block.type == "text"] == ["It is sunny"]


def test_thinking_schemas_and_counting(client: anthropic.Anthropic) -> None:
    thought = client.messages.create(
        model="echo", max_tokens=99, messages=HELLO, thinking={"type": "enabled", "budget_tokens": 50}
    )
    assert [block.type for block in thought.content] == ["thinking", "text"]
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    made = client.messages.create(
        model="echo", max_tokens=99, messages=HELLO, output_config={"format": {"type": "json_schema", "schema": schema}}
    )
    (block,) = made.content
    assert block.type == "text"
    assert isinstance(json.loads(block.text)["n"], int)
    assert client.messages.count_tokens(model="echo", messages=HELLO).input_tokens == 3


def test_failures_arrive_as_the_clients_classes(client: anthropic.Anthropic, server: str) -> None:
    with pytest.raises(anthropic.NotFoundError, match="no-such"):
        client.messages.create(model="no-such", max_tokens=5, messages=HELLO)
    with pytest.raises(anthropic.BadRequestError, match="temperature"):
        client.messages.create(model="echo", max_tokens=5, messages=HELLO, extra_body={"temperature": 9})
    with anthropic.Anthropic(base_url=server, api_key="wrong", max_retries=0) as stranger:
        with pytest.raises(anthropic.AuthenticationError):
            stranger.messages.create(model="echo", max_tokens=5, messages=HELLO)


def test_models_are_listed(server: str) -> None:
    with anthropic.Anthropic(base_url=f"{server}/anthropic", api_key="sk-anthropic", max_retries=0) as client:
        assert [model.id for model in client.models.list()] == ["echo"]
        assert client.models.retrieve("echo").display_name == "echo"


@pytest.mark.model
def test_a_real_model_speaks_the_dialect(starter_gguf: Path, tmp_path: Path) -> None:
    from serving import serving

    from dockyard.artifact.store import Store
    from dockyard.ops.pack import Sources, package
    from dockyard.settings import Settings

    store = Store.open(Settings(home=str(tmp_path)))
    package(store, Sources(weights=(starter_gguf,)), reference=store.named("tiny"), link=True)
    asked: dict[str, Any] = {
        "model": "tiny",
        "extra_body": {"temperature": 0},
        "system": "Answer in one sentence.",
        "messages": ASK,
    }
    with serving(tmp_path, context=1024) as found:
        with anthropic.Anthropic(base_url=found.url, api_key="x", max_retries=0) as client:
            whole = client.messages.create(max_tokens=16, **asked)
            with client.messages.stream(max_tokens=16, **asked) as stream:
                text = "".join(stream.text_stream)
            counted = client.messages.count_tokens(model="tiny", system=asked["system"], messages=ASK).input_tokens
    assert "".join(block.text for block in whole.content if block.type == "text") == text != ""
    prompt = whole.usage.input_tokens + (whole.usage.cache_read_input_tokens or 0)
    assert 0 < whole.usage.output_tokens <= 16
    assert counted == prompt
    note("anthropic (Python)", anthropic.__version__, "messages, streamed events and counting with SmolLM2")


NODE = """
const Anthropic = require("@anthropic-ai/sdk").default;
(async () => {
  const client = new Anthropic({ baseURL: process.argv[2], apiKey: process.argv[3], maxRetries: 0 });
  const messages = [{ role: "user", content: "one two three" }];
  const asked = { model: "echo", max_tokens: 50, messages };
  const out = {};
  out.whole = (await client.messages.create(asked)).content[0].text;
  out.streamed = await client.messages.stream(asked).finalText();
  out.events = [];
  for await (const event of await client.messages.create({ ...asked, max_tokens: 1, stream: true })) {
    out.events.push(event.type);
  }
  const schema = { type: "object", properties: { city: { type: "string" } }, required: ["city"] };
  const tools = [{ name: "get_weather", input_schema: schema }];
  const ask = [{ role: "user", content: "Use get_weather for Rome" }];
  const called = await client.messages.stream({ ...asked, messages: ask, tools }).finalMessage();
  out.called = [called.stop_reason, called.content[0].name, Object.keys(called.content[0].input)];
  out.counted = (await client.messages.countTokens({ model: "echo", messages })).input_tokens;
  try { await client.messages.create({ ...asked, temperature: 9 }); }
  catch (error) { out.error = [error.status, error.constructor.name, error.error.error.type]; }
  console.log(JSON.stringify(out));
})();
"""


def test_the_node_client(server: str, tmp_path: Path) -> None:
    npm, node = shutil.which("npm"), shutil.which("node")
    if npm is None or node is None:
        pytest.skip("npm is not installed")
    install = [npm, "install", "--no-audit", "--no-fund", "--silent", "--prefix", str(tmp_path), "@anthropic-ai/sdk"]
    if subprocess.run(install, capture_output=True, timeout=300, check=False).returncode:
        pytest.skip("npm could not fetch the @anthropic-ai/sdk package")
    script = tmp_path / "talk.js"
    script.write_text(NODE)
    done = subprocess.run(
        [node, script, server, "sk-anthropic"], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    block = ["content_block_start", "content_block_delta", "content_block_stop"]
    assert json.loads(done.stdout) == {
        "whole": "one two three",
        "streamed": "one two three",
        "events": ["message_start", *block, "message_delta", "message_stop"],
        "called": ["tool_use", "get_weather", ["city"]],
        "counted": 3,
        "error": [400, "BadRequestError", "invalid_request_error"],
    }
    note("anthropic (Node)", node_version(tmp_path, "@anthropic-ai/sdk"), PASSED)
