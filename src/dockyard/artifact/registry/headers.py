"""Parsers of the few HTTP headers that the distribution protocol rests on; no I/O.

Each takes the header's text as a peer sent it and never raises on nonsense: it returns None or leaves the bad part
out, and the caller says what that means for its request.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import msgspec

_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_TOKEN68 = re.compile(r"[A-Za-z0-9\-._~+/]+=*(?=\s*(?:,|$))")
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"')
_SPACES = re.compile(r"[\s,]*")
_EQUALS = re.compile(r"\s*=\s*")
_CONTENT_RANGE = re.compile(r"bytes (\d{1,19})-(\d{1,19})/(\d{1,19}|\*)", re.ASCII)
_RANGE = re.compile(r"bytes=(\d{0,19})-(\d{0,19})", re.ASCII)
_UPLOAD_RANGE = re.compile(r"(?:bytes=)?0-(\d{1,19})", re.ASCII)
_LINK = re.compile(r"<([^<>]*)>((?:\s*;\s*[\w*]+\s*=\s*(?:\"[^\"]*\"|[^\s\",;]+))*)")
_REL = re.compile(r";\s*rel\s*=\s*(?:\"([^\"]*)\"|([^\s\",;]+))", re.IGNORECASE)


class Challenge(msgspec.Struct, frozen=True):
    """One challenge of ``WWW-Authenticate``: the scheme and the parameters' names in lower case."""

    scheme: str
    params: dict[str, str] = {}


class ContentRange(msgspec.Struct, frozen=True):
    """``Content-Range`` of a 206: first and last byte, both included, and the whole length if the server told it."""

    first: int
    last: int
    total: int | None = None


def challenges(text: str) -> list[Challenge]:
    """The challenges of a ``WWW-Authenticate`` header, in its order (RFC 9110, 11.6.1)."""
    found: list[Challenge] = []
    at = 0
    while True:
        at = _end(_SPACES, text, at)
        scheme = _TOKEN.match(text, at)
        if scheme is None:
            return found
        at = scheme.end()
        params: dict[str, str] = {}
        if text[at : at + 1] == " ":
            at, params = _params(text, at)
        elif _EQUALS.match(text, at):
            return found
        found.append(Challenge(scheme.group().lower(), params))


def _params(text: str, at: int) -> tuple[int, dict[str, str]]:
    """Parameters from ``at`` until the next challenge; (where that begins, the parameters)."""
    params: dict[str, str] = {}
    start = _end(_SPACES, text, at)
    token68 = _TOKEN68.match(text, start)
    if token68 is not None and (token68.group().endswith("=") or not _EQUALS.match(text, _end(_TOKEN, text, start))):
        # "Basic abc==" or a lone word; a word that is followed by another challenge is that challenge's scheme.
        return (token68.end(), params) if token68.group().endswith("=") else (start, params)
    while True:
        at = _end(_SPACES, text, at)
        name = _TOKEN.match(text, at)
        equals = _EQUALS.match(text, name.end()) if name else None
        if name is None or equals is None:
            return at, params
        quoted = _QUOTED.match(text, equals.end())
        plain = None if quoted else _TOKEN.match(text, equals.end())
        if quoted is not None:
            value, at = re.sub(r"\\(.)", r"\1", quoted.group(1)), quoted.end()
        elif plain is not None:
            value, at = plain.group(), plain.end()
        else:
            return len(text), params
        params.setdefault(name.group().lower(), value)


def _end(pattern: re.Pattern[str], text: str, at: int) -> int:
    found = pattern.match(text, at)
    return found.end() if found else at


def next_link(text: str | None) -> str | None:
    """The target of the first ``Link`` whose relation is "next" (RFC 8288): how listings are paged."""
    for target, params in _LINK.findall(text or ""):
        rel = _REL.search(params)
        if rel and "next" in (rel.group(1) or rel.group(2) or "").lower().split():
            return str(target)
    return None


def content_range(text: str | None) -> ContentRange | None:
    """A 206's ``Content-Range``; None when absent, malformed or impossible (last before first, beyond the total)."""
    found = _CONTENT_RANGE.fullmatch((text or "").strip())
    if not found:
        return None
    first, last = int(found.group(1)), int(found.group(2))
    total = None if found.group(3) == "*" else int(found.group(3))
    if last < first or (total is not None and last >= total):
        return None
    return ContentRange(first, last, total)


def byte_range(text: str | None, size: int) -> tuple[int, int] | None:
    """What a request's ``Range`` asks of ``size`` bytes, as (first, last) both included; for servers.

    None: there is no range, or one to ignore (another unit, several ranges, malformed), so send everything.
    A range that can't be satisfied comes back with first > last: answer 416.
    """
    found = _RANGE.fullmatch((text or "").strip())
    if not found or (not found.group(1) and not found.group(2)):
        return None
    if not found.group(1):
        length = int(found.group(2))
        return (max(0, size - length), size - 1) if length else (size, size - 1)
    first = int(found.group(1))
    last = int(found.group(2)) if found.group(2) else size - 1
    if found.group(2) and last < first:
        return None
    return (first, min(last, size - 1)) if first < size else (size, size - 1)


def uploaded(text: str | None) -> int | None:
    """How many bytes an upload session holds, of its ``Range: 0-N`` header; None if it does not say.

    "0-0" is what registries answer for an empty session and for one byte: it counts as empty, since sending a byte
    again is checked by the registry while a lost one is not.
    """
    found = _UPLOAD_RANGE.fullmatch((text or "").strip())
    if not found:
        return None
    last = int(found.group(1))
    return last + 1 if last else 0


def retry_after(text: str | None, now: datetime | None = None) -> float | None:
    """Seconds to wait, of a ``Retry-After`` in either of its forms; None if absent or malformed."""
    text = (text or "").strip()
    if re.fullmatch(r"\d{1,9}(\.\d{1,6})?", text, re.ASCII):
        return float(text)
    try:
        when = parsedate_to_datetime(text)
    except (ValueError, IndexError):
        return None
    if when.tzinfo is None:
        when = when.replace(tzinfo=UTC)
    return max(0.0, (when - (now or datetime.now(UTC))).total_seconds())
