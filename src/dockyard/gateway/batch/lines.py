"""The lines of a batch: checked before anything runs, and what the output and error files say of each."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from dockyard.types import Json

MOST_LINES = 50_000
MOST_ERRORS = 100
STOPPED = {
    "expired": ("batch_expired", "This request could not be executed before the completion window expired."),
    "cancelled": ("batch_cancelled", "The batch was cancelled before this request was executed."),
}

_encode = msgspec.json.encode


class Line(msgspec.Struct, frozen=True):
    """One request: its line in the file, counted from 1, the bytes that hold it, and the caller's name for it."""

    number: int
    start: int
    length: int
    custom_id: str


class Checked(msgspec.Struct):
    """What a file holds. ``errors`` are told in the batch; ``models`` maps each name to the line it first stands in."""

    lines: list[Line] = []
    errors: list[dict[str, Json]] = []
    models: dict[str, int] = {}


class _Asked(msgspec.Struct):
    custom_id: str
    method: str
    url: str
    body: dict[str, Any]


class _Sent(msgspec.Struct):
    body: msgspec.Raw


def check(path: Path, endpoint: str, longest: int) -> Checked:
    """Read a whole input file. ``longest`` bounds a line, in bytes. At most ``MOST_ERRORS`` errors are told."""
    found = Checked()
    seen: dict[str, int] = {}
    decode = msgspec.json.Decoder(_Asked).decode
    start = 0
    with path.open("rb") as file:
        for number, text in enumerate(file, 1):
            length = len(text)
            if text.strip():
                _line(found, seen, Line(number, start, length, ""), text, endpoint, longest, decode)
            start += length
            if len(found.errors) >= MOST_ERRORS:
                return found
            if len(found.lines) > MOST_LINES:
                told = f"a batch has at most {MOST_LINES} requests"
                found.errors.append(problem("too_many_tasks", told, line=number))
                return found
    if not found.lines and not found.errors:
        found.errors.append(problem("empty_file", "the input file has no requests"))
    return found


def _line(
    found: Checked,
    seen: dict[str, int],
    line: Line,
    text: bytes,
    endpoint: str,
    longest: int,
    decode: Callable[[bytes], _Asked],
) -> None:
    def bad(code: str, message: str, param: str | None = None) -> None:
        found.errors.append(problem(code, message, line=line.number, param=param))

    if line.length > longest:
        return bad("line_too_long", f"the line has more than {longest} bytes")
    try:
        asked = decode(text)
    except msgspec.ValidationError as error:
        message, _, path = str(error).partition(" - at `$.")
        return bad("invalid_request", f"the line is not a request: {message}", path.rstrip("`") or None)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return bad("invalid_json_line", f"the line is not JSON: {error}")
    if not asked.custom_id:
        return bad("missing_required_parameter", "'custom_id' is required", "custom_id")
    if (first := seen.setdefault(asked.custom_id, line.number)) != line.number:
        return bad("duplicate_custom_id", f"custom_id {asked.custom_id!r:.80} is that of line {first}", "custom_id")
    if asked.method != "POST":
        return bad("invalid_method", f"'method' is POST, not {asked.method!r:.20}", "method")
    if asked.url != endpoint:
        return bad("mismatched_endpoint", f"'url' is {asked.url!r:.80}, the batch's endpoint {endpoint!r}", "url")
    model = asked.body.get("model")
    if not isinstance(model, str) or not model:
        return bad("missing_required_parameter", "'body.model' is required and is text", "body.model")
    if asked.body.get("stream"):
        return bad("invalid_request", "answers of a batch are not streamed", "body.stream")
    found.models.setdefault(model, line.number)
    found.lines.append(Line(line.number, line.start, line.length, asked.custom_id))
    return None


def problem(code: str, message: str, *, line: int | None = None, param: str | None = None) -> dict[str, Json]:
    """An entry of a batch's ``errors``."""
    return {"code": code, "message": message, "param": param, "line": line}


def body_of(text: bytes) -> bytes:
    """The request that a checked line holds, as it was written."""
    return bytes(msgspec.json.decode(text, type=_Sent).body)


def answered(batch: str, line: Line, status: int, request: str, body: bytes) -> bytes:
    """A line of the output file, or of the error file if the status is one of a failure."""
    response = {"status_code": status, "request_id": request, "body": msgspec.Raw(body)}
    return _encode({"id": identity(batch, line), "custom_id": line.custom_id, "response": response, "error": None})


def stopped(batch: str, line: Line, why: str) -> bytes:
    """The line of the error file for a request that was never answered; ``why`` is a key of ``STOPPED``."""
    code, message = STOPPED[why]
    error = {"code": code, "message": message}
    return _encode({"id": identity(batch, line), "custom_id": line.custom_id, "response": None, "error": error})


def identity(batch: str, line: Line) -> str:
    return f"batch_req_{batch.removeprefix('batch_')}{line.number:06d}"


class Spent(msgspec.Struct):
    """Tokens that the answers of a batch took, in the words of either of OpenAI's dialects."""

    prompt: int = 0
    cached: int = 0
    output: int = 0
    reasoning: int = 0

    def add(self, text: bytes) -> None:
        """Count in a line of the output."""
        usage = msgspec.json.decode(text, type=_Told).response.body.usage
        if usage is None:
            return
        details = usage.prompt_tokens_details or usage.input_tokens_details or {}
        self.prompt += usage.prompt_tokens + usage.input_tokens
        self.cached += details.get("cached_tokens") or 0
        self.output += usage.completion_tokens + usage.output_tokens
        self.reasoning += (usage.output_tokens_details or {}).get("reasoning_tokens") or 0

    def told(self) -> dict[str, Json]:
        return {
            "input_tokens": self.prompt,
            "input_tokens_details": {"cached_tokens": self.cached},
            "output_tokens": self.output,
            "output_tokens_details": {"reasoning_tokens": self.reasoning},
            "total_tokens": self.prompt + self.output,
        }


class _Usage(msgspec.Struct):
    prompt_tokens: int = 0
    completion_tokens: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    prompt_tokens_details: dict[str, int | None] | None = None
    input_tokens_details: dict[str, int | None] | None = None
    output_tokens_details: dict[str, int | None] | None = None


class _Body(msgspec.Struct):
    usage: _Usage | None = None


class _Response(msgspec.Struct):
    body: _Body


class _Told(msgspec.Struct):
    response: _Response
