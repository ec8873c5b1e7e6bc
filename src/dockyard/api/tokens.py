"""Text to token ids and back, and what a chat template makes of messages: ``/tokenize``, ``/detokenize``,
``/apply-template``, each also under ``/v1``.

They speak as vLLM does (``prompt`` or ``messages``; ``count``, ``max_model_len``, ``tokens``) and as llama-server does
(``content``; ``with_pieces``): one answer holds the fields of both. Without ``model``, the only loaded model is meant.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from types import TracebackType
from typing import Annotated, Any, cast

import msgspec
from msgspec import Meta

from dockyard.api import _openai
from dockyard.api._decode import BodyReader
from dockyard.api._endpoint import Asked, Endpoint
from dockyard.api._further import Described, Routes
from dockyard.api._site import Site
from dockyard.api._wire import Hot
from dockyard.errors import InvalidRequest
from dockyard.gateway import Gateway, Reply
from dockyard.types import Call, Chunk, Json, Message, Request, Usage

MOST_TOKENS = 1 << 20
MOST_SPELT = 4096
"""Different tokens that one request may have spelt: each is a request to the engine."""

_encode = msgspec.json.encode

Name = Annotated[str, Meta(min_length=1, max_length=512, description="A model; may be left out where one is loaded.")]
Token = Annotated[int, Meta(ge=0, lt=1 << 31)]
Messages = Annotated[list[dict[str, Json]], Meta(min_length=1)]


class TokenizeRequest(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """The body of ``/tokenize``: just one of ``prompt``, ``content`` (the same) and ``messages``."""

    model: Name | None = None
    prompt: str | None = None
    content: str | None = None
    messages: Messages | None = None
    tools: list[dict[str, Json]] | None = None
    chat_template_kwargs: dict[str, Json] | None = None
    add_special_tokens: Annotated[bool, Meta(description="Also the tokens that begin or end a text.")] | None = None
    add_special: Annotated[bool, Meta(description="llama-server's word for it.")] | None = None
    return_token_strs: Annotated[bool, Meta(description="Also each token's text, in `token_strs`.")] | None = None
    with_pieces: Annotated[bool, Meta(description="Tokens as objects of `id` and `piece`.")] | None = None


class DetokenizeRequest(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """The body of ``/detokenize``."""

    tokens: Annotated[list[Token], Meta(max_length=MOST_TOKENS)]
    model: Name | None = None


class TemplateRequest(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """The body of ``/apply-template``."""

    messages: Messages
    model: Name | None = None
    tools: list[dict[str, Json]] | None = None
    chat_template_kwargs: dict[str, Json] | None = None


def routes(site: Site) -> Routes:
    """Found by ``_further``."""
    assert site.gateway is not None
    gateway = cast("Gateway", Spelling(site.gateway))
    hot: dict[str, Hot] = {}
    described: dict[str, Described] = {}
    endpoints: tuple[tuple[str, type, type, str], ...] = (
        ("/tokenize", Tokenize, TokenizeRequest, "The token ids of a text or of a conversation"),
        ("/detokenize", Detokenize, DetokenizeRequest, "The text of token ids"),
        ("/apply-template", Template, TemplateRequest, "The text that a model sees of a conversation"),
    )
    for path, dialect, body, summary in endpoints:
        for prefix in ("", "/v1"):
            hot[prefix + path] = Endpoint(gateway, dialect(site), site.watchdog)
            described[prefix + path] = Described(body=body, summary=summary, tag="Tokens")
    return Routes(hot=hot, described=described)


class _Dialect:
    """What the three have in common: which model is meant, and how wide its window is."""

    def __init__(self, site: Site) -> None:
        self._fleet = site.fleet

    def model(self, given: str | None) -> str:
        if given is not None:
            return given
        ready = [one.reference for one in self._fleet.models() if one.state == "ready"]
        if len(ready) == 1:
            return str(ready[0])
        raise InvalidRequest(
            f"'model' is required: {len(ready) or 'no'} models are loaded",
            param="model",
            hint=f"one of: {', '.join(ready)}" if ready else "`GET /v1/models` lists them",
        )

    def window(self, call: Call) -> int | None:
        """The context that the model was loaded with, in tokens."""
        rows = self._fleet.models()
        return next((one.context for one in rows if call.reference in (one.reference, one.digest)), None)


class Tokenize(_Dialect):
    """Reads requests for token ids."""

    def __init__(self, site: Site) -> None:
        super().__init__(site)
        self._reader = BodyReader(TokenizeRequest)

    def read(self, body: bytes) -> Asked:
        asked, _ = self._reader.read(body)
        given = [name for name in ("prompt", "content", "messages") if getattr(asked, name) is not None]
        if len(given) != 1:
            said = " and ".join(given) or "none of them"
            raise InvalidRequest(
                f"send just one of 'prompt', 'content' and 'messages', not {said}", param=(given or ["prompt"])[-1]
            )
        extra = _extra(asked)
        if asked.messages is None and (asked.tools or asked.chat_template_kwargs):
            name = "tools" if asked.tools else "chat_template_kwargs"
            raise InvalidRequest(f"{name!r} goes with 'messages'", param=name)
        if None not in (asked.add_special_tokens, asked.add_special):
            raise InvalidRequest("send 'add_special_tokens' or 'add_special', not both", param="add_special")
        special = asked.add_special_tokens if asked.add_special_tokens is not None else asked.add_special
        if special is not None:
            extra["add_special_tokens"] = special
        request = Request(
            id=_openai.new_id("tokens-"),
            kind="tokenize",
            prompt=asked.prompt if asked.prompt is not None else asked.content,
            messages=_messages(asked.messages) if asked.messages is not None else None,
            extra=extra,
        )
        pieces, strings = bool(asked.with_pieces), bool(asked.return_token_strs)
        kind = SpeltCall if pieces or strings else Call
        call = kind(request=request, model=self.model(asked.model), dialect="tokens")

        def write(batches: list[list[Chunk]]) -> dict[str, Any]:
            tokens = [token for chunk in _flat(batches) if chunk.result for token in chunk.result.tokens]
            known = list(dict.fromkeys(tokens))
            texts = {known[chunk.index - 1]: chunk.text for chunk in _flat(batches) if chunk.index}
            told = [{"id": token, "piece": texts[token]} for token in tokens] if pieces else tokens
            found: dict[str, Any] = {"count": len(tokens), "max_model_len": self.window(call), "tokens": told}
            return {**found, "token_strs": [texts[token] for token in tokens]} if strings else found

        return _Asked(call, write)


class Detokenize(_Dialect):
    """Reads requests for the text of token ids."""

    def __init__(self, site: Site) -> None:
        super().__init__(site)
        self._reader = BodyReader(DetokenizeRequest)

    def read(self, body: bytes) -> Asked:
        asked, _ = self._reader.read(body)
        request = _detokenize(asked.tokens)
        call = Call(request=request, model=self.model(asked.model), dialect="tokens")

        def write(batches: list[list[Chunk]]) -> dict[str, Any]:
            text = "".join(chunk.text for chunk in _flat(batches))
            return {"prompt": text, "content": text}

        return _Asked(call, write)


class Template(_Dialect):
    """Reads requests for what a chat template makes."""

    def __init__(self, site: Site) -> None:
        super().__init__(site)
        self._reader = BodyReader(TemplateRequest)

    def read(self, body: bytes) -> Asked:
        asked, _ = self._reader.read(body)
        request = Request(
            id=_openai.new_id("template-"), kind="template", messages=_messages(asked.messages), extra=_extra(asked)
        )
        call = Call(request=request, model=self.model(asked.model), dialect="tokens")
        return _Asked(call, lambda batches: {"prompt": "".join(chunk.text for chunk in _flat(batches))})


class _Asked:
    """A request of these, and the writing of its answer."""

    def __init__(self, call: Call, write: Callable[[list[list[Chunk]]], dict[str, Any]]) -> None:
        self.calls = [call]
        self._write = write

    def begin(self) -> bytes:
        return b""

    def events(self, batch: list[Chunk]) -> bytes:  # noqa: ARG002 - these are never streamed
        return b""

    def end(self, usage: Usage, extra: dict[str, Any] | None) -> bytes:  # noqa: ARG002
        return b""

    def whole(self, batches: list[list[Chunk]], usage: Usage, extra: dict[str, Any] | None) -> bytes:  # noqa: ARG002
        answer = self._write(batches)
        return _encode(answer if extra is None else {**answer, "dockyard": extra})


class SpeltCall(Call, kw_only=True):
    """A call for token ids that are to be read by people too."""


class Spelling:
    """A gateway where an answer of token ids goes on with the text of each, if its caller wants to read them."""

    def __init__(self, gateway: Gateway) -> None:
        self.parts = gateway.parts
        self._gateway = gateway

    async def run(self, call: Call) -> Reply | _Spelt:
        reply = await self._gateway.run(call)
        return _Spelt(self._gateway, call, reply) if isinstance(call, SpeltCall) else reply


class _Spelt:
    """The ids' own chunks, then a chunk for each different token, numbered from 1 in the order they appear."""

    def __init__(self, gateway: Gateway, call: Call, reply: Reply) -> None:
        self._reply = reply
        self.chunks = self._all(gateway, call)

    async def __aenter__(self) -> _Spelt:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.chunks.aclose()
        await self._reply.aclose(error)

    async def _all(self, gateway: Gateway, call: Call) -> AsyncGenerator[list[Chunk], None]:
        tokens: dict[int, None] = {}
        async for batch in self._reply.chunks:
            for chunk in batch:
                tokens.update(dict.fromkeys(chunk.result.tokens if chunk.result else ()))
            yield batch
        await self._reply.aclose()
        if len(tokens) > MOST_SPELT:
            raise InvalidRequest(f"{len(tokens)} different tokens are too many to spell; {MOST_SPELT} is the most")
        for number, token in enumerate(tokens, 1):
            one = Call(request=_detokenize([token]), model=call.model, dialect=call.dialect)
            one.credential, one.client = call.credential, call.client
            async with await gateway.run(one) as reply:
                text = "".join([chunk.text async for batch in reply.chunks for chunk in batch])
            yield [Chunk(text, number)]


def _detokenize(tokens: list[int]) -> Request:
    return Request(id=_openai.new_id("text-"), kind="detokenize", prompt=list(tokens))


def _extra(asked: TokenizeRequest | TemplateRequest) -> dict[str, Json]:
    return _openai.passed(asked, ("tools", "chat_template_kwargs"), {})


def _flat(batches: list[list[Chunk]]) -> list[Chunk]:
    return [chunk for batch in batches for chunk in batch]


def _messages(given: list[dict[str, Json]]) -> tuple[Message, ...]:
    found = []
    for number, one in enumerate(given):
        try:
            found.append(msgspec.convert(one, Message))
        except msgspec.ValidationError as error:
            raise InvalidRequest(f"messages[{number}]: {error}", param=f"messages[{number}]") from None
    return tuple(found)
