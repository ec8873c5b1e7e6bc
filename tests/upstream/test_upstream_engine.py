"""The upstream engine against a server that plays every way of answering and failing."""

from __future__ import annotations

import asyncio
import json
import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scripted_server import USAGE, Reply, events, said, scripted

from dockyard.engines import _upstream_wire, builtin, choose
from dockyard.engines._upstream_errors import Refusal, seconds
from dockyard.engines.upstream import Remote
from dockyard.errors import (
    ContextOverflow,
    DockyardError,
    InvalidRequest,
    ModelNotFound,
    Overloaded,
    RateLimited,
    SettingsError,
    UnsupportedParameter,
    UpstreamError,
)
from dockyard.hardware import detect
from dockyard.settings import Settings, Upstream
from dockyard.types import Chunk, LoadOptions, Message, Request, Sampling, Usage

pytestmark = pytest.mark.anyio
SECRET = "sk-verysecret-4711"


async def connect(url: str, tmp_path: Path, **fields: Any) -> Remote:
    (tmp_path / "key").write_text(SECRET)
    entry = Upstream(base_url=f"{url}/v1", api_key_file=str(tmp_path / "key"), **fields)
    settings = Settings(upstreams={"far": entry})
    files = builtin("far/big-model", settings.upstreams)
    assert files is not None
    engine = choose(files, LoadOptions(), settings, detect()).engine
    assert isinstance(engine, Remote)
    plan = engine.plan(files, LoadOptions(), settings, detect())
    assert SECRET not in repr(plan)
    await engine.start(files, plan)
    return engine


def chat(text: str = "hi", **fields: Any) -> Request:
    return Request(id="1", messages=(Message(role="user", content=text),), **fields)


async def collect(engine: Remote, request: Request) -> list[Chunk]:
    return [chunk async for chunks in engine.generate(request) for chunk in chunks]


GOOD = events(said("Hel"), said("lo"), said("", "stop"), USAGE)


async def test_what_is_sent_and_what_comes_back(tmp_path: Path) -> None:
    call = {"index": 0, "id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    reply = events(
        {"choices": [{"index": 0, "delta": {"reasoning_content": "hm"}}]},
        said("Hello"),
        {"choices": [{"index": 0, "delta": {"tool_calls": [call]}, "finish_reason": "tool_calls"}]},
        {"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 4,
                                  "prompt_tokens_details": {"cached_tokens": 5}}},
    )  # fmt: skip
    async with scripted(Reply(*reply)) as server:
        engine = await connect(server.url, tmp_path)
        sampling = Sampling(max_tokens=5, temperature=0.5, top_k=3, stop=("x",), logprobs=1)
        image = [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AA"}}]
        request = Request(
            id="1", messages=(Message(role="user", content=image),), sampling=sampling, extra={"tools": [{"type": "f"}]}
        )
        chunks = await collect(engine, request)
        await engine.close()
    assert [chunk.reasoning for chunk in chunks] == ["hm", "", ""]
    assert "".join(chunk.text for chunk in chunks) == "Hello"
    assert chunks[-1].tool_calls == [call]
    assert chunks[-1].finish == "tool_calls"
    usage = chunks[-1].usage
    assert usage is not None
    assert (usage.prompt_tokens, usage.completion_tokens, usage.cached_tokens) == (9, 4, 5)
    ((path, headers, body),) = server.requests
    assert path == "/v1/chat/completions"
    assert headers["authorization"] == f"Bearer {SECRET}"
    assert body == {
        "model": "big-model", "messages": [{"role": "user", "content": image}], "tools": [{"type": "f"}],
        "max_tokens": 5, "temperature": 0.5, "top_k": 3, "stop": ["x"], "logprobs": True, "top_logprobs": 1,
        "stream": True, "stream_options": {"include_usage": True},
    }  # fmt: skip


async def test_usage_so_far_is_asked_of_the_other_server_and_told(tmp_path: Path) -> None:
    pieces = [
        {
            "choices": [{"index": 0, "delta": {"content": text}}],
            "usage": {"prompt_tokens": 9, "completion_tokens": count},
        }
        for count, text in enumerate(["Hel", "lo"], 1)
    ]
    end = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
    total = {"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 3}}
    messages = (Message(role="user", content="hi"),)
    async with scripted(Reply(*events(*pieces, end, total))) as server:
        engine = await connect(server.url, tmp_path)
        chunks = await collect(engine, Request(id="1", messages=messages, counting=True))
        await engine.close()
    assert server.requests[0][2]["stream_options"] == {"include_usage": True, "continuous_usage_stats": True}
    assert [chunk.so_far and chunk.so_far.completion_tokens for chunk in chunks] == [1, 2, None]
    assert chunks[-1].usage == Usage(prompt_tokens=9, completion_tokens=3)
    with pytest.raises(UnsupportedParameter, match="continuous_usage_stats"):
        _upstream_wire.body(Request(id="1", messages=messages, counting=True), "gpt", strict=True)


async def test_completions_with_their_logprobs(tmp_path: Path) -> None:
    logprobs = {"tokens": [" b"], "token_logprobs": [-0.5], "top_logprobs": [{" b": -0.5, " c": -1.0}]}
    choice = {"text": " b", "index": 0, "finish_reason": "length", "logprobs": logprobs}
    async with scripted(Reply(*events({"choices": [choice]}))) as server:
        engine = await connect(server.url, tmp_path)
        (chunk,) = await collect(engine, Request(id="1", kind="complete", prompt="a", suffix="z"))
        await engine.close()
    assert server.requests[0][0] == "/v1/completions"
    assert server.requests[0][2]["suffix"] == "z"
    assert chunk.logprobs is not None
    assert [top.token for top in chunk.logprobs[0].top] == [" b", " c"]
    assert chunk.finish == "length"


@pytest.mark.parametrize("encoded", [[0.5, -1.0], "AAAAPwAAgL8="])
async def test_vectors_as_numbers_or_base64(tmp_path: Path, encoded: Any) -> None:
    data = [{"index": 1, "embedding": encoded}, {"index": 0, "embedding": [1.0, 2.0]}]
    reply = Reply(json.dumps({"data": data, "usage": {"prompt_tokens": 4}}))
    async with scripted(reply) as server:
        engine = await connect(server.url, tmp_path)
        (chunk,) = await collect(engine, Request(id="1", kind="embed", inputs=("a", "b")))
        await engine.close()
    assert chunk.result is not None
    assert [struct.unpack("<2f", vector) for vector in chunk.result.vectors] == [(1.0, 2.0), (0.5, -1.0)]


async def test_scores_in_the_order_of_the_documents_as_logits(tmp_path: Path) -> None:
    reply = '{"results": [{"index": 1, "relevance_score": 0.5}, {"index": 0, "relevance_score": 0.9}]}'
    async with scripted(Reply(reply), Reply('{"results": []}')) as server:
        engine = await connect(server.url, tmp_path)
        ask = Request(id="1", kind="rerank", query="q", inputs=("a", "b"))
        (chunk,) = await collect(engine, ask)
        with pytest.raises(UpstreamError, match="can't be read"):
            await collect(engine, ask)
        await engine.close()
    assert chunk.result is not None
    assert chunk.result.scores == pytest.approx((2.197, 0.0), abs=1e-3)


@pytest.mark.parametrize(
    ("status", "body", "error"),
    [
        (400, '{"error": {"message": "bad top_p", "param": "top_p"}}', InvalidRequest),
        (400, '{"error": {"message": "too long", "code": "context_length_exceeded"}}', ContextOverflow),
        (401, '{"error": {"message": "wrong key ' + SECRET + '"}}', UpstreamError),
        (404, '{"detail": "Not Found"}', ModelNotFound),
        (418, f"<html>{SECRET} Bearer {SECRET}x</html>", UpstreamError),
        (307, "", UpstreamError),
    ],
)
async def test_refusals_become_errors_without_the_key(
    tmp_path: Path, status: int, body: str, error: type[DockyardError]
) -> None:
    async with scripted(Reply(body, status=status, location="http://elsewhere/")) as server:
        engine = await connect(server.url, tmp_path)
        with pytest.raises(error) as caught:
            await collect(engine, chat())
        await engine.close()
    assert len(server.requests) == 1
    told = f"{caught.value!r} {caught.value.message} {caught.value.hint} {caught.value.__cause__!r}"
    assert "verysecret" not in told
    assert "upstream far" in told


async def test_a_busy_server_is_asked_again_before_the_first_token(tmp_path: Path) -> None:
    busy = Reply('{"error": {"message": "slow down"}}', status=429, retry_after="0.1")
    async with scripted(busy, Reply("", status=502), Reply(*GOOD)) as server:
        engine = await connect(server.url, tmp_path)
        chunks = await collect(engine, chat())
        await engine.close()
    assert "".join(chunk.text for chunk in chunks) == "Hello"
    assert len(server.requests) == 3


async def test_no_retry_that_would_take_too_long_or_beyond_their_number(tmp_path: Path) -> None:
    long = Reply("{}", status=429, retry_after="3600")
    gone = [Reply("{}", status=503) for _ in range(2)]
    async with scripted(long, *gone) as server:
        engine = await connect(server.url, tmp_path, retries=1)
        with pytest.raises(RateLimited) as caught:
            await collect(engine, chat())
        assert caught.value.retry_after == 3600
        with pytest.raises(Overloaded):
            await collect(engine, chat())
        await engine.close()
    assert server.replies == []


@pytest.mark.parametrize(
    "reply",
    [
        Reply(*events(said("Hel"), done=False), cut=True),
        Reply(*events(said("Hel"))),
        Reply(*events(said("Hel"), {"error": {"message": "lost a GPU"}})),
        Reply(*events(said("Hel")), "data: {nonsense\n\n"),
    ],
)
async def test_once_begun_an_answer_is_not_begun_again(tmp_path: Path, reply: Reply) -> None:
    if "nonsense" in reply.body[-1]:
        reply.body = (reply.body[0], reply.body[-1])
    async with scripted(reply, Reply(*GOOD)) as server:
        engine = await connect(server.url, tmp_path)
        found: list[str] = []

        async def read() -> None:
            async for chunks in engine.generate(chat()):
                found.extend(chunk.text for chunk in chunks)

        with pytest.raises(UpstreamError):
            await read()
        await engine.close()
    assert found == ["Hel"]
    assert len(server.requests) == 1


async def test_silence_is_an_error_in_time(tmp_path: Path) -> None:
    async with scripted(Reply(*GOOD, head=5.0)) as server:
        engine = await connect(server.url, tmp_path, timeout=0.2, retries=0)
        with pytest.raises(UpstreamError, match="in time"):
            await collect(engine, chat())
        await engine.close()


async def test_nobody_there(tmp_path: Path) -> None:
    async with scripted() as server:
        url = server.url
    engine = await connect(url, tmp_path, retries=0)
    with pytest.raises(UpstreamError, match="can't be reached"):
        await collect(engine, chat())
    await engine.close()


@pytest.mark.parametrize("waiting", [True, False])
async def test_hanging_up_here_hangs_up_there(tmp_path: Path, waiting: bool) -> None:
    endless = Reply(*(events(said("word "), done=False) * 1000), gap=0.01 if not waiting else 30.0)
    async with scripted(endless) as server:
        engine = await connect(server.url, tmp_path)
        stream = engine.generate(chat())
        await stream.__anext__()
        if waiting:
            task = asyncio.ensure_future(stream.__anext__())
            await asyncio.sleep(0.05)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        await stream.aclose()
        async with asyncio.timeout(5):
            await server.hung_up.wait()
        await engine.close()


@pytest.mark.parametrize("request_", [chat(""), Request(id="1", messages=()), Request(id="1", kind="tokenize")])
async def test_what_can_not_be_asked(tmp_path: Path, request_: Request) -> None:
    async with scripted(Reply(*GOOD)) as server:
        engine = await connect(server.url, tmp_path)
        if request_.messages:
            await collect(engine, request_)  # an empty message is the other server's to judge
        else:
            with pytest.raises(InvalidRequest):
                await collect(engine, request_)
        with pytest.raises(UnsupportedParameter):
            await collect(engine, chat(sampling=Sampling(prompt_logprobs=1)))
        await engine.close()


@pytest.mark.parametrize("content", [None, "", "two\nlines"])
async def test_a_key_that_is_not_there_is_told_without_its_content(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "secret"
    if content is not None:
        path.write_text(content)
    settings = Settings(upstreams={"far": Upstream(base_url="http://x/v1", api_key_file=str(path))})
    files = builtin("far/m", settings.upstreams)
    assert files is not None
    engine = Remote()
    with pytest.raises(SettingsError, match="secret") as caught:
        await engine.start(files, engine.plan(files, LoadOptions(), settings, detect()))
    assert "two" not in caught.value.message


def test_names() -> None:
    upstreams = {"far": Upstream(base_url="http://x/v1", models=("a/b",)), "any": Upstream(base_url="http://y/v1")}
    assert builtin("far/a/b", upstreams) is not None
    assert builtin("any/thing:latest", upstreams) is not None
    for name in ("far", "far/", "far/other", "near/a", "a/b"):
        assert builtin(name, upstreams) is None


secrets = st.text(st.characters(codec="ascii", categories=("L", "N", "P")), min_size=8, max_size=60)


@given(secrets, st.text(max_size=40), st.text(max_size=40))
def test_a_key_never_shows_whatever_surrounds_it(secret: str, before: str, after: str) -> None:
    refusal = Refusal("upstream far", secret)
    for status in (400, 401, 404, 429, 500, 503):
        for body in ({"error": {"message": before + secret + after}}, {"detail": secret}, before + secret):
            assert secret not in refusal.of(status, body).message.replace("upstream far", "")
    assert secret not in repr(refusal)


@pytest.mark.parametrize(
    ("header", "expected"),
    [("3", 3.0), ("-1", 0.0), ("soon", None), (None, None), ("Wed, 21 Oct 2015 07:28:00 GMT", 0)],
)
def test_retry_after(header: str | None, expected: float | None) -> None:
    assert seconds(header) == expected
