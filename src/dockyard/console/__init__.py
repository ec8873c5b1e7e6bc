"""The console: a page at ``/`` that uses the same HTTP API as anybody, so it can do nothing that a key does not allow.

Plain files, no build step, nothing from elsewhere. The page itself needs no key: it is the same for everyone and holds
no data; what it then asks for does. Its policy lets it load only its own files and talk only to its own server.
"""

from __future__ import annotations

import hashlib
from importlib import resources
from typing import Any

from litestar import Request, Response, get, head
from litestar.handlers import HTTPRouteHandler
from litestar.status_codes import HTTP_304_NOT_MODIFIED

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cache-control": "no-cache",
}
KINDS = {
    "html": "text/html",
    "css": "text/css",
    "js": "text/javascript",
    "svg": "image/svg+xml",
}


def handlers() -> list[HTTPRouteHandler]:
    """Routes of the page and its files, for ``create_app(extra=…)``."""
    files = {
        "/" if each.name == "index.html" else f"/console/{each.name}": (
            each.read_bytes(),
            KINDS[each.name.split(".")[1]],
        )
        for each in resources.files("dockyard.console").joinpath("page").iterdir()
        if each.is_file()
    }

    @get(sorted(files), include_in_schema=False, sync_to_thread=False)
    def page(request: Request[Any, Any, Any]) -> Response[bytes]:
        content, kind = files[request.scope["path"]]
        tag = f'"{hashlib.sha256(content).hexdigest()[:16]}"'
        headers = {**HEADERS, "etag": tag}
        if request.headers.get("if-none-match") == tag:
            return Response(b"", status_code=HTTP_304_NOT_MODIFIED, headers=headers)
        return Response(content, headers=headers, media_type=kind)

    @head("/", include_in_schema=False, sync_to_thread=False)
    def there() -> None:
        """Ollama's command line asks this before anything else."""

    return [page, there]


def _path(name: str) -> str:
    return "/" if name == "index.html" else f"/console/{name}"
