"""Google, Azure and Bedrock: each answered by a server that speaks its wire format, in the caller's own event loop.

A library that reads the network in that loop would wait for a server that never gets to answer.
"""

from __future__ import annotations

import binascii
import gc
import json
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from scripted_server import Reply, Scripted, events, scripted

from dockyard.engines import builtin, choose
from dockyard.engines.upstream import Remote
from dockyard.errors import DockyardError, InvalidRequest, ModelNotFound, RateLimited, UpstreamError
from dockyard.hardware import detect
from dockyard.settings import Settings, Upstream
from dockyard.types import Chunk, LoadOptions, Message, Request, Sampling

pytest.importorskip("any_llm", reason="the extra `upstream` is not installed")
pytestmark = [
    pytest.mark.anyio,
    pytest.mark.filterwarnings("ignore:Inheritance class:DeprecationWarning"),  # Google's, of its own session
    # What a library leaves of a connection that was given up is a closed socket.
    pytest.mark.filterwarnings("ignore:Exception ignored in. <socket.socket:pytest.PytestUnraisableExceptionWarning"),
]
SECRET = "secret0123456789verylong"
TOOL = {
    "type": "function",
    "function": {"name": "weather", "description": "How it is.",
                 "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}},
}  # fmt: skip
SYSTEM = Message(role="system", content="Be brief.")
TURNS = (SYSTEM, Message(role="user", content="hi"))


def frame(kind: str, content: Any, *, message: str = "event") -> bytes:
    """A message of AWS's event stream: lengths, headers and payload, each with its checksum."""
    name = ":event-type" if message == "event" else ":exception-type"
    headers = b""
    for key, value in ((name, kind), (":content-type", "application/json"), (":message-type", message)):
        headers += bytes([len(key)]) + key.encode() + b"\x07" + struct.pack(">H", len(value)) + value.encode()
    payload = json.dumps(content).encode()
    prelude = struct.pack(">II", 16 + len(headers) + len(payload), len(headers))
    whole = prelude + struct.pack(">I", binascii.crc32(prelude)) + headers + payload
    return whole + struct.pack(">I", binascii.crc32(whole))


def google(*parts: dict[str, Any], reason: str | None = None, **usage: int) -> dict[str, Any]:
    candidate: dict[str, Any] = {"index": 0, "content": {"role": "model", "parts": list(parts)}}
    if reason is not None:
        candidate["finishReason"] = reason
    return {"candidates": [candidate], **({"usageMetadata": usage} if usage else {})}


def openai(delta: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
    choice = {"index": 0, "delta": {"role": "assistant", **delta}, "finish_reason": finish}
    return {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}


def counted() -> dict[str, Any]:
    usage = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
    return {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [], "usage": usage}


OPENAI_TEXT = events(openai({"content": "Hel"}), openai({"content": "lo"}), openai({}, "stop"), counted())
OPENAI_CALL = events(
    openai({"tool_calls": [{"index": 0, "id": "c1", "type": "function",
                            "function": {"name": "weather", "arguments": '{"city": '}}]}),
    openai({"tool_calls": [{"index": 0, "function": {"arguments": '"Kiel"}'}}]}), openai({}, "tool_calls"), counted(),
)  # fmt: skip
OPENAI_VECTORS = json.dumps({
    "object": "list", "model": "m", "data": [{"object": "embedding", "index": n, "embedding": [n, 1]} for n in (0, 1)],
    "usage": {"prompt_tokens": 4, "total_tokens": 4},
})  # fmt: skip


class Spoken(msgspec.Struct, frozen=True, kw_only=True):
    """One provider's wire format: where a chat goes, where its key stands, and its ways of answering."""

    provider: str
    path: str
    key: tuple[str, str]
    text: list[str] | list[bytes]
    call: list[str] | list[bytes]
    vectors: list[str]
    busy: tuple[int, str]
    missing: tuple[int, str]

    async def connect(self, server: Scripted, tmp_path: Path, **fields: Any) -> Remote:
        (tmp_path / "key").write_text(SECRET)
        place = {} if self.provider == "bedrock" else {"api_key_file": str(tmp_path / "key")}
        fields = {"base_url": server.url, **place, "retries": 0, **fields}
        settings = Settings(upstreams={"far": Upstream(provider=self.provider, **fields)})
        files = builtin("far/big-model", settings.upstreams)
        assert files is not None
        engine = choose(files, LoadOptions(), settings, detect()).engine
        assert isinstance(engine, Remote)
        await engine.start(files, engine.plan(files, LoadOptions(), settings, detect()))
        return engine


GEMINI = Spoken(
    provider="gemini", path="/models/big-model:streamGenerateContent?alt=sse", key=("x-goog-api-key", SECRET),
    text=events(google({"text": "Hel"}), google({"text": "lo"}),
                google(reason="STOP", promptTokenCount=3, candidatesTokenCount=2, totalTokenCount=5), done=False),
    call=events(google({"functionCall": {"name": "weather", "args": {"city": "Kiel"}}}, reason="STOP",
                       promptTokenCount=3, candidatesTokenCount=2, totalTokenCount=5), done=False),
    vectors=[json.dumps({"embeddings": [{"values": [0.0, 1.0]}, {"values": [1.0, 1.0]}]})],
    busy=(429, json.dumps({"error": {"code": 429, "message": "slow down", "status": "RESOURCE_EXHAUSTED"}})),
    missing=(404, json.dumps({"error": {"code": 404, "message": "no such model", "status": "NOT_FOUND"}})),
)  # fmt: skip
AZURE_OPENAI = Spoken(
    provider="azureopenai", path="/openai/v1/chat/completions", key=("authorization", f"Bearer {SECRET}"),
    text=OPENAI_TEXT, call=OPENAI_CALL, vectors=[OPENAI_VECTORS],
    busy=(429, json.dumps({"error": {"code": "429", "message": "slow down"}})),
    missing=(404, json.dumps({"error": {"code": "DeploymentNotFound", "message": "no such deployment"}})),
)  # fmt: skip
AZURE = Spoken(
    provider="azure", path="/chat/completions", key=("api-key", SECRET),
    text=OPENAI_TEXT, call=OPENAI_CALL, vectors=[OPENAI_VECTORS],
    busy=(429, json.dumps({"error": {"code": "429", "message": "slow down"}})),
    missing=(404, json.dumps({"error": {"code": "unknown_model", "message": "no such model"}})),
)  # fmt: skip
METADATA = frame("metadata", {"usage": {"inputTokens": 3, "outputTokens": 2, "totalTokens": 5},
                              "metrics": {"latencyMs": 1}})  # fmt: skip
BEDROCK = Spoken(
    provider="bedrock", path="/model/big-model/converse-stream",
    key=("authorization", "AWS4-HMAC-SHA256 Credential=AKIA0"),
    text=[frame("messageStart", {"role": "assistant"}),
          *(frame("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"text": text}}) for text in ("Hel", "lo")),
          frame("contentBlockStop", {"contentBlockIndex": 0}), frame("messageStop", {"stopReason": "end_turn"}),
          METADATA],
    call=[frame("messageStart", {"role": "assistant"}),
          frame("contentBlockStart", {"contentBlockIndex": 0,
                                      "start": {"toolUse": {"toolUseId": "c1", "name": "weather"}}}),
          *(frame("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"toolUse": {"input": part}}})
            for part in ('{"city": ', '"Kiel"}')),
          frame("contentBlockStop", {"contentBlockIndex": 0}), frame("messageStop", {"stopReason": "tool_use"}),
          METADATA],
    vectors=[json.dumps({"embedding": [0.0, 1.0], "inputTextTokenCount": 2})],
    busy=(429, json.dumps({"message": "slow down"})),
    missing=(404, json.dumps({"message": "no such model"})),
)  # fmt: skip
ALL = pytest.mark.parametrize("spoken", [GEMINI, AZURE_OPENAI, AZURE, BEDROCK], ids=lambda each: each.provider)


@pytest.fixture(autouse=True)
def account(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Bedrock's one-line keys go over HTTPS only; with an account's it signs what it sends."""
    for name, value in (("ACCESS_KEY_ID", "AKIA0"), ("SECRET_ACCESS_KEY", SECRET), ("DEFAULT_REGION", "eu-central-1")):
        monkeypatch.setenv(f"AWS_{name}", value)
    yield
    gc.collect()  # here, and not in somebody else's test


def headers_of(spoken: Spoken) -> dict[str, str]:
    if spoken is BEDROCK:
        return {"content_type": "application/vnd.amazon.eventstream"}
    return {"content_type": "text/event-stream"}


async def collect(engine: Remote, request: Request) -> list[Chunk]:
    try:
        return [chunk async for chunks in engine.generate(request) for chunk in chunks]
    finally:
        await engine.close()


@ALL
async def test_a_chat(spoken: Spoken, tmp_path: Path) -> None:
    async with scripted(Reply(*spoken.text, **headers_of(spoken))) as server:
        engine = await spoken.connect(server, tmp_path)
        sampling = Sampling(max_tokens=5, temperature=0.5, stop=("x",))
        chunks = await collect(engine, Request(id="1", messages=TURNS, sampling=sampling))
    assert "".join(chunk.text for chunk in chunks) == "Hello"
    assert chunks[-1].finish == "stop"
    usage = chunks[-1].usage
    assert usage is not None
    assert (usage.prompt_tokens, usage.completion_tokens) == (3, 2)
    ((path, headers, body),) = server.requests
    assert spoken.path in path
    assert headers[spoken.key[0]].startswith(spoken.key[1])
    text = json.dumps(body)
    assert all(said in text for said in ("Be brief.", '"hi"', "0.5", '"x"', "5"))


@ALL
async def test_a_tool_is_offered_and_called(spoken: Spoken, tmp_path: Path) -> None:
    async with scripted(Reply(*spoken.call, **headers_of(spoken))) as server:
        engine = await spoken.connect(server, tmp_path)
        chunks = await collect(engine, Request(id="1", messages=TURNS, extra={"tools": [TOOL], "tool_choice": "auto"}))
    calls: list[Any] = [call for chunk in chunks for call in chunk.tool_calls or ()]
    assert "".join(call["function"].get("name") or "" for call in calls) == "weather"
    arguments = "".join(call["function"].get("arguments") or "" for call in calls)
    assert json.loads(arguments) == {"city": "Kiel"}
    assert chunks[-1].finish == "tool_calls"
    ((_, _, body),) = server.requests
    assert "How it is." in json.dumps(body)


@ALL
async def test_texts_embed(spoken: Spoken, tmp_path: Path) -> None:
    replies = [Reply(*spoken.vectors, content_type="application/json") for _ in range(2)]
    async with scripted(*replies) as server:
        engine = await spoken.connect(server, tmp_path)
        (chunk,) = await collect(engine, Request(id="1", kind="embed", inputs=("a", "b")))
    assert chunk.result is not None
    found = [struct.unpack("<2f", vector) for vector in chunk.result.vectors]
    assert found == ([(0.0, 1.0), (0.0, 1.0)] if spoken is BEDROCK else [(0.0, 1.0), (1.0, 1.0)])


@ALL
@pytest.mark.parametrize(
    ("pick", "error"), [(lambda each: each.busy, RateLimited), (lambda each: each.missing, ModelNotFound)]
)
async def test_failures_are_our_errors_without_the_key(
    spoken: Spoken, pick: Callable[[Spoken], tuple[int, str]], error: type[DockyardError], tmp_path: Path
) -> None:
    status, body = pick(spoken)
    kind = {"x_amzn_errortype": "ThrottlingException" if status == 429 else "ResourceNotFoundException"}
    async with scripted(Reply(body, status=status, content_type="application/json", **kind)) as server:
        engine = await spoken.connect(server, tmp_path)
        with pytest.raises(error) as caught:
            await collect(engine, Request(id="1", messages=TURNS))
    assert SECRET not in str(caught.value)
    assert len(server.requests) == 1, "asking again is this engine's to decide, not the library's"


@ALL
async def test_a_stream_that_breaks_off_is_an_error(spoken: Spoken, tmp_path: Path) -> None:
    async with scripted(Reply(*spoken.text[:2], cut=True, **headers_of(spoken))) as server:
        engine = await spoken.connect(server, tmp_path)
        with pytest.raises(UpstreamError):
            await collect(engine, Request(id="1", messages=TURNS))


@ALL
async def test_silence_is_an_error_in_time(spoken: Spoken, tmp_path: Path) -> None:
    async with scripted(Reply(*spoken.text, head=30.0, **headers_of(spoken))) as server:
        engine = await spoken.connect(server, tmp_path, timeout=0.5)
        with pytest.raises(UpstreamError):
            await collect(engine, Request(id="1", messages=TURNS))


@ALL
async def test_hanging_up_here_hangs_up_there(spoken: Spoken, tmp_path: Path) -> None:
    async with scripted(Reply(*spoken.text[:2], *(spoken.text[1:2] * 200), gap=0.05, **headers_of(spoken))) as server:
        engine = await spoken.connect(server, tmp_path)
        stream = engine.generate(Request(id="1", messages=TURNS))
        await anext(stream)
        await stream.aclose()
        await server.hung_up.wait()
        await engine.close()


@ALL
async def test_what_a_provider_is_not_sent_is_refused_by_name(spoken: Spoken, tmp_path: Path) -> None:
    async with scripted() as server:
        engine = await spoken.connect(server, tmp_path)
        with pytest.raises(InvalidRequest) as caught:
            await collect(engine, Request(id="1", messages=TURNS, sampling=Sampling(top_k=3)))
    assert caught.value.param == "top_k"
    assert server.requests == []
