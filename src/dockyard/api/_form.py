"""A multipart form with one file, read as it comes: the file is handed on in pieces and never held whole."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from litestar import Request
from multipart import MultipartError, MultipartSegment, PushMultipartParser, parse_options_header

from dockyard.errors import InvalidRequest, PayloadTooLarge

PIECE = 1 << 20
MOST_FIELD = 8 << 10
MOST_PARTS = 16


class Form(msgspec.Struct):
    """Its text ``fields``, and the ``name`` and ``size`` of its file; a form without one has no name."""

    fields: dict[str, str] = {}
    name: str | None = None
    size: int = 0


async def read_form(request: Request[Any, Any, Any], write: Callable[[bytes], Awaitable[None]], most: int) -> Form:
    """Raises InvalidRequest for what is no such form, and PayloadTooLarge for a file of more than ``most`` bytes."""
    kind, options = parse_options_header(request.headers.get("content-type", ""))
    if kind != "multipart/form-data" or not options.get("boundary"):
        raise InvalidRequest("the body is not a form", hint="send multipart/form-data with `file` and `purpose`")
    form, reading = Form(), _Reading(most)
    try:
        with PushMultipartParser(options["boundary"], max_segment_count=MOST_PARTS, strict=True) as parser:
            async for chunk in request.stream():
                if parser.closed or not chunk:
                    continue
                for event in parser.parse(chunk):
                    reading.take(form, event)
                if len(reading.held) >= PIECE:
                    await write(reading.release())
            if reading.held:
                await write(reading.release())
    except MultipartError as error:
        raise InvalidRequest(f"the form is broken: {error}") from error
    return form


class _Reading:
    """Where in the form we are."""

    def __init__(self, most: int) -> None:
        self.held = bytearray()
        self._most = most
        self._field: str | None = None
        self._text = bytearray()

    def take(self, form: Form, event: MultipartSegment | bytearray | bytes | None) -> None:
        if isinstance(event, MultipartSegment):
            self._begin(form, event)
        elif event is None:
            if self._field is not None:
                form.fields[self._field] = self._text.decode("utf-8", "replace")
        elif self._field is None:
            self.held += event
            form.size += len(event)
            if form.size > self._most:
                raise PayloadTooLarge(
                    f"the file has more than {self._most} bytes", param="file", hint="`max_file` sets the limit"
                )
        else:
            self._text += event
            if len(self._text) > MOST_FIELD:
                raise PayloadTooLarge(f"the field {self._field!r:.80} is too long", param=self._field[:80])

    def _begin(self, form: Form, part: MultipartSegment) -> None:
        if part.name == "file":
            if form.name is not None or not part.filename:
                raise InvalidRequest("'file' is one file, with a file name", param="file")
            form.name, self._field = part.filename, None
            return
        if part.name in form.fields:
            raise InvalidRequest(f"the field {part.name!r:.80} comes twice", param=part.name[:80])
        self._field, self._text = part.name, bytearray()

    def release(self) -> bytes:
        piece, self.held = bytes(self.held), bytearray()
        return piece
