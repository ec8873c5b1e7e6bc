"""Ollama's API at its own paths, ``/api/chat`` and the rest, so that its clients need no more than this address.

Text and vectors go the hot way and need the scope "infer"; ``_ollama_models`` says what there is, ``_ollama_store``
changes it and needs "manage".
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any, cast

import msgspec
from litestar.types import HTTPScope, Receive, Send

from dockyard.api import _ollama_wire as wire
from dockyard.api import _openai
from dockyard.api._chat_endpoint import ChatEndpoint
from dockyard.api._decode import BodyReader
from dockyard.api._endpoint import Asked, Endpoint, send_failure
from dockyard.api._further import Described, Routes
from dockyard.api._ollama_answer import EmbedAsked, TextAsked, nanoseconds, now
from dockyard.api._ollama_errors import STYLE, failed
from dockyard.api._ollama_models import handlers as reading
from dockyard.api._ollama_store import handlers as writing
from dockyard.api._site import Site
from dockyard.api._wire import Headers, MethodNotAllowed, credential, read_body, send_bytes
from dockyard.errors import DockyardError, InvalidRequest, UnsupportedParameter
from dockyard.gateway import identify
from dockyard.types import Call, Kind, Request

NDJSON = "application/x-ndjson"


class Idle(msgspec.Struct, frozen=True):
    """A request that generates nothing: the model is to be loaded, or with ``keep_alive`` 0 to be unloaded."""

    call: Call
    answer: dict[str, Any]


class Hot:
    """An ASGI callable for one path; requests that only load or unload a model are answered here."""

    def __init__(self, site: Site, read: Callable[[bytes], Asked | Idle]) -> None:
        assert site.gateway is not None
        self._site = site
        self._gateway = site.gateway
        self._read = read

    async def __call__(self, scope: HTTPScope, headers: Headers, receive: Receive, send: Send) -> None:
        task, site = asyncio.current_task(), self._site
        assert task is not None
        try:
            if scope["method"] != "POST":
                raise MethodNotAllowed(f"{scope['path']} takes POST")
            body = await read_body(receive, headers, site.settings.max_body, site.watchdog, task)
            found = self._read(body)
            if isinstance(found, Idle):
                await self._load(found, headers, send)
                return
        except DockyardError as error:
            await send_failure(send, error, STYLE)
            return
        if found.calls[0].request.messages:
            endpoint: Endpoint = ChatEndpoint(site, _Read(found), STYLE)
        else:
            endpoint = Endpoint(self._gateway, _Read(found), site.watchdog, STYLE)
        await endpoint(scope, headers, _again(body, receive), send)

    async def _load(self, idle: Idle, headers: Headers, send: Send) -> None:
        call, fleet = idle.call, self._site.fleet
        call.credential = credential(headers)
        await identify.step(self._gateway.parts)(call)
        assert call.principal is not None
        if call.keep_alive == 0 and not await self._is_loaded(call.model):
            reason = "unload"
        else:
            kind: Kind = call.request.kind
            who = call.principal
            manages = "manage" in who.scopes
            lease = await fleet.lease(call.model, kind, key=who.name, keep_alive=call.keep_alive, unpin=manages)
            lease.release()
            reason = "unload" if call.keep_alive == 0 else "load"
        taken = nanoseconds(time.monotonic() - call.received)
        answer = {**idle.answer, "created_at": now(), "total_duration": taken, "load_duration": taken}
        if "embeddings" not in answer and "embedding" not in answer:
            answer |= {"done": True, "done_reason": reason}
        await send_bytes(send, 200, msgspec.json.encode(answer))

    async def _is_loaded(self, name: str) -> bool:
        rows = self._site.fleet.models()
        if any(name in (row.reference, row.digest) for row in rows):
            return True
        digest = (await asyncio.to_thread(self._site.store.resolve, name)).digest
        return any(row.digest == digest for row in rows)


class _Read:
    """A body that has been understood already."""

    def __init__(self, asked: Asked) -> None:
        self._asked = asked

    def read(self, body: bytes) -> Asked:  # noqa: ARG002 - it was read to see whether it loads
        return self._asked


def _again(body: bytes, receive: Receive) -> Receive:
    """A ``receive`` that gives the body once more, and then what else comes."""
    given = False

    async def wrapped() -> Any:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return cast("Receive", wrapped)


def routes(site: Site) -> Routes:
    """Found by ``_further``."""
    hot = {
        "/api/chat": Hot(site, read_chat),
        "/api/generate": Hot(site, read_generate),
        "/api/embed": Hot(site, read_embed),
        "/api/embeddings": Hot(site, read_embeddings),
    }
    shapes = (
        ("/api/chat", wire.ChatRequest, "Ollama's chat"),
        ("/api/generate", wire.GenerateRequest, "Ollama's text for a prompt"),
        ("/api/embed", wire.EmbedRequest, "Ollama's vectors of texts"),
        ("/api/embeddings", wire.EmbeddingsRequest, "Ollama's vector of one text"),
    )
    others = ("tags", "show", "ps", "version", "pull", "push", "create", "copy", "delete", "blobs")
    return Routes(
        handlers=[*reading(site), *writing(site)],
        hot=dict(hot),
        described={
            path: Described(body=body, summary=summary, tag="Ollama", stream=NDJSON) for path, body, summary in shapes
        },
        failures={**dict.fromkeys(hot, failed), **{f"/api/{name}": failed for name in others}},
    )


def read_chat(body: bytes) -> Asked | Idle:
    """A body of ``/api/chat``. Raises InvalidRequest."""
    asked, _ = _CHAT.read(body)
    if not asked.messages:
        call = _call(asked, Request(id=_openai.new_id("ollama-"), kind="chat"))
        return Idle(call, {"model": asked.model, "message": {"role": "assistant", "content": ""}})
    extra = wire.extra(asked)
    if asked.tools:
        extra["tools"] = wire.tools(asked.tools)
    request = Request(
        id=_openai.new_id("ollama-"),
        kind="chat",
        messages=wire.messages(asked.messages),
        sampling=wire.sampling(asked.options, asked),
        extra=extra,
    )
    ignored = wire.ignored(asked.options, asked)
    return TextAsked(_call(asked, request), asked.model, chat=True, ignored=ignored)


def read_generate(body: bytes) -> Asked | Idle:
    """A body of ``/api/generate``. A raw prompt, and one with a suffix, go to the model without a chat template."""
    asked, _ = _GENERATE.read(body)
    wire.refuse_images(asked)
    if not asked.prompt and not asked.suffix and not asked.images:
        call = _call(asked, Request(id=_openai.new_id("ollama-"), kind="chat"))
        return Idle(call, {"model": asked.model, "response": ""})
    complete = bool(asked.raw) or bool(asked.suffix)
    if asked.template and not complete:
        raise UnsupportedParameter(
            "'template' can't be given with a request: models bring their own",
            param="template",
            hint="send the finished text with `raw`, or create a model with another template",
        )
    if complete and (asked.images or asked.system):
        name = "images" if asked.images else "system"
        raise InvalidRequest(f"{name!r} needs a chat template, which a raw prompt goes without", param=name)
    request = Request(
        id=_openai.new_id("ollama-"),
        kind="complete" if complete else "chat",
        messages=None if complete else wire.prompted(asked),
        prompt=asked.prompt or "" if complete else None,
        suffix=asked.suffix or None,
        sampling=wire.sampling(asked.options, asked),
        extra=wire.extra(asked),
    )
    ignored = wire.ignored(asked.options, asked)
    return TextAsked(_call(asked, request), asked.model, chat=False, ignored=ignored)


def read_embed(body: bytes) -> Asked | Idle:
    """A body of ``/api/embed``."""
    asked, _ = _EMBED.read(body)
    if not asked.input:
        call = _call(asked, Request(id=_openai.new_id("ollama-"), kind="embed"))
        return Idle(call, {"model": asked.model, "embeddings": []})
    inputs = tuple(_openai.texts(asked.input, "input", _MOST_INPUTS))
    request = Request(id=_openai.new_id("ollama-"), kind="embed", inputs=inputs)
    ignored = [*wire.ignored(asked.options), *(["truncate"] if asked.truncate else [])]
    return EmbedAsked(_call(asked, request), asked.model, dimensions=asked.dimensions, ignored=ignored)


def read_embeddings(body: bytes) -> Asked | Idle:
    """A body of ``/api/embeddings``."""
    asked, _ = _EMBEDDINGS.read(body)
    if not asked.prompt:
        call = _call(asked, Request(id=_openai.new_id("ollama-"), kind="embed"))
        return Idle(call, {"model": asked.model, "embedding": []})
    request = Request(id=_openai.new_id("ollama-"), kind="embed", inputs=(asked.prompt,))
    return EmbedAsked(_call(asked, request), asked.model, single=True, ignored=wire.ignored(asked.options))


def _call(asked: wire.Asking, request: Request) -> Call:
    _openai.check_model(asked.model)
    return Call(
        request=request,
        model=wire.plain(asked.model),
        dialect="ollama",
        stream=bool(getattr(asked, "stream", False) in (True, None) and isinstance(asked, wire.Generating)),
        keep_alive=wire.seconds(asked.keep_alive),
        context=asked.options.num_ctx if asked.options is not None else None,
    )


_MOST_INPUTS = 2048
_CHAT = BodyReader(wire.ChatRequest)
_GENERATE = BodyReader(wire.GenerateRequest)
_EMBED = BodyReader(wire.EmbedRequest)
_EMBEDDINGS = BodyReader(wire.EmbeddingsRequest)
