"""OpenAI's own clients, unchanged, against a real server."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest
from serving import Serving, serving

KEY = "a-long-enough-secret"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    with serving(tmp_path_factory.mktemp("clients"), api_keys=[KEY]) as found:
        yield found


@pytest.fixture
def client(server: Serving) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key=KEY, max_retries=0) as found:
        yield found


def test_chat(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model="echo", messages=[{"role": "user", "content": "one two three"}], max_tokens=2, user="me"
    )
    assert answer.choices[0].message.content == "one two"
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (3, 2)
    assert answer.usage.prompt_tokens_details is not None


def test_chat_streams(client: openai.OpenAI) -> None:
    stream = client.chat.completions.create(
        model="echo",
        messages=[{"role": "user", "content": "one two three"}],
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = list(stream)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == "one two three"
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 3


def test_the_stream_helper(client: openai.OpenAI) -> None:
    with client.chat.completions.stream(model="echo", messages=[{"role": "user", "content": "a b"}], n=2) as stream:
        for _ in stream:
            pass
        final = stream.get_final_completion()
    assert [choice.message.content for choice in final.choices] == ["a b", "a b"]


def test_logprobs(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model="echo", messages=[{"role": "user", "content": "a b"}], logprobs=True, top_logprobs=1
    )
    found = answer.choices[0].logprobs
    assert found is not None
    assert [one.token for one in found.content or []] == ["a", " b"]


def test_completions(client: openai.OpenAI) -> None:
    answer = client.completions.create(model="echo", prompt=["a b", "c"], logprobs=1)
    assert [choice.text for choice in answer.choices] == ["a b", "c"]
    stream = client.completions.create(model="echo", prompt="a b", stream=True)
    assert "".join(chunk.choices[0].text for chunk in stream) == "a b"


def test_models(client: openai.OpenAI) -> None:
    assert "echo" in [model.id for model in client.models.list()]
    assert client.models.retrieve("echo").owned_by == "dockyard"
    with pytest.raises(openai.NotFoundError) as refused:
        client.models.retrieve("ai/nothing:here")
    assert refused.value.code == "model_not_found"


def test_errors(client: openai.OpenAI, server: Serving) -> None:
    hello = [{"role": "user", "content": "hi"}]
    with pytest.raises(openai.NotFoundError) as missing:
        client.chat.completions.create(model="no-such", messages=hello)  # type: ignore[arg-type]
    assert missing.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError) as wrong:
        client.chat.completions.create(model="echo", messages=hello, temperature=9)  # type: ignore[arg-type]
    assert wrong.value.param == "temperature"
    with pytest.raises(openai.AuthenticationError):
        openai.OpenAI(base_url=f"{server.url}/v1", api_key="wrong", max_retries=0).models.list()


NODE = """
const OpenAI = require("openai").default;
(async () => {
  const client = new OpenAI({ baseURL: process.argv[2] + "/v1", apiKey: process.argv[3], maxRetries: 0 });
  const messages = [{ role: "user", content: "one two three" }];
  const out = {};
  out.whole = (await client.chat.completions.create({ model: "echo", messages })).choices[0].message.content;
  out.streamed = "";
  const options = { model: "echo", messages, stream: true, stream_options: { include_usage: true } };
  for await (const chunk of await client.chat.completions.create(options)) {
    out.streamed += chunk.choices[0]?.delta?.content ?? "";
    if (chunk.usage) out.tokens = chunk.usage.completion_tokens;
  }
  out.legacy = (await client.completions.create({ model: "echo", prompt: "a b" })).choices[0].text;
  out.models = (await client.models.list()).data.map((model) => model.id);
  try { await client.chat.completions.create({ model: "echo", messages, temperature: 9 }); }
  catch (error) { out.error = [error.status, error.param, error.constructor.name]; }
  console.log(JSON.stringify(out));
})();
"""


def test_the_node_client(server: Serving, tmp_path: Path) -> None:
    npm, node = shutil.which("npm"), shutil.which("node")
    if npm is None or node is None:
        pytest.skip("npm is not installed")
    install = [npm, "install", "--no-audit", "--no-fund", "--silent", "--prefix", str(tmp_path), "openai"]
    if subprocess.run(install, capture_output=True, timeout=100, check=False).returncode:
        pytest.skip("npm could not fetch the openai package")
    script = tmp_path / "talk.js"
    script.write_text(NODE)
    done = subprocess.run([node, script, server.url, KEY], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        "whole": "one two three",
        "streamed": "one two three",
        "tokens": 3,
        "legacy": "a b",
        "models": ["echo"],
        "error": [400, "temperature", "BadRequestError"],
    }
