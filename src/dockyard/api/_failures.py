"""The framework's own failures as ours."""

from __future__ import annotations

import logging
from typing import Any

from litestar import Request
from litestar.exceptions import HTTPException
from msgspec import ValidationError

from dockyard.api._decode import explained
from dockyard.api._wire import MethodNotAllowed, error_headers
from dockyard.errors import DockyardError, Forbidden, InvalidRequest, NotFound, PayloadTooLarge, Unauthorized

log = logging.getLogger(__name__)

_KINDS: dict[int, type[DockyardError]] = {401: Unauthorized, 403: Forbidden, 405: MethodNotAllowed}


def failure(request: Request[Any, Any, Any], error: Exception) -> tuple[DockyardError, dict[str, str]]:
    """Any failure of a framework route as ours, and its headers. What is neither ours nor the framework's is logged."""
    if isinstance(error, DockyardError):
        told = error
    elif isinstance(error, HTTPException):
        told = from_http(error, request.url.path)
    else:
        log.error("%s %s failed", request.method, request.url.path, exc_info=error)
        told = DockyardError("the server failed on this request", hint="its log says why")
    return told, {name.decode(): value.decode() for name, value in error_headers(told)}


def from_http(error: HTTPException, path: str) -> DockyardError:
    """What an exception of the framework means; its status stays."""
    if error.status_code == 404:
        return NotFound(f"there is nothing at {path[:200]}", hint="/docs lists what there is")
    if error.status_code == 405:
        refused = MethodNotAllowed(f"{path[:200]} does not take this method", hint="/docs lists what it takes")
        refused.allow = (error.headers or {}).get("allow", refused.allow)
        return refused
    if error.status_code == 413:
        return PayloadTooLarge("the body is too large", hint="`max_body` sets the limit")
    if isinstance(error.__cause__, ValidationError):
        return explained(error.__cause__, root="$.data")
    fields = [one for one in (error.extra if isinstance(error.extra, list) else []) if isinstance(one, dict)]
    if fields:
        text = "; ".join(f"{one.get('key', 'body')}: {one.get('message')}" for one in fields)
        return InvalidRequest(text, param=str(fields[0].get("key") or "") or None)
    kind = _KINDS.get(error.status_code, InvalidRequest if error.status_code < 500 else DockyardError)
    return kind(error.detail or "the request is not valid")
