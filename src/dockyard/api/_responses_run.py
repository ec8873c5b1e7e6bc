"""Answering a Responses request: at once, as a stream, or in the background; and keeping what was answered."""

from __future__ import annotations

import asyncio
import logging
import zlib
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Any

import msgspec
from litestar.types import HTTPScope, Receive, Send

from dockyard.api._decode import BodyReader
from dockyard.api._endpoint import Answering, Asked, Exchange, send_failure
from dockyard.api._kept import Kept, kept
from dockyard.api._library import library
from dockyard.api._prompt_wire import PromptCall
from dockyard.api._responses_events import replayed
from dockyard.api._responses_turn import Turn, turn
from dockyard.api._responses_wire import ResponseRequest
from dockyard.api._site import Site
from dockyard.api._wire import Headers, MethodNotAllowed, credential, read_body, send_bytes
from dockyard.errors import ContextOverflow, DockyardError
from dockyard.gateway import Gateway
from dockyard.state.responses import ENDED_EARLY
from dockyard.state.responses import Kept as KeptResponse
from dockyard.types import Call, Chunk, Message, Request, Usage

log = logging.getLogger(__name__)

DAY = 24 * 3600.0


class ResponsesEndpoint(Answering):
    """``POST /v1/responses``."""

    def __init__(self, site: Site) -> None:
        assert site.gateway is not None
        super().__init__(site.gateway, site.watchdog)
        self._site = site
        self._reader = BodyReader(ResponseRequest, passing=True)

    async def __call__(self, scope: HTTPScope, headers: Headers, receive: Receive, send: Send) -> None:
        task = asyncio.current_task()
        assert task is not None
        try:
            if scope["method"] != "POST":
                raise MethodNotAllowed(f"{scope['path']} takes POST")
            body = await read_body(receive, headers, self._limit, self._watchdog, task)
            asked, unknown = self._reader.read(body)
            principal = await self._site.principal(headers, "infer")
            opened = await kept(self._site).opened()
            if not asked.model and asked.prompt is not None:
                asked = msgspec.structs.replace(asked, model=await self._model(asked.prompt))
            route = self._site.stack.routes.get(asked.model)
            profile = route.tools if route is not None else ""
            found = await turn(opened, asked, unknown, principal, self._limit, profile)
            if found.calls[0].knowledge:
                from dockyard.api._responses_search import check

                await check(self._site, principal, found.calls[0])
        except DockyardError as error:
            await send_failure(send, error, self._style)
            return
        call, client = found.calls[0], scope["client"]
        call.credential, call.client = credential(headers), client[0] if client else ""
        call.no_store = b"no-store" in headers.get(b"cache-control", b"")
        await self._answer(found, b"x-dockyard-explain" in headers, receive, send, task)

    async def _model(self, wanted: PromptCall) -> str:
        """The model that a prompt names."""
        used = wanted.use()
        found = await asyncio.to_thread(library(self._site).find, used.name, used.version)
        return found.prompt.model

    def _exchange(self, asked: Asked, explain: bool, send: Send, task: asyncio.Task[Any]) -> Exchange:
        assert isinstance(asked, Turn)
        return _Exchange(asked, self._site, explain, send, task)


class _Exchange(Exchange):
    """One response on its way out."""

    def __init__(self, asked: Turn, site: Site, explain: bool, send: Send, task: asyncio.Task[Any]) -> None:
        super().__init__(asked, explain, send, task, site.watchdog)
        self._turn = asked
        self._site = site

    async def whole(self, gateway: Gateway) -> None:
        turn = self._turn
        if turn.background:
            job = await begin(self._site, gateway, turn)
            response = turn.writer.response("queued")
            await send_bytes(self._send, 200, msgspec.json.encode(response), self._headers())
            job.go()
            return
        async with aclosing(events(self._site, gateway, turn)) as pieces:
            async for _ in pieces:
                pass
        _, response = turn.writer.end(turn.calls[0].usage)
        await keep(self._site, turn, response)
        more = self._extra()
        body = response if more is None else {**response, "dockyard": more}
        await send_bytes(self._send, 200, msgspec.json.encode(body), self._headers())

    async def stream(self, gateway: Gateway) -> None:
        turn = self._turn
        if turn.background:
            job = await begin(self._site, gateway, turn)
            job.go()
            await self._start()
            async for data in job.follow(-1):
                await self._write(data)
            await self._write(b"", more=False)
            return
        writer = turn.writer
        turn.opening = writer.begin()  # numbered before the events that its sending waits for
        try:
            async with aclosing(events(self._site, gateway, turn)) as pieces:
                async for data in pieces:
                    first = b"" if self._begun else await self._start()
                    await self._write(first + data)
        except asyncio.CancelledError:
            if self._begun:
                kept(self._site).spawn(keep(self._site, turn, writer.cancel(turn.calls[0].usage)))
            raise
        first = b"" if self._begun else await self._start()
        last, response = writer.end(turn.calls[0].usage)
        await keep(self._site, turn, response)
        await self._write(first + last, more=False)

    async def fail(self, error: DockyardError) -> None:
        turn = self._turn
        if not self._begun or turn.background:
            await super().fail(error)
            return
        events, response = turn.writer.fail(error, turn.calls[0].usage)
        try:
            await keep(self._site, turn, response)
        except Exception:  # that it could not be kept may be why it failed
            log.exception("response %s could not be kept", turn.writer.id)
        await self._write(events, more=False)


async def events(site: Site, gateway: Gateway, turn: Turn) -> AsyncGenerator[bytes, None]:
    """The answer as events, as far as they are not its beginning or end; with tools, all rounds of it."""
    if turn.hosted is None:
        told = False
        async with aclosing(chunks(gateway, turn)) as batches:
            async for batch in batches:
                searched = b"" if told else _searched(turn)
                told = True
                yield searched + turn.writer.add(batch)
        return
    from dockyard.api._responses_mcp import answered
    from dockyard.api._toolbox import toolbox

    async def ask(request: Request) -> AsyncGenerator[list[Chunk], None]:
        turn.calls[0] = _again(turn.calls[0], request)
        async with aclosing(chunks(gateway, turn)) as batches:
            async for batch in batches:
                yield batch

    def spent(usage: Usage) -> None:
        turn.calls[0].usage = usage

    writer: Any = turn.writer
    rounds = answered(toolbox(site), site.settings, turn.hosted, writer, turn.calls[0].request, ask, spent)
    async with aclosing(rounds) as pieces:
        async for data in pieces:
            yield data


def _searched(turn: Turn) -> bytes:
    """What was searched in vector stores for this answer, if anything was."""
    call = turn.calls[0]
    if call.grounded is None or not call.knowledge:
        return b""
    from dockyard.api._responses_search import item_of

    item = item_of(call, turn.writer.name("fs"), results=turn.results)
    return turn.writer.announce(item, "in_progress", "searching", "completed")


def _again(call: Call, request: Request) -> Call:
    """A call of the same caller with another request."""
    return msgspec.structs.replace(call, request=request, steps=[], cleanups=[], taps=[], usage=Usage(), finish=None)


async def chunks(gateway: Gateway, turn: Turn) -> AsyncGenerator[list[Chunk], None]:
    """The answer. What is too long for the model loses its oldest turns, if the request allows it."""
    while True:
        call, begun = turn.calls[0], False
        asked = call.request  # the pipeline may put a prompt around it
        try:
            async with await gateway.run(call) as reply:
                async for batch in reply.chunks:
                    begun = True
                    yield batch
            return
        except ContextOverflow:
            shorter = shortened(asked.messages or ())
            if begun or not turn.truncate or shorter is None:
                raise
        request = msgspec.structs.replace(asked, messages=shorter)
        turn.calls[0] = _again(call, request)


def shortened(messages: tuple[Message, ...]) -> tuple[Message, ...] | None:
    """Without the oldest quarter, cut where a user speaks; None if only the last of them is left."""
    first = next((place for place, one in enumerate(messages) if one.role != "system"), len(messages))
    least = first + max(1, (len(messages) - first) // 4)
    for place in range(least, len(messages)):
        if messages[place].role == "user":
            return (*messages[:first], *messages[place:])
    return None


async def keep(site: Site, turn: Turn, response: dict[str, Any]) -> None:
    """Store a response that has ended, as far as its request wants it."""
    tables = kept(site)
    await _converse(tables, turn, response)
    if turn.store:
        await tables.responses.add(_row(site, turn, response))
        await _prolong(site, tables, turn)


def _row(site: Site, turn: Turn, response: dict[str, Any]) -> KeptResponse:
    row = KeptResponse(id=turn.writer.id, key=turn.key, body=response, input=turn.items, previous=turn.previous)
    days = site.settings.responses_days
    return msgspec.structs.replace(row, expires=row.created + days * DAY) if days else row


async def _converse(tables: Kept, turn: Turn, response: dict[str, Any]) -> None:
    if turn.conversation is not None and response["status"] in ("completed", "incomplete"):
        said = {item["id"] for item in turn.before}
        new = [item for item in turn.items if item["id"] not in said]
        await tables.conversations.append(turn.conversation, turn.key, [*new, *response["output"]])


async def _prolong(site: Site, tables: Kept, turn: Turn) -> None:
    """What a response builds on is kept as long as it is."""
    if turn.chain and (expires := _row(site, turn, {}).expires):
        await tables.responses.prolong(turn.chain, expires)


class Job:
    """A background response. Its events are held until it has ended; ``follow`` may be called any number of times."""

    def __init__(self, site: Site, gateway: Gateway, turn: Turn) -> None:
        self.turn = turn
        self.events: list[bytes] = []
        self.ended = False
        self.response: dict[str, Any] = turn.writer.response("queued")
        self._site = site
        self._gateway = gateway
        self._cancelled = False
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def go(self) -> None:
        self._task = kept(self._site).spawn(self._run())

    async def cancel(self) -> dict[str, Any]:
        """End it now; the response as it is then."""
        if self._task is not None and not self.ended:
            self._cancelled = True
            self._task.cancel()
            await asyncio.wait({self._task})
        return self.response

    def now(self) -> dict[str, Any]:
        """The response as far as it has come."""
        if self.ended or not self.events:
            return self.response
        return self.turn.writer.response(self.response["status"])

    async def follow(self, after: int) -> AsyncIterator[bytes]:
        """Its events after the one of this number, as they come."""
        place = after + 1
        while True:
            changed = self._changed
            if place < len(self.events):
                found = self.events[place:]
                place += len(found)
                yield b"".join(found)
            elif self.ended:
                return
            else:
                await changed.wait()

    def _tell(self, data: bytes) -> None:
        self.events += split(data)
        self._changed.set()
        self._changed = asyncio.Event()

    async def _run(self) -> None:
        writer, tables = self.turn.writer, kept(self._site)
        try:
            last, self.response = await self._answered()
        except asyncio.CancelledError:
            usage = self.turn.calls[0].usage
            if self._cancelled:
                last, self.response = b"", writer.cancel(usage)
            else:
                last, self.response = writer.fail(DockyardError(ENDED_EARLY), usage)
        except DockyardError as error:
            last, self.response = writer.fail(error, self.turn.calls[0].usage)
        except Exception:
            log.exception("response %s failed", writer.id)
            failed = DockyardError("the server failed on this response", hint="its log says why")
            last, self.response = writer.fail(failed, self.turn.calls[0].usage)
        self._tell(last)
        try:
            await tables.responses.change(writer.id, self.response, zlib.compress(b"".join(self.events)))
        finally:
            self.ended = True
            self._changed.set()
            tables.running.pop(writer.id, None)

    async def _answered(self) -> tuple[bytes, dict[str, Any]]:
        turn, writer, tables = self.turn, self.turn.writer, kept(self._site)
        self._tell(writer.begin(queued=True))
        async with aclosing(events(self._site, self._gateway, turn)) as pieces:
            async for data in pieces:
                if self.response["status"] == "queued":
                    self.response = writer.response("in_progress")
                    await tables.responses.change(writer.id, self.response)
                if data:
                    self._tell(data)
        last, response = writer.end(turn.calls[0].usage)
        await _converse(tables, turn, response)
        return last, response


async def begin(site: Site, gateway: Gateway, turn: Turn) -> Job:
    """A background response that is kept as queued; ``go`` starts it."""
    tables = kept(site)
    job = Job(site, gateway, turn)
    await tables.responses.add(_row(site, turn, job.response))
    await _prolong(site, tables, turn)
    tables.running[turn.writer.id] = job
    return job


def split(data: bytes) -> list[bytes]:
    """Events one by one; their place is their number."""
    return [event + b"\n\n" for event in data.split(b"\n\n") if event]


def told_again(found: KeptResponse) -> list[bytes]:
    """The events of a response that has ended."""
    return split(zlib.decompress(found.events) if found.events else replayed(found.body))
