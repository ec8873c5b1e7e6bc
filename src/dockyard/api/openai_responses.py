"""``/v1/responses``: OpenAI's Responses dialect. What was said is kept, so that the next request can go on from it."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from typing import Annotated, Any, Literal

import msgspec
from litestar import Request, Response, delete, get, post
from litestar.params import FromPath, FromQuery, QueryParameter
from litestar.response import Stream

from dockyard.api._decode import BodyReader
from dockyard.api._endpoint import UNBUFFERED
from dockyard.api._further import Described, Routes
from dockyard.api._kept import Kept, caller, page_of
from dockyard.api._openai import gathered
from dockyard.api._responses_compact import asking, packed
from dockyard.api._responses_events import usage_of
from dockyard.api._responses_run import ResponsesEndpoint, told_again
from dockyard.api._responses_turn import given
from dockyard.api._responses_wire import INCLUDES, Given, ResponseRequest
from dockyard.api._site import Site
from dockyard.api._wire import credential
from dockyard.errors import Conflict, InvalidRequest
from dockyard.state import responses as state
from dockyard.types import Call, Chunk

Asking = Request[Any, Any, Any]
Limit = Annotated[int, QueryParameter(ge=1, le=100)]
ANSWER = "Answer a conversation that is kept; with `stream` as events"
COUNT = "How many tokens a conversation has"
SHORTEN = "Make a conversation short: the model sums it up"
HEADERS = {name.decode(): value.decode() for name, value in UNBUFFERED}


class TokensRequest(Given, kw_only=True, forbid_unknown_fields=True):
    """A conversation whose tokens to count."""


class CompactRequest(Given, kw_only=True, forbid_unknown_fields=True):
    """A conversation to make short. The last three fields have no effect here."""

    prompt_cache_key: str | None = None
    prompt_cache_retention: str | None = None
    service_tier: str | None = None


def routes(site: Site) -> Routes:
    """What the dialect answers."""
    path = "/v1/responses"
    described = {
        path: Described(body=ResponseRequest, summary=ANSWER, tag="OpenAI"),
        f"{path}/input_tokens": Described(body=TokensRequest, summary=COUNT, tag="OpenAI"),
        f"{path}/compact": Described(body=CompactRequest, summary=SHORTEN, tag="OpenAI"),
    }
    handlers = [*_reading(site), *_changing(site), *_counting(site)]
    return Routes(handlers=handlers, hot={path: ResponsesEndpoint(site)}, described=described)


def _reading(site: Site) -> list[Any]:
    tagged: dict[str, Any] = {"guards": [site.require("infer")], "tags": ["OpenAI"]}

    @get("/v1/responses/{response_id:str}", summary="A response that is kept; with `stream` its events", **tagged)
    async def retrieve(
        request: Asking,
        response_id: FromPath[str],
        stream: FromQuery[bool] = False,
        starting_after: FromQuery[int | None] = None,
        include_obfuscation: FromQuery[bool | None] = None,
    ) -> Response[Any]:
        check_include(request)
        if include_obfuscation:
            raise InvalidRequest("what is told again is not padded", param="include_obfuscation")
        if starting_after is not None and not stream:
            raise InvalidRequest("'starting_after' goes with 'stream'", param="starting_after")
        tables, who = await caller(site, request)
        found, job = await _kept_or_running(tables, response_id, who.name)
        if not stream:
            return Response(found.body if job is None else job.now())
        if job is None and found.status in ("queued", "in_progress"):
            raise Conflict(f"response {response_id!r} is under way in another process", hint="ask without `stream`")
        after = -1 if starting_after is None else starting_after
        events = _after(told_again(found), after) if job is None else job.follow(after)
        return Stream(events, media_type="text/event-stream; charset=utf-8", headers=HEADERS)

    @get("/v1/responses/{response_id:str}/input_items", summary="What a response was given", **tagged)
    async def input_items(
        request: Asking,
        response_id: FromPath[str],
        limit: Limit = 20,
        order: FromQuery[Literal["asc", "desc"]] = "desc",
        after: FromQuery[str | None] = None,
    ) -> dict[str, Any]:
        check_include(request)
        tables, who = await caller(site, request)
        chain = await tables.responses.chain(response_id, who.name)
        items = [item for one in chain[:-1] for item in (*one.input, *one.body["output"])] + chain[-1].input
        return _listed(items if order == "asc" else items[::-1], limit, after)

    return [retrieve, input_items]


async def _kept_or_running(tables: Kept, response_id: str, owner: str) -> tuple[state.Kept, Any]:
    """What is kept of a response, and the job that works on it here, if one does."""
    found = await tables.responses.get(response_id, owner)
    job = tables.running.get(response_id)
    if job is None and found.status in ("queued", "in_progress"):  # it may have ended while the row was read
        found = await tables.responses.get(response_id, owner)
    return found, job


def _changing(site: Site) -> list[Any]:
    tagged: dict[str, Any] = {"guards": [site.require("infer")], "tags": ["OpenAI"], "status_code": 200}

    @delete("/v1/responses/{response_id:str}", summary="Forget a response", **tagged)
    async def remove(request: Asking, response_id: FromPath[str]) -> dict[str, Any]:
        tables, who = await caller(site, request)
        await tables.responses.get(response_id, who.name)
        if (job := tables.running.get(response_id)) is not None:
            await job.cancel()
        await tables.responses.delete(response_id, who.name)
        return {"id": response_id, "object": "response", "deleted": True}

    @post("/v1/responses/{response_id:str}/cancel", summary="End a background response", **tagged)
    async def cancel(request: Asking, response_id: FromPath[str]) -> dict[str, Any]:
        tables, who = await caller(site, request)
        found, job = await _kept_or_running(tables, response_id, who.name)
        if not found.body.get("background"):
            raise InvalidRequest("only background responses can be cancelled", param="response_id")
        if job is not None:
            ended: dict[str, Any] = await job.cancel()
            return ended
        if found.status in ("queued", "in_progress"):
            raise Conflict(f"response {response_id!r} is under way in another process")
        return found.body

    return [remove, cancel]


def _counting(site: Site) -> list[Any]:
    tagged: dict[str, Any] = {"guards": [site.require("infer")], "tags": ["OpenAI"], "status_code": 200}
    tokens, compact = BodyReader(TokensRequest), BodyReader(CompactRequest)
    limit = site.settings.max_body

    @post("/v1/responses/input_tokens", summary=COUNT, **tagged)
    async def input_tokens(request: Asking) -> dict[str, Any]:
        asked, unknown = tokens.read(await request.body())
        tables, who = await caller(site, request)
        call = await given(tables, asked, unknown, who.name, limit, "tokenize")
        batches = await _run(site, request, call)
        found = [chunk.result for batch in batches for chunk in batch if chunk.result is not None]
        count = len(found[0].tokens) if found else call.usage.prompt_tokens
        return {"object": "response.input_tokens", "input_tokens": count}

    @post("/v1/responses/compact", summary=SHORTEN, **tagged)
    async def shorten(request: Asking) -> dict[str, Any]:
        asked, unknown = compact.read(await request.body())
        tables, who = await caller(site, request)
        call = await given(tables, msgspec.structs.replace(asked, instructions=None), unknown, who.name, limit, "chat")
        turns = asking(call.request.messages or (), asked.instructions)
        call.request = msgspec.structs.replace(call.request, messages=turns)
        text = "".join(gathered(await _run(site, request, call), 1)[0].texts)
        number = call.request.id.removeprefix("resp_")
        item = {"id": f"cmp_{number}", "type": "compaction", "encrypted_content": packed(text)}
        return {
            "id": call.request.id,
            "object": "response.compaction",
            "created_at": int(time.time()),
            "output": [item],
            "usage": usage_of(call.usage),
        }

    return [input_tokens, shorten]


def check_include(request: Asking) -> None:
    """All that there is to include is told anyway; names that do not exist are refused."""
    for name in ("include", "include[]"):
        for value in request.query_params.getall(name, []):
            if value not in INCLUDES:
                raise InvalidRequest(f"there is no {value!r:.80} to include", param="include")


async def _run(site: Site, request: Asking, call: Call) -> list[list[Chunk]]:
    assert site.gateway is not None
    call.credential = credential(dict(request.scope["headers"]))
    async with await site.gateway.run(call) as reply:
        return [batch async for batch in reply.chunks]


def _listed(items: list[dict[str, Any]], limit: int, after: str | None) -> dict[str, Any]:
    """A page of a list that is at hand."""
    if after is not None:
        place = next((place for place, item in enumerate(items) if item["id"] == after), None)
        if place is None:
            raise InvalidRequest(f"the listing has no {after!r:.80} to go on after", param="after")
        items = items[place + 1 :]
    return page_of(items[:limit], more=len(items) > limit)


async def _after(events: list[bytes], number: int) -> AsyncIterator[bytes]:
    yield b"".join(events[number + 1 :])
