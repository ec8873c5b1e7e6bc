"""The console: a page at ``/`` that uses the same HTTP API as anybody, so it can do nothing that a key does not allow.

Plain files, no build step, nothing from elsewhere. The page itself needs no key: it is the same for everyone and holds
no data; what it then asks for does. Its policy lets it load only its own files and talk only to its own server.
"""

from __future__ import annotations

import hashlib
from importlib import resources

from litestar import Request, Response, get
from litestar.handlers import HTTPRouteHandler
from litestar.status_codes import HTTP_304_NOT_MODIFIED

from dockyard.errors import NotFound

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
    ".html": "text/html",
    ".css": "text/css",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
}


def handlers() -> list[HTTPRouteHandler]:
    """Routes of the page and its files, for ``create_app(extra=…)``."""
    files = {
        each.name: each.read_bytes()
        for each in resources.files("dockyard.console").joinpath("page").iterdir()
        if each.is_file()
    }

    def answer(name: str, seen: str | None) -> Response[bytes]:
        if name not in files:
            raise NotFound(f"the console has no file {name!r}")
        tag = f'"{hashlib.sha256(files[name]).hexdigest()[:16]}"'
        headers = {**HEADERS, "etag": tag}
        if seen == tag:
            return Response(b"", status_code=HTTP_304_NOT_MODIFIED, headers=headers)
        return Response(files[name], headers=headers, media_type=KINDS["." + name.rpartition(".")[2]])

    @get("/", include_in_schema=False, sync_to_thread=False)
    def page(request: Request[object, object, object]) -> Response[bytes]:  # type: ignore[type-var]
        return answer("index.html", request.headers.get("if-none-match"))

    @get("/console/{name:str}", include_in_schema=False, sync_to_thread=False)
    def file(request: Request[object, object, object], name: str) -> Response[bytes]:  # type: ignore[type-var]
        return answer(name, request.headers.get("if-none-match"))

    return [page, file]
