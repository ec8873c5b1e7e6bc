"""Failures as Ollama tells them: one sentence under ``error``."""

from __future__ import annotations

import logging
from typing import Any

import msgspec
from litestar import Request, Response
from litestar.exceptions import HTTPException

from dockyard.api._endpoint import Style
from dockyard.api._failures import from_http
from dockyard.api._wire import error_headers
from dockyard.errors import DockyardError

log = logging.getLogger(__name__)


def body(error: DockyardError) -> bytes:
    message = f"{error.message} ({error.hint})" if error.hint else error.message
    return msgspec.json.encode({"error": message, "code": error.code})


STYLE = Style(error=body, event=lambda error: body(error) + b"\n", content=b"application/x-ndjson")


def failed(request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    """A failure of the framework under Ollama's paths."""
    if isinstance(error, HTTPException):
        told = from_http(error, request.url.path)
    elif isinstance(error, DockyardError):
        told = error
    else:
        log.error("%s %s failed", request.method, request.url.path, exc_info=error)
        told = DockyardError("the server failed on this request", hint="its log says why")
    headers = {name.decode(): value.decode() for name, value in error_headers(told)}
    return Response(body(told), status_code=told.status, headers=headers, media_type="application/json")
