"""An HTTP API as a tool server: each operation of its OpenAPI 3 document (a URL, or a file) is a tool.

Headers of the entry, with its secrets, go with every call, and only to the API's own address: that of the document, or
the one that the entry configures as ``base_url``. What may be reached is what remote servers may reach.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

import msgspec

from dockyard.addresses import Guard
from dockyard.errors import DockyardError, InvalidRequest, SourceUnreachable
from dockyard.settings import Settings
from dockyard.tools.model import Outcome, Server, ToolFailed
from dockyard.tools.runners import _given, _operations
from dockyard.types import Json

DOCUMENT_BYTES = 8 << 20
TEXT_BYTES = 1 << 20
_WEB = ("https://", "http://")


class OpenApi:
    name = "openapi"

    def __init__(self, settings: Settings) -> None:
        self._guard = Guard(settings.tools_private)

    def refuses(self, server: Server) -> str | None:
        if not server.url:
            return f"server {server.name!r} has no url, the address or path of its OpenAPI document"
        return None

    @contextlib.asynccontextmanager
    async def connect(self, server: Server, secrets: dict[str, str]) -> AsyncIterator[Any]:
        """Raises Forbidden, SourceUnreachable, InvalidRequest for a document that is none."""
        from dockyard.tools.runners import _http
        from dockyard.tools.runners._memory import serving

        reason = self.refuses(server)
        if reason is not None:
            raise InvalidRequest(reason, param="url")
        headers = _given.headers(server, secrets)
        async with (
            _http.client(self._guard, headers={}, seconds=30, stream_seconds=30) as reading,
            _http.client(
                self._guard, headers=headers, seconds=server.call_seconds, stream_seconds=server.call_seconds
            ) as client,
        ):
            document = await _document(server, reading, self._guard)
            offered = {each.name: each for each in _operations.operations(document)}
            base = _base(server, document, bool(headers))
            await _http.check(self._guard, base)

            async def call(name: str, arguments: dict[str, Json]) -> Outcome:
                if name not in offered:
                    raise InvalidRequest(f"there is no tool {name!r}")
                return await _called(client, base, offered[name], arguments)

            async with serving(server.name, [each.definition for each in offered.values()], call) as transport:
                yield transport


async def _document(server: Server, client: Any, guard: Guard) -> Json:
    import httpx2

    from dockyard.tools.runners import _http

    if server.url.startswith(_WEB):
        await _http.check(guard, server.url)
        try:
            answer = await client.get(server.url)
            data = answer.content
        except (httpx2.HTTPError, httpx2.StreamError) as error:
            raise SourceUnreachable(f"server {server.name!r}: its document can't be read: {error}") from error
        if answer.status_code != 200:
            raise SourceUnreachable(f"server {server.name!r}: its document answers with status {answer.status_code}")
    else:
        try:
            data = await asyncio.to_thread(_read, Path(server.url))
        except OSError as error:
            raise InvalidRequest(f"server {server.name!r}: its document can't be read: {error}", param="url") from error
    try:
        return msgspec.json.decode(data) if data.lstrip()[:1] == b"{" else msgspec.yaml.decode(data)
    except (msgspec.DecodeError, RecursionError) as error:
        raise InvalidRequest(
            f"server {server.name!r}: its document is no JSON or YAML: {error}", param="url"
        ) from error


def _read(path: Path) -> bytes:
    with path.expanduser().open("rb") as file:
        data = file.read(DOCUMENT_BYTES + 1)
    if len(data) > DOCUMENT_BYTES:
        raise OSError(f"it has more than {DOCUMENT_BYTES} bytes")
    return data


def _base(server: Server, document: dict[str, Json], carries: bool) -> str:
    """Where calls go. A document does not get to say that credentials go elsewhere than to where it came from."""
    configured = server.config.get("base_url")
    if isinstance(configured, str) and configured.startswith(_WEB):
        return configured
    servers = document.get("servers") or [{"url": "/"}]
    try:
        told = str(servers[0]["url"])
        for name, each in (servers[0].get("variables") or {}).items():
            told = told.replace("{" + name + "}", str(each["default"]))
    except (KeyError, TypeError, IndexError, AttributeError) as error:
        raise InvalidRequest(f"server {server.name!r}: its document's `servers` is malformed", param="url") from error
    web = server.url.startswith(_WEB)
    base = urljoin(server.url, told) if web else told
    hint = "set base_url in the entry's config"
    if not base.startswith(_WEB):
        raise InvalidRequest(f"server {server.name!r}: its document does not say where the API is", hint=hint)
    if web and carries and urlsplit(base)[:2] != urlsplit(server.url)[:2]:
        raise InvalidRequest(
            f"server {server.name!r}: its document sends calls, and so its credentials, to {base}", hint=hint
        )
    return base


async def _called(client: Any, base: str, operation: _operations.Operation, arguments: dict[str, Json]) -> Outcome:
    import httpx2

    from dockyard.tools.runners._memory import text

    try:
        asked = _operations.asked(operation, arguments)
    except DockyardError as error:
        return text(error.message, failed=True)
    given: dict[str, Any] = {}
    if asked.content == "application/x-www-form-urlencoded":
        given["data"] = asked.body
    elif asked.content and isinstance(asked.body, str) and "json" not in asked.content:
        given["content"] = asked.body.encode()
    elif asked.content:
        given["content"] = msgspec.json.encode(asked.body)
    headers = {**asked.headers, **({"Content-Type": asked.content} if asked.content else {})}
    try:
        answer = await client.request(
            asked.method, base.rstrip("/") + asked.path, params=asked.query, headers=headers, **given
        )
    except (httpx2.HTTPError, httpx2.StreamError) as error:
        raise ToolFailed(f"{operation.name}: {error or type(error).__name__}") from error
    return _outcome(answer)


def _outcome(answer: Any) -> Outcome:
    from dockyard.tools.runners._memory import text

    kind = answer.headers.get("content-type", "").partition(";")[0]
    failed = not 200 <= answer.status_code < 300
    structured = None
    if kind == "application/json" or kind.endswith("+json"):
        with contextlib.suppress(msgspec.DecodeError, RecursionError):
            structured = msgspec.json.decode(answer.content)
    binary = kind.partition("/")[0] in ("image", "audio", "video") or kind == "application/octet-stream"
    words = f"{len(answer.content)} bytes of {kind}" if binary else answer.text[:TEXT_BYTES]
    if failed:
        words = f"status {answer.status_code}: {words}"
    return text(words, structured=structured if isinstance(structured, dict) and not failed else None, failed=failed)


PLUGIN = OpenApi
