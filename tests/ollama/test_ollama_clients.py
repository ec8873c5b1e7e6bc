"""Ollama's official clients, unchanged but for their address."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import httpx
import pytest

import ollama
from dockyard.artifact import media
from dockyard.artifact.registry.memory import Answer, Asked, MemoryRegistry
from suite_results import node_version, note

HELLO = [{"role": "user", "content": "one two three"}]
TOOLS: list[Any] = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
        },
    }
]


@pytest.fixture
def client(server: str) -> Iterator[ollama.Client]:
    with ollama.Client(host=server) as found:
        yield found


class Slow(MemoryRegistry):
    """Takes a while over each blob."""

    def answer(self, asked: Asked, body: bytes) -> Answer:
        if "/blobs/" in asked.path:
            time.sleep(0.2)
        return super().answer(asked, body)


@pytest.fixture
def registry() -> Iterator[str]:
    """The address of an empty registry."""
    with MemoryRegistry() as found:
        yield found.host


def test_text_whole_and_streamed(client: ollama.Client) -> None:
    whole = client.chat("echo", HELLO)
    assert (whole.message.content, whole.done_reason, whole.eval_count) == ("one two three", "stop", 3)
    streamed = list(client.chat("echo", HELLO, stream=True, options={"num_predict": 2}))
    assert "".join(one.message.content or "" for one in streamed) == "one two"
    assert [one.done for one in streamed] == [False, False, True]
    assert streamed[-1].done_reason == "length"
    assert client.generate("echo", "a b", raw=True).response == "a b"
    assert [one.response for one in client.generate("echo", "a b", stream=True)] == ["a", " b", ""]


def test_tools_thoughts_and_schemas(client: ollama.Client) -> None:
    asked = [{"role": "user", "content": "Use get_weather for Rome"}]
    called = client.chat("echo", asked, tools=TOOLS).message
    assert called.tool_calls is not None
    (call,) = called.tool_calls
    assert (call.function.name, list(call.function.arguments)) == ("get_weather", ["city"])
    result = {"role": "tool", "tool_name": "get_weather", "content": "It is sunny"}
    assert client.chat("echo", [*asked, called, result], tools=TOOLS).message.content == "It is sunny"
    assert client.chat("echo", HELLO, think=True).message.thinking == "The user sent 3 words."
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    assert isinstance(json.loads(client.generate("echo", "7", format=schema).response or "")["n"], int)


def test_vectors_of_texts(client: ollama.Client) -> None:
    (one,) = client.embed("echo", "a cat").embeddings
    assert list(client.embeddings("echo", "a cat").embedding) == list(one)


def test_failures_arrive_as_the_clients_class(client: ollama.Client) -> None:
    for ask in (
        lambda: client.chat("no-such", HELLO),
        lambda: client.show("no-such"),
        lambda: client.delete("no-such"),
    ):
        with pytest.raises(ollama.ResponseError, match="no-such") as missing:
            ask()
        assert missing.value.status_code == 404
    with pytest.raises(ollama.ResponseError, match="temperature") as wrong:
        list(client.chat("echo", HELLO, stream=True, options={"temperature": -1}))
    assert wrong.value.status_code == 400


def test_what_there_is(client: ollama.Client) -> None:
    listed = {one.model: one for one in client.list().models}
    tiny = listed["tiny:latest"]
    assert tiny.details is not None
    assert (tiny.details.family, tiny.details.quantization_level) == ("llama", "Q4_1")
    assert tiny.size is not None
    assert tiny.size > 90_000_000
    shown = client.show("tiny")
    assert shown.modelinfo is not None
    assert (shown.modelinfo["general.architecture"], shown.modelinfo["llama.context_length"]) == ("llama", 8192)
    assert shown.capabilities is not None
    assert "completion" in shown.capabilities
    assert shown.template is not None
    assert "im_start" in shown.template


def test_names_are_given_and_taken(client: ollama.Client) -> None:
    assert client.copy("tiny:latest", "other:one").status == "success"
    listed = {one.model: one.digest for one in client.list().models}
    assert listed["other:one"] == listed["tiny:latest"]
    assert client.delete("other:one").status == "success"
    assert "other:one" not in {one.model for one in client.list().models}


def test_a_model_with_a_character_shares_the_weights(client: ollama.Client) -> None:
    before = sum(one.size or 0 for one in client.list().models if one.model == "tiny:latest")
    lines = list(
        client.create(
            "pirate", from_="tiny", system="Talk like a pirate.", license="Do what you like.",
            parameters={"temperature": 0, "num_predict": 5, "stop": ["Arr"], "num_ctx": 512}, stream=True,
        )
    )  # fmt: skip
    assert [line.status for line in lines][-2:] == ["writing manifest", "success"]
    shown = client.show("pirate")
    assert shown.parameters is not None
    assert shown.parameters.splitlines() == ["num_ctx 512", "num_predict 5", "temperature 0.0", 'stop "Arr"']
    assert shown.license == "Do what you like."
    assert shown.details is not None
    assert shown.details.parent_model == "tiny"
    assert shown.modelfile is not None
    assert 'SYSTEM """Talk like a pirate."""' in shown.modelfile
    made = next(one for one in client.list().models if one.model == "pirate:latest")
    assert made.size is not None
    assert 0 < made.size - before < 10_000
    client.create("louder", from_="pirate", system="Shout.")
    assert client.show("louder").parameters == shown.parameters
    assert 'SYSTEM """Shout."""' in (client.show("louder").modelfile or "")


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"from_": "no-such"}, "no-such"),
        ({"from_": "tiny", "quantize": "q4_K_M"}, "quantize"),
        ({"from_": "tiny", "template": "{{ .Prompt }}"}, "Jinja"),
        ({"from_": "tiny", "parameters": {"num_gpu": 1}}, "num_gpu"),
        ({"files": {"model.gguf": f"sha256:{'0' * 64}"}}, "was not sent"),
        ({}, "'from' or 'files'"),
    ],
)
def test_what_can_not_be_made_is_named(client: ollama.Client, fields: dict[str, Any], said: str) -> None:
    with pytest.raises(ollama.ResponseError, match=said):
        client.create("never", **fields)
    assert "never:latest" not in {one.model for one in client.list().models}


def test_files_sent_before_become_a_model(client: ollama.Client, starter_gguf: Path, server: str) -> None:
    digest = client.create_blob(starter_gguf)
    present = httpx.head(f"{server}/api/blobs/{digest}")
    absent = httpx.head(f"{server}/api/blobs/sha256:{'0' * 64}")
    wrong = httpx.post(f"{server}/api/blobs/sha256:{'0' * 64}", content=b"something else")
    assert (present.status_code, absent.status_code, wrong.status_code) == (200, 404, 400)
    assert client.create("sent", files={"model.gguf": digest}).status == "success"
    assert (client.show("sent").modelinfo or {})["general.architecture"] == "llama"


def test_a_blob_in_pieces_is_whole(server: str) -> None:
    data = bytes(range(256)) * 12_000
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    pieces = (data[place : place + 70_000] for place in range(0, len(data), 70_000))
    assert httpx.post(f"{server}/api/blobs/{digest}", content=pieces).status_code == 201
    assert httpx.head(f"{server}/api/blobs/{digest}").status_code == 200


def test_push_and_pull_tell_their_progress(client: ollama.Client, registry: str) -> None:
    name = f"{registry}/team/tiny:v1"
    client.copy("tiny", name)
    sent = [line.status for line in client.push(name, stream=True)]
    assert sent[0] == "retrieving manifest"
    assert sent[-1] == "success"
    client.delete(name)
    lines = list(client.pull(name, stream=True))
    assert lines[0].status == "pulling manifest"
    assert [line.status for line in lines][-3:] == ["verifying sha256 digest", "writing manifest", "success"]
    assert name in {one.model for one in client.list().models}
    assert client.pull(name).status == "success"
    client.delete(name)
    with pytest.raises(ollama.ResponseError):
        client.pull(f"{registry}/team/nothing")
    with pytest.raises(ollama.ResponseError):
        list(client.pull(f"{registry}/team/nothing", stream=True))


def test_a_pull_ends_when_its_client_hangs_up(server: str) -> None:
    with Slow() as registry:
        layers = []
        for number in range(60):
            data = b"layer %d" % number
            annotations = {media.FILEPATH: f"part-{number}.txt"}
            digest = registry.add_blob("team/parts", data)
            layers.append({"mediaType": "text/plain", "digest": digest, "size": len(data), "annotations": annotations})
        config = {"mediaType": "application/json", "digest": registry.add_blob("team/parts", b"{}"), "size": 2}
        manifest = {"schemaVersion": 2, "mediaType": media.OCI_MANIFEST, "config": config, "layers": layers}
        registry.add_manifest("team/parts", json.dumps(manifest).encode(), tag="v1")
        name = f"{registry.host}/team/parts:v1"
        with httpx.stream("POST", f"{server}/api/pull", json={"model": name}) as answer:
            lines = answer.iter_lines()
            while "pulling " not in json.loads(next(lines)).get("status", "").replace("pulling manifest", ""):
                pass
        asked = -1
        while asked != (asked := len(registry.asked("/blobs/"))):
            time.sleep(1.0)
        assert 0 < asked < 60
    assert name not in {one["name"] for one in httpx.get(f"{server}/api/tags").json()["models"]}


@pytest.mark.model
def test_a_real_model_speaks_the_dialect(client: ollama.Client) -> None:
    asked = [{"role": "user", "content": "Name a colour."}]
    options = {"temperature": 0, "num_predict": 12}
    assert client.generate("tiny", keep_alive="10m").done_reason == "load"
    (row,) = [one for one in client.ps().models if one.model == "tiny:latest"]
    assert row.context_length == 1024
    whole = client.chat("tiny:latest", asked, options=options)
    streamed = list(client.chat("tiny", asked, options=options, stream=True))
    assert "".join(one.message.content or "" for one in streamed) == whole.message.content != ""
    assert whole.eval_count == 12
    assert (whole.eval_duration or 0) > 0
    assert (whole.total_duration or 0) >= (whole.eval_duration or 0)
    client.create("tiny-stops", from_="tiny", system="Answer with one word.", parameters={**options, "num_predict": 3})
    short = client.chat("tiny-stops", asked)
    assert (short.eval_count, short.done_reason) == (3, "length")
    assert (short.prompt_eval_count or 0) != (whole.prompt_eval_count or 0)
    with pytest.raises(ollama.ResponseError, match="context of 1024 tokens, not 4096"):
        client.chat("tiny", asked, options={"num_ctx": 4096})
    for name in ("tiny", "tiny-stops"):
        assert client.generate(name, keep_alive=0).done_reason == "unload"
    note("ollama (Python)", version("ollama"), "chat, streams, generate, create, ps and keep_alive with SmolLM2")


NODE = """
const { Ollama } = require("ollama");
(async () => {
  const client = new Ollama({ host: process.argv[2] });
  const messages = [{ role: "user", content: "one two three" }];
  const out = {};
  out.whole = (await client.chat({ model: "echo", messages })).message.content;
  out.streamed = [];
  for await (const part of await client.chat({ model: "echo", messages, stream: true })) {
    out.streamed.push([part.message.content, part.done]);
  }
  out.generated = (await client.generate({ model: "echo", prompt: "a b" })).response;
  const parameters = { type: "object", properties: { city: { type: "string" } }, required: ["city"] };
  const tools = [{ type: "function", function: { name: "get_weather", description: "", parameters } }];
  const ask = [{ role: "user", content: "Use get_weather for Rome" }];
  const called = (await client.chat({ model: "echo", messages: ask, tools })).message.tool_calls[0].function;
  out.called = [called.name, Object.keys(called.arguments)];
  out.vectors = (await client.embed({ model: "echo", input: ["a", "b"] })).embeddings.length;
  out.listed = (await client.list()).models.some((one) => one.name === "tiny:latest");
  out.family = (await client.show({ model: "tiny" })).details.family;
  await client.copy({ source: "tiny", destination: "node-copy" });
  await client.delete({ model: "node-copy" });
  out.created = (await client.create({ model: "node-made", from: "tiny", system: "Hi" })).status;
  try { await client.chat({ model: "no-such", messages }); } catch (error) { out.error = error.status_code; }
  console.log(JSON.stringify(out));
})();
"""


def test_the_node_client_of_ollama(server: str, tmp_path: Path) -> None:
    npm, node = shutil.which("npm"), shutil.which("node")
    if npm is None or node is None:
        pytest.skip("npm is not installed")
    install = [npm, "install", "--no-audit", "--no-fund", "--silent", "--prefix", str(tmp_path), "ollama"]
    if subprocess.run(install, capture_output=True, timeout=300, check=False).returncode:
        pytest.skip("npm could not fetch the ollama package")
    script = tmp_path / "talk.js"
    script.write_text(NODE)
    done = subprocess.run([node, script, server], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        "whole": "one two three",
        "streamed": [["one", False], [" two", False], [" three", False], ["", True]],
        "generated": "a b",
        "called": ["get_weather", ["city"]],
        "vectors": 2,
        "listed": True,
        "family": "llama",
        "created": "success",
        "error": 404,
    }
    note("ollama (Node)", node_version(tmp_path, "ollama"), "chat, streams, generate, tools, embed, models, create")
