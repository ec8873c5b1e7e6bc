"""A server that speaks OpenAI's API, over HTTP: one request, streamed, cancelled by hanging up."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import msgspec

from dockyard.engines import _upstream_wire as wire
from dockyard.engines._upstream_errors import Refusal
from dockyard.errors import UpstreamError
from dockyard.settings import Upstream
from dockyard.types import Chunk, Request

if TYPE_CHECKING:
    import httpx

CONNECT_SECONDS = 10.0
MOST_REPLY = 256 << 20


class Http:
    """One server. ``timeout`` bounds each wait for its next bytes. Redirects are not followed: a key would go along."""

    def __init__(self, upstream: Upstream, key: str, refusal: Refusal) -> None:
        import httpx

        self._refusal = refusal
        self._strict = (urlsplit(upstream.base_url).hostname or "").endswith(("openai.com", ".azure.com"))
        self._client = httpx.AsyncClient(
            base_url=upstream.base_url.rstrip("/"),
            headers={"Authorization": f"Bearer {key}"} if key else {},
            timeout=httpx.Timeout(upstream.timeout, connect=min(CONNECT_SECONDS, upstream.timeout), pool=None),
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=32),
            follow_redirects=False,
        )

    async def stream(self, request: Request, model: str) -> AsyncGenerator[list[Chunk], None]:
        import httpx

        fields = wire.body(request, model, strict=self._strict)
        sent = self._client.build_request(
            "POST",
            wire.PATHS[request.kind],
            content=msgspec.json.encode(fields),
            headers={"Content-Type": "application/json"},
        )
        try:
            reply = await self._client.send(sent, stream=True)
            async with aclosing(reply):
                if reply.status_code != 200:
                    raise self._refusal.of_reply(
                        reply.status_code, await _read(reply, 1 << 20), reply.headers.get("retry-after")
                    )
                if request.kind in ("embed", "rerank"):
                    yield [wire.whole(request, await _read(reply, MOST_REPLY), self._refusal.who)]
                    return
                answer = wire.Answer(self._refusal)
                async for line in reply.aiter_lines():
                    if line.startswith("data:") and (data := line[5:].strip()):
                        if data == "[DONE]":
                            break
                        if chunks := answer.take(data):
                            yield chunks
                yield [answer.finish()]
        except httpx.TimeoutException as error:
            raise UpstreamError(f"{self._refusal.who} did not answer in time ({type(error).__name__})") from error
        except httpx.HTTPError as error:
            told = self._refusal.redacted(str(error)) or type(error).__name__
            raise UpstreamError(f"{self._refusal.who} can't be reached or hung up: {told}") from error

    async def close(self) -> None:
        await self._client.aclose()


async def _read(reply: httpx.Response, most: int) -> bytes:
    found = bytearray()
    async for part in reply.aiter_bytes():
        found += part
        if len(found) > most:
            raise UpstreamError(f"the reply is longer than {most} bytes")
    return bytes(found)
