"""Failures as Ollama tells them: one sentence under ``error``."""

from __future__ import annotations

import logging
from typing import Any

import msgspec
from litestar import Request, Response

from dockyard.api._endpoint import Style
from dockyard.api._failures import failure
from dockyard.errors import DockyardError

log = logging.getLogger(__name__)


def body(error: DockyardError) -> bytes:
    message = f"{error.message} ({error.hint})" if error.hint else error.message
    return msgspec.json.encode({"error": message, "code": error.code})


STYLE = Style(error=body, event=lambda error: body(error) + b"\n", content=b"application/x-ndjson")


def failed(request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    """A failure of the framework under Ollama's paths."""
    told, headers = failure(request, error)
    return Response(body(told), status_code=told.status, headers=headers, media_type="application/json")
