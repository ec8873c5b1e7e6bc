"""Providers with an API of their own (Anthropic, Google, Azure, Bedrock …), through ``any-llm``.

It answers in OpenAI's shape whoever answers. LiteLLM does the same job; its releases on the package index were twice
replaced by ones that stole credentials (1.82.7 and 1.82.8 in March 2026), and this is the one place that holds keys.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import msgspec

from dockyard.engines import _upstream_wire as wire
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
        if upstream.provider not in any_llm.AnyLLM.get_supported_providers():
            names = ", ".join(sorted(any_llm.AnyLLM.get_supported_providers()))
            raise SettingsError(
                f"{refusal.who}: there is no provider {upstream.provider!r}", param="upstreams", hint=names
            )
        try:
            self._provider: Any = any_llm.AnyLLM.create(
                upstream.provider,
                api_key=key or None,
                api_base=upstream.base_url or None,
                unified_exceptions=True,
                **({} if upstream.provider == "bedrock" else {"max_retries": 0}),
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
            events = await self._provider.acompletion(**fields, timeout=self._timeout)
            async with aclosing(events):
                async for event in events:
                    if chunks := answer.event(msgspec.convert(event.model_dump(), wire.Event)):
                        yield chunks
            yield [answer.finish()]
        except DockyardError:
            raise
        except Exception as error:  # noqa: BLE001 - each provider's own library raises its own
            raise self._error(error) from None  # theirs hold the request, headers and all

    async def close(self) -> None:
        client = getattr(self._provider, "client", None)
        close = getattr(client, "close", None)
        if close is not None and hasattr((found := close()), "__await__"):
            await found

    async def _embed(self, request: Request, fields: dict[str, Any]) -> Chunk:
        texts = [text for text in request.inputs if isinstance(text, str)]
        if len(texts) != len(request.inputs):
            raise UnsupportedParameter(f"{self._refusal.who} embeds text, not token ids", param="input")
        more = {name: value for name, value in fields.items() if name in ACCEPTS}
        found = await self._provider.aembedding(model=fields["model"], inputs=texts, **more)
        chunk = wire.whole(request, found.model_dump_json().encode(), self._refusal.who)
        assert isinstance(chunk.result, Result)
        return chunk

    def _error(self, error: Exception) -> DockyardError:
        """By what the library made of the provider's status; without one it is a broken connection or our own bug."""
        status = getattr(error, "status_code", None)
        name = type(error).__name__
        if name == "ContextLengthExceededError":
            return ContextOverflow(f"{self._refusal.who}: {self._refusal.redacted(str(error))}")
        if name == "UnsupportedParameterError":
            return UnsupportedParameter(f"{self._refusal.who}: {self._refusal.redacted(str(error))}")
        if isinstance(status, int) and status >= 400:
            wait = getattr(error, "retry_after", None)
            details = {"message": getattr(error, "message", str(error)), "code": getattr(error, "code", None)}
            return self._refusal.of(status, details, wait)
        return UpstreamError(f"{self._refusal.who} can't be reached or broke off: {name}: "
                             f"{self._refusal.redacted(str(error))}")  # fmt: skip
