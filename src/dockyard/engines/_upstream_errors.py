"""What another server complains of, as one of our errors, with nothing in it that looks like a key."""

from __future__ import annotations

import re
from email.utils import parsedate_to_datetime
from time import time

import msgspec

from dockyard.errors import (
    ContextOverflow,
    DockyardError,
    InvalidRequest,
    ModelNotFound,
    Overloaded,
    RateLimited,
    UpstreamError,
)
from dockyard.types import Json

MOST_TEXT = 500
RETRIED = frozenset({408, 429, 500, 502, 503, 504, 529})
"""Statuses after which the same request may well work."""

_KEYS = re.compile(
    r"(?i)\b(?:bearer\s+\S+|(?:sk|pk|rk|dy|key|gsk|xai|AIza|AKIA|ASIA|ya29)[-_.]?[A-Za-z0-9*_.-]{6,}"
    r"|(?:api[-_]?key|token|authorization)\s*[=:]\s*\S+)"
)


class Refusal:
    """Makes errors of one server's replies. ``who`` names it to the caller; ``secret`` is cut out wherever it shows."""

    def __init__(self, who: str, secret: str = "") -> None:
        self.who = who
        self._secret = secret

    def __repr__(self) -> str:
        return f"Refusal({self.who!r})"

    def redacted(self, text: str) -> str:
        if self._secret:
            text = text.replace(self._secret, "***")
        return _KEYS.sub("***", text)[:MOST_TEXT]

    def of(self, status: int, found: Json, retry_after: str | None = None) -> DockyardError:
        """The error for a reply's status and body, or for the ``error`` of an event in a stream."""
        inner = found.get("error", found) if isinstance(found, dict) else found
        fields = inner if isinstance(inner, dict) else {}
        code, param = fields.get("code"), fields.get("param")
        if isinstance(code, int) and 400 <= code < 600:
            status = code
        said = self.redacted(str(fields.get("message") or fields.get("detail") or inner or "it gave no reason"))
        text = f"{self.who}: {said}"
        where = param if isinstance(param, str) else None
        wait = seconds(retry_after)
        if code in ("context_length_exceeded", "exceed_context_size_error") or "maximum context length" in said:
            return ContextOverflow(text, param=where, hint="shorten the prompt")
        if status == 404:
            return ModelNotFound(text, param="model")
        if status in (401, 403):
            return UpstreamError(
                f"{self.who} does not accept the key that it is called with ({status})",
                hint="check `api_key_env` or `api_key_file` of this upstream",
            )
        if status == 429:
            return RateLimited(text, retry_after=wait or 1.0)
        if status in (503, 529):
            return Overloaded(text, retry_after=wait or 1.0)
        if status in (400, 413, 422):
            return InvalidRequest(text, param=where)
        passing = None if status in RETRIED else f"it answered with status {status}"
        return UpstreamError(text, retry_after=wait, hint=passing)

    def of_reply(self, status: int, body: bytes, retry_after: str | None = None) -> DockyardError:
        try:
            found = msgspec.json.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError):
            found = body[:MOST_TEXT].decode("utf-8", "replace").strip() or f"status {status}"
        return self.of(status, found, retry_after)


def seconds(header: str | None) -> float | None:
    """A ``Retry-After``: seconds or a date."""
    if header is None:
        return None
    try:
        return max(0.0, float(header))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(header).timestamp() - time())
    except (TypeError, ValueError):
        return None
