"""The client: over a URL and over an app in this process, it behaves the same."""

from __future__ import annotations

import asyncio
import http.server
import json
import subprocess
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dockyard.client import AsyncClient, Client, running
from dockyard.client._events import EventSplitter, error_of
from dockyard.errors import (
    DockyardError,
    InvalidRequest,
    ModelNotFound,
    RateLimited,
    ServerUnreachable,
    Unauthorized,
    WorkerCrashed,
)


def sse(*events: Any) -> bytes:
    return b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in events) + b"data: [DONE]\n\n"


def delta(text: str, finish: str | None = None) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": finish}]}


class App:
    """A tiny ASGI app that streams; it writes down what happened to it."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.asked: list[dict[str, Any]] = []
        self.sent = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await receive()
            self.events.append("startup")
            await send({"type": "lifespan.startup.complete"})
            await receive()
            self.events.append("shutdown")
            await send({"type": "lifespan.shutdown.complete"})
            return
        asked = json.loads((await receive())["body"] or b"{}")
        self.asked.append({"path": scope["path"], "headers": dict(scope["headers"]), **asked})
        if asked.get("model") == "missing":
            error = {"message": "no model 'missing'", "code": "model_not_found", "hint": "pull it", "param": "model"}
            await self._answer(send, 404, json.dumps({"error": error}).encode())
            return
        if asked.get("model") == "endless":
            await self._endless(receive, send)
            return
        if asked.get("model") == "breaks":
            failed = {"error": {"message": "the worker died", "code": "worker_crashed"}}
            await self._answer(send, 200, sse(delta("half"), failed))
            return
        usage = {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2}}
        await self._answer(send, 200, sse(delta("Hé"), delta("llo", "stop"), usage))

    async def _answer(self, send: Any, status: int, body: bytes) -> None:
        await send({"type": "http.response.start", "status": status, "headers": [(b"Content-Type", b"x")]})
        for at in range(0, len(body), 7):
            await send({"type": "http.response.body", "body": body[at : at + 7], "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    async def _endless(self, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        gone = asyncio.create_task(receive())
        while not gone.done():
            await send({"type": "http.response.body", "body": sse(delta("x"))[:-14], "more_body": True})
            self.sent += 1
            await asyncio.sleep(0)
        self.events.append((await gone)["type"])


@pytest.mark.anyio
async def test_an_app_in_this_process_streams_and_its_lifespan_runs() -> None:
    app = App()
    async with AsyncClient(app=app) as client:
        chunks = [chunk async for chunk in client.chat("m", "hi", max_tokens=5)]
    assert "".join(chunk.text for chunk in chunks) == "Héllo"
    assert chunks[1].finish == "stop"
    assert chunks[-1].usage is not None
    assert (chunks[-1].usage.prompt_tokens, chunks[-1].usage.completion_tokens) == (3, 2)
    assert app.asked[0]["messages"] == [{"role": "user", "content": "hi"}]
    assert app.asked[0]["max_tokens"] == 5
    assert app.events == ["startup", "shutdown"]


@pytest.mark.anyio
async def test_closing_a_stream_hangs_up_and_the_app_is_slowed_to_its_reader() -> None:
    app = App()
    async with AsyncClient(app=app) as client:
        stream = client.chat("endless", "hi")
        assert (await anext(stream)).text == "x"
        await asyncio.sleep(0.05)
        assert app.sent < 50
        await stream.aclose()
        assert "http.disconnect" in app.events


@pytest.mark.anyio
async def test_a_cancelled_reader_leaves_nothing_running() -> None:
    app = App()
    async with AsyncClient(app=app) as client:

        async def read() -> None:
            async for _ in client.chat("endless", "hi"):
                pass

        task = asyncio.create_task(read())
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert "http.disconnect" in app.events


@pytest.mark.anyio
async def test_errors_come_back_as_the_classes_they_were() -> None:
    async with AsyncClient(app=App()) as client:
        with pytest.raises(ModelNotFound) as caught:
            await anext(client.chat("missing", "hi"))
        assert (caught.value.message, caught.value.hint) == ("no model 'missing'", "pull it")
        stream = client.chat("breaks", "hi")
        assert (await anext(stream)).text == "half"
        with pytest.raises(WorkerCrashed, match="the worker died"):
            await anext(stream)


@pytest.mark.anyio
async def test_an_app_that_cannot_start_says_why() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "no disk"})

    with pytest.raises(DockyardError, match="no disk"):
        async with AsyncClient(app=app):
            pass


def test_plain_code_gets_plain_iterators() -> None:
    app = App()
    with Client(app=app, api_key="sk-1") as client:
        assert "".join(chunk.text for chunk in client.chat("m", "hi")) == "Héllo"
        for chunk in client.chat("endless", "hi"):
            assert chunk.text == "x"
            break
        with pytest.raises(ModelNotFound):
            next(client.chat("missing", "hi"))
    assert app.asked[0]["headers"][b"authorization"] == b"Bearer sk-1"
    assert app.events == ["startup", "http.disconnect", "shutdown"]


def test_a_client_must_be_opened_and_must_know_whom_to_ask() -> None:
    with pytest.raises(InvalidRequest):
        Client()
    with pytest.raises(InvalidRequest, match="not open"):
        Client("http://localhost:1").models()
    with pytest.raises(InvalidRequest, match="not the URL"):
        Client("ftp://x")


@pytest.fixture
def url() -> Iterator[str]:
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            if self.path.startswith("/api/dockyard/logs"):
                return self.answer(200, "one\ntwo é\nthree".encode())
            if self.path == "/v1/models":
                return self.answer(200, b'{"data": [{"id": "a"}]}')
            return self.answer(502, b"<html>a proxy")

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            if body["model"] == "cut":
                self.send_response(200)
                self.send_header("content-length", "1000")
                self.end_headers()
                self.wfile.write(sse(delta("half"))[:-14])
                self.wfile.flush()
                self.close_connection = True
                return None
            return self.answer(200, sse(delta("Hi", "stop")))

        def answer(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_over_http(url: str) -> None:
    for base in (url, f"{url}/v1/", url.removeprefix("http://")):
        with Client(base) as client:
            assert [model["id"] for model in client.models()] == ["a"]
            assert "".join(chunk.text for chunk in client.chat("m", "hi")) == "Hi"
            assert list(client.logs()) == ["one", "two é", "three"]


def test_a_broken_connection_is_said_in_a_sentence(url: str) -> None:
    with Client(url) as client:
        stream = client.chat("cut", "hi")
        assert next(stream).text == "half"
        with pytest.raises(ServerUnreachable, match="broke off"):
            list(stream)
        with pytest.raises(DockyardError, match="a proxy"):
            client.status()
    with Client("http://127.0.0.1:9") as client, pytest.raises(ServerUnreachable, match="can't reach"):
        client.models()


def test_a_server_file_counts_only_while_its_process_lives(tmp_path: Any) -> None:
    import os

    assert running(tmp_path) is None
    (tmp_path / "server.json").write_text(json.dumps({"pid": os.getpid(), "url": "http://x", "started": time.time()}))
    found = running(tmp_path)
    assert found is not None
    assert found.url == "http://x"
    (tmp_path / "server.json").write_text(json.dumps({"pid": 2**22 + 1, "url": "http://x", "started": 1.0}))
    assert running(tmp_path) is None
    (tmp_path / "server.json").write_text("{")
    assert running(tmp_path) is None


def test_a_process_that_was_given_the_number_of_a_dead_server_is_none(tmp_path: Any) -> None:
    with subprocess.Popen(["sleep", "60"]) as other:
        try:
            note = {"pid": other.pid, "url": "http://x", "started": time.time() - 3600}
            (tmp_path / "server.json").write_text(json.dumps(note))
            assert running(tmp_path) is None
            (tmp_path / "server.json").write_text(json.dumps({**note, "started": time.time()}))
            assert running(tmp_path) is not None
        finally:
            other.kill()


@given(
    st.lists(st.text(st.characters(exclude_characters="\r\n", codec="utf-8"), min_size=1), max_size=6),
    st.sampled_from(["\n", "\r\n", "\r"]),
    st.randoms(use_true_random=False),
)
def test_events_survive_any_cut(texts: list[str], end: str, random: Any) -> None:
    body = "".join(f": ping{end}event: x{end}data: {text}{end}{end}" for text in texts).encode() + b"\n"
    splitter, found, at = EventSplitter(), [], 0
    while at < len(body):
        size = random.randint(1, 9)
        found += splitter.feed(body[at : at + size])
        at += size
    assert found == texts


@pytest.mark.parametrize(
    ("status", "body", "kind", "message"),
    [
        (401, b'{"error": {"message": "no key", "code": "other"}}', Unauthorized, "no key"),
        (429, b'{"detail": "slow down"}', RateLimited, "slow down"),
        (500, b"", DockyardError, "the server answered with status 500"),
        (503, b'{"error": "text"}', DockyardError, "text"),
    ],
)
def test_answers_of_other_servers_are_understood(status: int, body: bytes, kind: type, message: str) -> None:
    error = error_of(status, body, retry_after="7")
    assert isinstance(error, kind)
    assert (error.message, error.retry_after) == (message, 7.0)
