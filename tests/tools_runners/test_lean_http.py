"""The short way to servers over HTTP: answers of every form are read, connections kept, and odd ones fail one call."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dockyard.addresses import Guard
from dockyard.tools.model import Server, ToolFailed

from .talk import listening, talking
from .test_remote_runner import LOOPBACK, asgi

pytest.importorskip("mcp", reason="needs the extra mcp")
pytestmark = pytest.mark.anyio


class Raw:
    """A server that answers each request with the bytes that a test gives, whatever they are."""

    def __init__(self, answer: Callable[[int], bytes], *, ends: bool = False) -> None:
        self.answer = answer
        self.ends = ends
        self.connections = 0
        self.gone = 0
        self.writers: list[asyncio.StreamWriter] = []
        self.bodies: list[dict[str, Any]] = []
        self.tasks: set[asyncio.Task[Any]] = set()

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.tasks.add(task)
        self.connections += 1
        self.writers.append(writer)
        with contextlib.suppress(asyncio.IncompleteReadError, OSError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                length = int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0])
                self.bodies.append(json.loads(await reader.readexactly(length)))
                writer.write(self.answer(self.bodies[-1].get("id", 0)))
                await writer.drain()
                if self.ends:
                    break
        self.gone += 1
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


@contextlib.asynccontextmanager
async def posts(raw: Raw, session: str | None = None) -> AsyncIterator[tuple[Any, list[Any]]]:
    from dockyard.tools.runners._lean import Lean
    from dockyard.tools.runners._posts import Posts

    heard: list[Any] = []

    async def hear(message: Any) -> None:
        heard.append(message.message)

    server = await asyncio.start_server(raw, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    found = Posts(Lean(Guard(("127.0.0.1",)), f"http://127.0.0.1:{port}/mcp", {}), lambda: session, hear)
    try:
        yield found, heard
    finally:
        await found.close()
        server.close()
        await asyncio.gather(*raw.tasks)


def result(number: int, value: Any = 1) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "id": number, "result": {"value": value}}).encode()


def http(body: bytes, *headers: str, status: str = "200 OK", kind: str = "application/json") -> bytes:
    lines = "".join(f"{line}\r\n" for line in (f"Content-Type: {kind}", *headers))
    return f"HTTP/1.1 {status}\r\n{lines}\r\n".encode() + body


def sized(body: bytes, **more: Any) -> bytes:
    return http(body, f"Content-Length: {len(body)}", **more)


def chunked(*parts: bytes, **more: Any) -> bytes:
    body = b"".join(b"%x;x=y\r\n%s\r\n" % (len(part), part) for part in parts) + b"0\r\ntrailer: 1\r\n\r\n"
    return http(body, "Transfer-Encoding: chunked", **more)


def events(number: int) -> bytes:
    note = b'{"jsonrpc":"2.0","method":"notifications/message","params":{"level":"info","data":"soon"}}'
    return b": hello\r\nretry: 10\r\n\r\ndata: " + note + b"\r\n\r\nevent: message\r\ndata: " + result(number) + b"\n\n"


FORMS: dict[str, Callable[[int], bytes]] = {
    "with its length": lambda number: sized(result(number)),
    "in chunks": lambda number: chunked(result(number)[:9], result(number)[9:]),
    "after others": lambda number: b"HTTP/1.1 100 Continue\r\n\r\n" + sized(result(number)),
    "as events": lambda number: chunked(events(number), kind="text/event-stream; charset=utf-8"),
}


@pytest.mark.parametrize("form", FORMS)
async def test_every_form_of_answer_on_one_connection(form: str) -> None:
    raw = Raw(FORMS[form])
    async with posts(raw) as (one, heard):
        for _ in range(3):
            assert (await one.ask("tools/call", {}, {}))["result"] == {"value": 1}
            await asyncio.sleep(0.02)
    assert raw.connections == 1
    assert [message.params["data"] for message in heard] == ["soon"] * 3 * (form == "as events")
    assert len({body["id"] for body in raw.bodies}) == 3


async def test_an_answer_up_to_the_end_of_the_connection() -> None:
    raw = Raw(lambda number: http(result(number)), ends=True)
    async with posts(raw) as (one, _):
        for _ in range(2):
            assert (await one.ask("tools/call", {}, {}))["result"] == {"value": 1}
    assert raw.connections == 2


BROKEN = {
    "no HTTP": (b"hello\r\n\r\n", "no HTTP/1.1"),
    "nothing": (b"", "ended before an answer"),
    "half a head": (b"HTTP/1.1 200", "ended before an answer"),
    "an endless head": (b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 20_000, "ended before an answer"),
    "half a body": (http(b"{}", "Content-Length: 10"), "broke off"),
    "two lengths": (http(b"{}", "Content-Length: 2", "Content-Length: 3"), "contradicts itself"),
    "a length and chunks": (http(b"{}", "Content-Length: 2", "Transfer-Encoding: chunked"), "transfer coding"),
    "another coding": (http(b"{}", "Transfer-Encoding: gzip"), "transfer coding"),
    "a length below none": (http(b"{}", "Content-Length: -1"), "no number"),
    "a header without a name": (http(b"{}", ": x"), "a header that is none"),
    "a chunk without a length": (http(b"zz\r\n", "Transfer-Encoding: chunked"), "without a length"),
    "a chunk too long": (http(b"2\r\n{}}\r\n", "Transfer-Encoding: chunked"), "longer than it said"),
    "too much": (http(b"", f"Content-Length: {1 << 30}"), "more than"),
    "no JSON": (sized(b"\xff{"), "no JSON"),
    "another's answer": (sized(result(1)), "another request"),
    "no JSON-RPC": (sized(b"[1]"), "no JSON-RPC"),
    "an error without a code": (sized(b'{"jsonrpc":"2.0","id":null,"error":{}}'), "no code"),
    "events without end": (chunked(b"data: " + b"x" * (5 << 20), kind="text/event-stream"), "an event has more"),
    "a stream without an answer": (chunked(b"data: \n\n", kind="text/event-stream"), "ended without an answer"),
    "another type": (sized(b"<html>", kind="text/html"), "Unexpected content type"),
    "accepted": (sized(b"", status="202 Accepted"), "202"),
    "a failure": (sized(b"oops", status="500 No", kind="text/plain"), "status 500"),
    "no such thing": (sized(b"", status="404 No", kind="text/plain"), "Not Found"),
    "its own error": (sized(b'{"jsonrpc":"2.0","id":null,"error":{"code":-3,"message":"m"}}', status="400 No"), "m"),
}


@pytest.mark.parametrize("how", BROKEN)
async def test_a_broken_answer_fails_its_call_alone(how: str) -> None:
    body, reason = BROKEN[how]
    answers = iter([body])
    raw = Raw(lambda number: next(answers, sized(result(number))), ends=True)
    async with posts(raw) as (one, _):
        async with asyncio.timeout(60):
            assert reason in (await one.ask("tools/call", {}, {}))["error"]["message"]
            while not raw.gone:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        await asyncio.sleep(0.1)
        raw.ends = False
        assert (await one.ask("tools/call", {}, {}))["result"] == {"value": 1}


async def test_a_connection_that_ended_in_silence_is_not_used_again() -> None:
    raw = Raw(lambda number: sized(result(number)))
    async with posts(raw) as (one, _):
        await one.ask("tools/call", {}, {})
        # Its end has arrived when this returns, and the client's loop has not had a turn to see it.
        raw.writers[0].get_extra_info("socket").shutdown(socket.SHUT_WR)
        assert (await one.ask("tools/call", {}, {}))["result"] == {"value": 1}
    assert (raw.connections, len(raw.bodies)) == (2, 2)


@pytest.mark.parametrize(("method", "times"), [("tools/call", 1), ("tools/list", 2)])
async def test_only_what_may_happen_twice_is_sent_again(method: str, times: int) -> None:
    def answer(number: int) -> bytes:
        raw.ends = len(raw.bodies) == 2
        return b"" if raw.ends else sized(result(number))

    raw = Raw(answer)
    async with posts(raw) as (one, _):
        await one.ask("tools/call", {}, {})
        answered = await one.ask(method, {}, {})
    assert ("result" in answered) == (times == 2)
    assert [body["method"] for body in raw.bodies] == ["tools/call", *[method] * times]


async def test_a_new_connection_that_ends_is_not_tried_again() -> None:
    raw = Raw(lambda number: b"", ends=True)
    async with posts(raw) as (one, _):
        assert "ended before an answer" in (await one.ask("tools/list", {}, {}))["error"]["message"]
    assert len(raw.bodies) == 1


async def test_a_session_that_was_forgotten_is_over() -> None:
    from mcp_types import CONNECTION_CLOSED

    raw = Raw(lambda number: sized(b"", status="404 No", kind="text/plain"))
    async with posts(raw, session="s") as (one, _):
        assert (await one.ask("tools/call", {}, {}))["error"]["code"] == CONNECTION_CLOSED


async def test_what_only_the_package_can_do_is_left_to_it() -> None:
    from dockyard.tools.sdk_direct import Elsewhere, Resume

    async with posts(Raw(lambda number: sized(b"", status="307 There"))) as (one, _):
        with pytest.raises(Elsewhere):
            await one.ask("tools/call", {}, {})
    primed = chunked(b"id: e1\nretry: 20\ndata: \n\n", kind="text/event-stream")
    async with posts(Raw(lambda number: primed)) as (one, _):
        with pytest.raises(Resume) as resume:
            await one.ask("tools/call", {}, {})
    assert (resume.value.event, resume.value.seconds) == ("e1", 0.02)


@pytest.mark.parametrize(("version", "told"), [("2026-07-28", False), ("2025-11-25", True)])
async def test_cancelling_ends_the_connection_and_tells_older_servers(version: str, told: bool) -> None:
    raw = Raw(lambda number: b"" if number else sized(b"", status="202 Accepted"))
    async with posts(raw) as (one, _):
        work = asyncio.create_task(one.ask("tools/call", {}, {"mcp-protocol-version": version}))
        async with asyncio.timeout(10):
            while not raw.bodies:  # noqa: ASYNC110 - the server is plain
                await asyncio.sleep(0.01)
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)
            while not raw.gone or len(raw.bodies) < 1 + told:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
    assert [body["method"] for body in raw.bodies] == ["tools/call", *["notifications/cancelled"] * told]
    if told:
        assert raw.bodies[1]["params"]["requestId"] == raw.bodies[0]["id"]


@pytest.mark.parametrize(
    ("url", "headers"),
    [
        ("https://a.example/mcp", {}),
        ("http://user:word@a.example/", {}),
        ("http://a.example/", {"X-A": "b\r\nX-C: d"}),
        ("http://a.example/", {"Transfer-Encoding": "chunked"}),
        ("http://a.example/", {"a b": "c"}),
        ("http://a.example/\N{SNOWMAN}", {}),
    ],
)
def test_it_does_not_try_what_it_is_not_made_for(url: str, headers: dict[str, str]) -> None:
    from dockyard.tools.runners._lean import Lean

    with pytest.raises(ValueError, match=r"plain URL|header"):
        Lean(Guard(), url, headers)


@given(st.lists(st.binary(min_size=1, max_size=40), min_size=1, max_size=5), st.integers(1, 30))
@settings(max_examples=40, deadline=None)
def test_chunks_are_put_together_however_they_arrive(parts: list[bytes], step: int) -> None:
    from dockyard.tools.runners._lean import Answer

    async def read() -> bytes:
        reader = asyncio.StreamReader()
        head, _, body = chunked(*parts).partition(b"\r\n\r\n")
        answer = Answer(reader, head)
        work = asyncio.create_task(answer.whole(1 << 20))
        for at in range(0, len(body), step):
            reader.feed_data(body[at : at + step])
            await asyncio.sleep(0)
        reader.feed_eof()
        found = await work
        assert answer.over
        return found

    assert asyncio.run(read()) == b"".join(parts)


@pytest.mark.parametrize("era", [None, "legacy"])
@pytest.mark.parametrize("kind", ["json", "stream"])
async def test_it_is_the_way_that_servers_are_reached(kind: str, era: Any) -> None:
    seen: list[dict[str, str]] = []
    async with listening(asgi(kind, seen)) as port:
        server = Server(name="far", kind="remote", url=f"http://127.0.0.1:{port}/mcp")
        async with talking(server, era=era, tools_private=LOOPBACK) as talk:
            for number in range(3):
                assert await talk.good("echo", text=f"hallo {number}") == f"hallo {number}"
            with pytest.raises(ToolFailed):
                await talk.call("echo", size=20 << 20)
            assert await talk.good("echo", text="still") == "still"
    ours = [one for one in seen if "accept-encoding" not in one]
    assert len(ours) == 5
    assert all(("mcp-session-id" in one) == (era == "legacy") for one in ours)
