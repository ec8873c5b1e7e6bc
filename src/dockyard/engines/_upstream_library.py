"""Providers with an API of their own (Anthropic, Google, Azure, Bedrock …), through ``any-llm``.

It answers in OpenAI's shape whoever answers. LiteLLM does the same job; its releases on the package index were twice
replaced by ones that stole credentials (1.82.7 and 1.82.8 in March 2026), and this is the one place that holds keys.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable
from contextlib import aclosing
from typing import Any, TypeVar

import msgspec

from dockyard.engines import _upstream_wire as wire
from dockyard.engines._upstream_apart import apart
from dockyard.engines._upstream_errors import Refusal
from dockyard.errors import (
    ContextOverflow,
    DockyardError,
    EngineUnavailable,
    SettingsError,
    UnsupportedParameter,
    UpstreamError,
)
from dockyard.settings import Upstream
from dockyard.types import Chunk, Request, Result

INSTALL = "pip install 'dockyard[upstream]'"
ACCEPTS = frozenset(
    {"tools", "tool_choice", "response_format", "reasoning_effort", "parallel_tool_calls", "user", "service_tier",
     "prompt_cache_key", "dimensions"}
)  # fmt: skip
"""Fields of ``Request.extra`` that mean the same for each provider."""

BLOCKING = frozenset({"bedrock", "sagemaker"})
"""Providers whose library reads the network in the event loop, whatever its methods are called."""

Found = TypeVar("Found")


class Library:
    """One provider, called with a key of its own. Retries are the caller's."""

    def __init__(self, upstream: Upstream, key: str, refusal: Refusal) -> None:
        try:
            import any_llm
        except ImportError as error:
            raise EngineUnavailable(
                f"provider {upstream.provider!r} needs the library any-llm: {error}", hint=INSTALL
            ) from error
        self._refusal = refusal
        self._timeout = upstream.timeout
        self._blocks = upstream.provider in BLOCKING
        if upstream.provider not in any_llm.AnyLLM.get_supported_providers():
            names = ", ".join(sorted(any_llm.AnyLLM.get_supported_providers()))
            raise SettingsError(
                f"{refusal.who}: there is no provider {upstream.provider!r}", param="upstreams", hint=names
            )
        try:
            kind = any_llm.AnyLLM.get_provider_class(upstream.provider)
            self._waits = {} if kind.TIMEOUT_SUPPORT == "unsupported" else {"timeout": upstream.timeout}
            self._provider: Any = any_llm.AnyLLM.create(
                upstream.provider,
                api_key=key or None,
                api_base=upstream.base_url or None,
                unified_exceptions=True,
                **({} if kind.MAX_RETRIES_SUPPORT == "unsupported" else {"max_retries": 0}),
                **_once(upstream.provider),
            )
        except ImportError as error:
            raise EngineUnavailable(
                f"{refusal.who}: {refusal.redacted(str(error))}", hint=f"pip install 'any-llm-sdk[{upstream.provider}]'"
            ) from error
        except Exception as error:
            raise SettingsError(f"{refusal.who}: {refusal.redacted(str(error))}", param="upstreams") from error

    async def stream(self, request: Request, model: str) -> AsyncGenerator[list[Chunk], None]:
        for name in request.extra:
            if name not in ACCEPTS:
                raise UnsupportedParameter(f"{self._refusal.who} is not sent {name!r}", param=name)
        fields = wire.body(request, model, strict=False)
        try:
            if request.kind == "embed":
                yield [await self._embed(request, fields)]
                return
            if request.kind != "chat":
                raise UnsupportedParameter(f"{self._refusal.who} serves chats and embeddings only", param="model")
            if refused := next((name for name in wire.BEYOND if name in fields), None):
                raise UnsupportedParameter(f"{self._refusal.who} is not sent {refused!r}", param=refused)
            answer = wire.Answer(self._refusal)
            async with aclosing(self._events(fields)) as events:
                while (event := await self._within(anext(events, None))) is not None:
                    if chunks := answer.event(msgspec.convert(event.model_dump(), wire.Event)):
                        yield chunks
            yield [answer.finish()]
        except DockyardError:
            raise
        except Exception as error:  # noqa: BLE001 - each provider's own library raises its own
            raise self._error(error) from None  # theirs hold the request, headers and all

    async def close(self) -> None:
        for name in ("client", "chat_client", "embeddings_client"):
            client = getattr(self._provider, name, None)
            client = getattr(client, "aio", client)
            close = getattr(client, "aclose", None) or getattr(client, "close", None)
            if close is not None and hasattr((found := close()), "__await__"):
                await found

    async def _events(self, fields: dict[str, Any]) -> AsyncGenerator[Any, None]:
        async def begin() -> AsyncIterator[Any]:
            found: AsyncIterator[Any] = await self._provider.acompletion(**fields, **self._waits)
            return found

        if self._blocks:
            async with aclosing(apart(begin)) as events:
                async for event in events:
                    yield event
            return
        stream = await begin()
        try:
            async for event in stream:
                yield event
        finally:
            if (close := getattr(stream, "aclose", None)) is not None:
                await close()

    async def _within(self, waited: Awaitable[Found]) -> Found:
        """Bounded by ``timeout`` here as well: not every provider's library does."""
        try:
            async with asyncio.timeout(self._timeout):
                return await waited
        except TimeoutError:
            raise UpstreamError(f"{self._refusal.who} did not answer in {self._timeout:g} s") from None

    async def _embed(self, request: Request, fields: dict[str, Any]) -> Chunk:
        texts = [text for text in request.inputs if isinstance(text, str)]
        if len(texts) != len(request.inputs):
            raise UnsupportedParameter(f"{self._refusal.who} embeds text, not token ids", param="input")
        more = {name: value for name, value in fields.items() if name in ACCEPTS}
        found = await self._within(self._provider.aembedding(model=fields["model"], inputs=texts, **more))
        chunk = wire.whole(request, found.model_dump_json().encode(), self._refusal.who)
        assert isinstance(chunk.result, Result)
        return chunk

    def _error(self, error: Exception) -> DockyardError:
        """By what the library made of the provider's status; without one it is a broken connection or our own bug."""
        status = _status(error)
        name = type(error).__name__
        if name == "ContextLengthExceededError":
            return ContextOverflow(f"{self._refusal.who}: {self._refusal.redacted(str(error))}")
        if name == "UnsupportedParameterError":
            return UnsupportedParameter(f"{self._refusal.who}: {self._refusal.redacted(str(error))}")
        if status is not None and status >= 400:
            wait = getattr(error, "retry_after", None)
            details = {"message": getattr(error, "message", str(error)), "code": getattr(error, "code", None)}
            return self._refusal.of(status, details, wait)
        return UpstreamError(f"{self._refusal.who} can't be reached or broke off: {name}: "
                             f"{self._refusal.redacted(str(error))}")  # fmt: skip


def _once(provider: str) -> dict[str, Any]:
    """How a provider's own library is told not to ask again, where ``max_retries`` is not how."""
    if provider == "azure":
        return {"retry_total": 0}
    if provider in BLOCKING:
        from botocore.config import Config

        return {"config": Config(retries={"total_max_attempts": 1})}
    return {}


def _status(error: Exception) -> int | None:
    """The provider's HTTP status; AWS's library has it in a place of its own."""
    found = getattr(error, "status_code", None)
    reply = getattr(getattr(error, "original_exception", None), "response", None)
    if found is None and isinstance(reply, dict):
        found = reply.get("ResponseMetadata", {}).get("HTTPStatusCode")
    return found if isinstance(found, int) else None
