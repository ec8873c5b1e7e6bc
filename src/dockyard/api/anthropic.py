"""Anthropic's messages: ``/v1/messages``, ``/v1/messages/count_tokens``, and ``/anthropic/v1/…`` with the models too.

Clients of Anthropic work unchanged with ``base_url`` set to this server, or to its ``/anthropic``.
"""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime
from typing import Annotated, Any

import msgspec
from litestar import Request as HttpRequest
from litestar import Response, get
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath, FromQuery, QueryParameter

from dockyard.api import _openai
from dockyard.api._anthropic_answer import CountAsked, MessageAsked, event
from dockyard.api._anthropic_wire import Conversation, MessagesRequest, extra, messages, sampling
from dockyard.api._chat_endpoint import ChatEndpoint
from dockyard.api._decode import BodyReader
from dockyard.api._endpoint import Endpoint, Style
from dockyard.api._failures import failure
from dockyard.api._further import Described, Routes
from dockyard.api._site import Site
from dockyard.api._wire import Hot
from dockyard.api.openai_models import ECHO, short
from dockyard.artifact.media import is_model
from dockyard.errors import DockyardError, InvalidRequest, ModelNotFound
from dockyard.types import Call, Json, Request

log = logging.getLogger(__name__)

PREFIXES = ("", "/anthropic", "/engines")
OVERLOADED = 529
_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    504: "timeout_error",
    OVERLOADED: "overloaded_error",
}


def routes(site: Site) -> Routes:
    """Found by ``_further``."""
    assert site.gateway is not None
    hot: dict[str, Hot] = {}
    described: dict[str, Described] = {}
    for prefix in PREFIXES:
        path = f"{prefix}/v1/messages"
        hot[path] = ChatEndpoint(site, Messages(), STYLE)
        hot[f"{path}/count_tokens"] = Endpoint(site.gateway, Counting(), site.watchdog, STYLE)
        described[path] = Described(body=MessagesRequest, summary="Anthropic's messages", tag="Anthropic")
        described[f"{path}/count_tokens"] = Described(
            body=CountRequest, summary="How many tokens a prompt has", tag="Anthropic"
        )
    return Routes(
        handlers=list(_models(site)),
        hot=hot,
        described=described,
        failures={"/anthropic": failed, "/v1/messages": failed, "/engines/v1/messages": failed},
    )


class CountRequest(Conversation, kw_only=True, forbid_unknown_fields=True):
    """The body of ``/v1/messages/count_tokens``."""


class Messages:
    """Reads requests for a message."""

    def __init__(self) -> None:
        self._reader = BodyReader(MessagesRequest)

    def read(self, body: bytes) -> MessageAsked:
        asked, _ = self._reader.read(body)
        _openai.check_model(asked.model)
        request = Request(
            id=_openai.new_id("msg_"),
            kind="chat",
            messages=messages(asked),
            sampling=sampling(asked),
            extra=extra(asked),
        )
        call = Call(request=request, model=asked.model, dialect="anthropic", stream=bool(asked.stream))
        thinking = asked.thinking
        wanted = thinking is not None and thinking.type != "disabled"
        return MessageAsked(call, thinking=wanted, hidden=thinking is not None and thinking.display == "omitted")


class Counting:
    """Reads requests for the length of a prompt."""

    def __init__(self) -> None:
        self._reader = BodyReader(CountRequest)

    def read(self, body: bytes) -> CountAsked:
        asked, _ = self._reader.read(body)
        _openai.check_model(asked.model)
        found = {name: value for name, value in extra(asked).items() if name == "tools"}
        request = Request(id=_openai.new_id("count_"), kind="tokenize", messages=messages(asked), extra=found)
        return CountAsked(Call(request=request, model=asked.model, dialect="anthropic"))


def status_of(error: DockyardError) -> int:
    """Anthropic's own status for a server that can't take more now, else ours."""
    return OVERLOADED if error.status == 503 else error.status


def error_fields(error: DockyardError) -> dict[str, Json]:
    """Anthropic's error object."""
    status = status_of(error)
    kind = _TYPES.get(status) or ("invalid_request_error" if status < 500 else "api_error")
    message = f"{error.message} ({error.hint})" if error.hint else error.message
    return {"type": "error", "error": {"type": kind, "message": message}}


STYLE = Style(
    error=lambda error: msgspec.json.encode(error_fields(error)),
    event=lambda error: event("error", error=error_fields(error)["error"]),
    status=status_of,
)


def failed(request: HttpRequest[Any, Any, Any], error: Exception) -> Response[bytes]:
    """A failure of the framework under Anthropic's paths, in Anthropic's shape."""
    told, headers = failure(request, error)
    return Response(STYLE.error(told), status_code=status_of(told), headers=headers, media_type="application/json")


def _models(site: Site) -> list[HTTPRouteHandler]:
    guards = [site.require("infer")]

    @get("/anthropic/v1/models", guards=guards, tags=["Anthropic"], summary="Models, in Anthropic's shape")
    async def models(
        limit: Annotated[int, QueryParameter(ge=1, le=1000)] = 1000,
        after_id: FromQuery[str | None] = None,
        before_id: FromQuery[str | None] = None,
    ) -> dict[str, Any]:
        return _page(await _known(site), limit, after_id, before_id)

    @get("/anthropic/v1/models/{name:path}", guards=guards, tags=["Anthropic"], summary="One, in Anthropic's shape")
    async def model(name: FromPath[str]) -> dict[str, Any]:
        name = name.removeprefix("/")
        found = {one["id"]: one for one in await _known(site)}
        if name in found:
            return found[name]
        digest = (await asyncio.to_thread(site.store.resolve, name)).digest
        for entry in await asyncio.to_thread(site.store.entries):
            if entry.descriptor.digest == digest and entry.reference is not None:
                return _info(name, entry.created)
        raise ModelNotFound(f"{name!r} is not the name of a model", param="model")

    return [models, model]


async def _known(site: Site) -> list[dict[str, Any]]:
    entries = await asyncio.to_thread(site.store.entries)
    stored = [entry for entry in entries if is_model(entry.descriptor.artifact_type)]
    named = [_info(short(site, entry.reference), entry.created) for entry in stored if entry.reference is not None]
    return [*(_info(name, 0.0) for name in site.stack.aliases()), *named, _info(ECHO, 0.0)]


def _info(name: str, created: float) -> dict[str, Any]:
    when = datetime.fromtimestamp(created, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {"type": "model", "id": name, "display_name": name, "created_at": when, "lifecycle": "active"}


def _page(found: list[dict[str, Any]], limit: int, after: str | None, before: str | None) -> dict[str, Any]:
    ids = [one["id"] for one in found]
    for name, given in (("after_id", after), ("before_id", before)):
        if given is not None and given not in ids:
            raise InvalidRequest(f"{name}: there is no model {given!r:.80}", param=name)
    if before is not None:
        rest = found[: ids.index(before)]
        page = rest[-limit:]
    else:
        rest = found[ids.index(after) + 1 :] if after is not None else found
        page = rest[:limit]
    return {
        "data": page,
        "has_more": len(page) < len(rest),
        "first_id": page[0]["id"] if page else None,
        "last_id": page[-1]["id"] if page else None,
    }
