"""A Responses request made ready: what was said before is looked up, and all of it becomes one call."""

from __future__ import annotations

import asyncio
import base64
import mimetypes
import secrets
from typing import Any

import msgspec

from dockyard.api._kept import Kept
from dockyard.api._responses_events import Writer
from dockyard.api._responses_input import messages, named
from dockyard.api._responses_wire import (
    LOGPROBS,
    Given,
    Item,
    Own,
    ResponseRequest,
    check,
    check_given,
    extra,
    hosted,
    hosted_choice,
    name_of,
    sampling,
    searches,
    told,
)
from dockyard.errors import InvalidRequest, NotFound, PayloadTooLarge
from dockyard.types import Call, Chunk, Json, Kind, Principal, Request, Usage


class Turn(msgspec.Struct, kw_only=True):
    """One request: the call, the ``items`` of its own input, those that came ``before``, and who writes its answer.

    ``chain`` holds the ids of the responses it builds on; ``conversation`` the one it goes on with;
    ``ended`` is the response once it was told whole.
    """

    key: str
    calls: list[Call]
    items: list[Item]
    before: list[Item]
    chain: list[str]
    writer: Writer
    conversation: str | None = None
    previous: str | None = None
    store: bool = True
    background: bool = False
    truncate: bool = False
    hosted: Any = None
    """What it wants of tools that the server runs, an ``_responses_mcp_wire.Hosted``."""
    results: bool = False
    """Whether the response shows what a search of vector stores found."""
    opening: bytes = b""
    ended: dict[str, Any] = {}

    def begin(self) -> bytes:
        """What goes before a streamed answer's chunks; a background response tells its own beginning."""
        return b"" if self.background else self.opening or self.writer.begin()

    def events(self, batch: list[Chunk]) -> bytes:
        """These chunks as events."""
        return self.writer.add(batch)

    def end(self, usage: Usage, extra: dict[str, Any] | None) -> bytes:  # noqa: ARG002 - events have no room for it
        """What ends a streamed answer."""
        return self.writer.end(usage)[0]

    def whole(self, batches: list[list[Chunk]], usage: Usage, extra: dict[str, Any] | None) -> bytes:
        """The body of a whole answer."""
        for batch in batches:
            self.writer.add(batch)
        _, response = self.writer.end(usage)
        self.ended = response
        return msgspec.json.encode(response if extra is None else {**response, "dockyard": extra})


def new_id() -> str:
    return f"resp_{secrets.token_hex(16)}"


async def turn(
    kept: Kept, asked: ResponseRequest, unknown: dict[str, Json], principal: Principal, limit: int, profile: str = ""
) -> Turn:
    """Raises InvalidRequest and NotFound naming the field. ``limit`` bounds what files may add, in bytes; ``profile``
    is that of the route's tools, which count where the request names no servers."""
    check(asked)
    id, key = new_id(), principal.name
    padded = asked.stream_options is not None and bool(asked.stream_options.include_obfuscation)
    about = told(asked)
    logprobs = LOGPROBS in (asked.include or ()) or asked.top_logprobs is not None
    wanted = _hosted(asked, principal, profile)
    kind = Writer if wanted is None else _tool_writer()
    writer = kind(id, about, logprobs=logprobs, summary=bool(about["reasoning"]["summary"]), padded=padded)
    items, before, chain = await _heard(kept, asked, writer, key)
    more = extra(asked, unknown, hosting=wanted is not None)
    call = await _call(kept, asked, more, [*before, *items], key, limit, kind="chat", id=id)
    if wanted is not None:
        wanted.heard, wanted.new = [*before, *items], items
    call.request = msgspec.structs.replace(call.request, sampling=sampling(asked))
    call.stream = bool(asked.stream)
    results = False
    if found := searches(asked):
        from dockyard.api import _responses_search

        _responses_search.ground(call, _responses_search.read(found))
        results = _responses_search.RESULTS in (asked.include or ())
    return Turn(
        key=key,
        calls=[call],
        items=items,
        before=before,
        chain=chain,
        writer=writer,
        conversation=None if asked.conversation is None else name_of(asked.conversation),
        previous=asked.previous_response_id,
        store=asked.store is not False,
        background=bool(asked.background),
        truncate=asked.truncation == "auto",
        hosted=wanted,
        results=results,
    )


def _hosted(asked: ResponseRequest, principal: Principal, profile: str) -> Any:
    """What the request, or else its route, wants of tools that the server runs; None: nothing."""
    given = hosted(asked)
    if not given and not profile:
        return None
    from dockyard.api._responses_mcp_wire import Hosted, read

    own = asked.dockyard or Own()
    return Hosted(
        tools=read(given),
        principal=principal,
        choice=hosted_choice(asked.tool_choice),
        profile=own.profile if given else profile,
        whole=not given,
        most=asked.max_tool_calls,
        code=own.code,
    )


def _tool_writer() -> type[Writer]:
    from dockyard.api._responses_mcp_events import ToolWriter

    return ToolWriter


async def given(kept: Kept, asked: Given, unknown: dict[str, Json], key: str, limit: int, kind: Kind) -> Call:
    """A call of another kind for a request that holds a conversation only."""
    check_given(asked)
    id = new_id()
    items, before, _ = await _heard(kept, asked, Writer(id, {}), key)
    return await _call(kept, asked, extra(asked, unknown), [*before, *items], key, limit, kind=kind, id=id)


async def _heard(kept: Kept, asked: Given, writer: Writer, key: str) -> tuple[list[Item], list[Item], list[str]]:
    """The items of this request, those before them, and the responses these are from."""
    before: list[Item] = []
    chain: list[str] = []
    if asked.previous_response_id is not None:
        for one in await kept.responses.chain(asked.previous_response_id, key):
            if one.status in ("queued", "in_progress"):
                raise InvalidRequest(f"response {one.id!r} is not complete yet", param="previous_response_id")
            before += [*one.input, *one.body["output"]]
            chain.append(one.id)
    elif asked.conversation is not None:
        before = await kept.conversations.items(name_of(asked.conversation), key)
    items = named(asked.input, writer.name)
    said = {item["id"] for item in before}
    for number, item in enumerate(items):
        if item["id"] in said and item["type"] != "item_reference":
            raise InvalidRequest(
                f"input[{number}]: {item['id']!r} is an item of this conversation already", param=f"input[{number}].id"
            )
    return [await _referred(kept, item, before, key) for item in items], before, chain


async def _referred(kept: Kept, item: Item, before: list[Item], key: str) -> Item:
    """The item that a reference means: one of this conversation, or of any response that is kept."""
    if item["type"] != "item_reference":
        return item
    wanted = item["id"]
    found = [one for one in before if one["id"] == wanted]
    if not found:
        try:
            response = await kept.responses.get(f"resp_{wanted.rpartition('_')[2][:32]}", key)
            found = [one for one in (*response.input, *response.body["output"]) if one["id"] == wanted]
        except NotFound:
            pass
    if not found:
        raise NotFound(f"there is no item {wanted!r:.80}", param="input")
    return found[0]


async def _call(
    kept: Kept, asked: Given, more: dict[str, Json], items: list[Item], key: str, limit: int, *, kind: Kind, id: str
) -> Call:
    filled = await _filled(kept, items, key, limit)
    request = Request(id=id, kind=kind, messages=messages(filled, asked.instructions), extra=more)
    own = asked.prompt if isinstance(asked, ResponseRequest) else None
    if not request.messages and own is None:
        raise InvalidRequest("there is nothing to answer", param="input")
    prompt = None if own is None else own.use()
    return Call(request=request, model=asked.model, dialect="openai-responses", prompt=prompt)


async def _filled(kept: Kept, items: list[Item], key: str, limit: int) -> list[Item]:
    """The items with the contents of the files that they name."""
    done: list[Item] = []
    room = limit
    for item in items:
        field = "output" if item["type"] == "function_call_output" else "content"
        parts = item.get(field)
        if isinstance(parts, list) and any(isinstance(part, dict) and part.get("file_id") for part in parts):
            filled = []
            for part in parts:
                if part.get("file_id"):
                    part, room = await _read(kept, part, key, room)
                filled.append(part)
            item = {**item, field: filled}
        done.append(item)
    return done


async def _read(kept: Kept, part: Item, key: str, room: int) -> tuple[Item, int]:
    file = await kept.files.get(part["file_id"], key)
    if file.bytes > room:
        raise PayloadTooLarge(f"file {file.id!r} is too large for a prompt", param="input", hint="`max_body` limits it")
    data = await asyncio.to_thread(kept.files.path(file.id).read_bytes)
    kind = mimetypes.guess_type(file.name)[0] or "application/octet-stream"
    bare = {name: value for name, value in part.items() if name != "file_id"}
    if part["type"] == "input_file" and (kind.startswith("text/") or kind == "application/json"):
        return {"type": "input_text", "text": f"{file.name}:\n{data.decode('utf-8', 'replace')}"}, room - file.bytes
    url = f"data:{kind};base64,{base64.b64encode(data).decode()}"
    if part["type"] == "input_image":
        return {**bare, "image_url": url}, room - file.bytes
    return {**bare, "file_data": url, "filename": file.name}, room - file.bytes
