"""Examples to learn from, read from JSONL, CSV and Parquet and checked one by one, each with its file and line.

    messages     {"messages": [{"role": "user", "content": "…"}, {"role": "assistant", "content": "…"}]}
    completion   {"prompt": "…", "completion": "…"}            text, or lists of messages
    text         {"text": "…"}
    preference   {"prompt": "…", "chosen": "…", "rejected": "…"}
    unpaired     {"prompt": "…", "completion": "…", "label": true}
    prompts      {"prompt": "…"}                                what else is there goes to reward functions
    table        {"column": value, …}                           rows, for synthetic tables

The kind is told by the columns of the first record unless it is named. ``instruction``/``input``/``output`` and
``conversations`` (``from``, ``value``), which other tools write, are read as completion and messages.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Literal, get_args

import msgspec

from dockyard.errors import EngineUnavailable, InvalidRequest, NotFound
from dockyard.types import Json

Kind = Literal["messages", "completion", "text", "preference", "unpaired", "prompts", "table"]
KINDS: tuple[Kind, ...] = get_args(Kind)
Record = dict[str, Json]
SUFFIXES = (".jsonl", ".ndjson", ".csv", ".parquet")
INSTALL = "pip install 'dockyard[refit]'"
ROLES = ("system", "user", "assistant", "tool", "developer")
MAX_LINE = 16 << 20
_SPEAKERS = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "system": "system"}
_DECODE = msgspec.json.Decoder()


def read(path: Path, kind: Kind | None = None) -> tuple[Kind, list[Record]]:
    """All records of a file, each checked against its kind, in the file's order.

    Raises NotFound, and InvalidRequest that names file, line and reason; an empty file is one.
    """
    records: list[Record] = []
    for line, raw in rows(path):
        record = _familiar(raw)
        if kind is None:
            kind = kind_of(record)
            if kind is None:
                columns = ", ".join(map(repr, raw)) or "(none)"
                hint = f"one of {', '.join(KINDS)}; name it with --kind"
                raise fault(path, line, f"the columns {columns} are no kind that is known", hint)
        reason = wrong(kind, record)
        if reason:
            raise fault(path, line, reason)
        records.append(_kept(kind, record))
    if kind is None or not records:
        raise InvalidRequest(f"{path}: there is no record in it", param=str(path))
    return kind, records


def kind_of(record: Record) -> Kind | None:
    """The kind that a record's columns show; a row of plain values without a text column is one of a table."""
    columns = set(record)
    if "messages" in columns:
        return "messages"
    if {"chosen", "rejected"} <= columns:
        return "preference"
    if {"prompt", "completion", "label"} <= columns:
        return "unpaired"
    if {"prompt", "completion"} <= columns:
        return "completion"
    if "text" in columns:
        return "text"
    if "prompt" in columns:
        return "prompts"
    plain = all(value is None or isinstance(value, str | int | float | bool) for value in record.values())
    return "table" if plain and len(columns) > 1 else None


def wrong(kind: Kind, record: Record) -> str | None:
    """Why a record is none of its kind, in a few words; None where it is one."""
    return _CHECKS[kind](record)


def fault(path: Path, line: int, reason: str, hint: str | None = None) -> InvalidRequest:
    """The error for one line of a file."""
    return InvalidRequest(f"{path}:{line}: {reason}", param=f"{path}:{line}", hint=hint)


def rows(path: Path) -> Iterator[tuple[int, Record]]:
    """Each row of a file with its line number; of Parquet, its row number. Blank lines are passed over."""
    if not path.is_file():
        raise NotFound(f"{path}: there is no such file", param=str(path))
    suffix = path.suffix.lower()
    if suffix in (".jsonl", ".ndjson"):
        yield from _jsonl(path)
    elif suffix == ".csv":
        yield from _csv(path)
    elif suffix == ".parquet":
        yield from _parquet(path)
    else:
        raise InvalidRequest(f"{path}: not a data file", param=str(path), hint=f"one of {', '.join(SUFFIXES)}")


def write(path: Path, records: Sequence[Record]) -> None:
    """JSONL, columns in the records' order: the same records give the same bytes."""
    encoder = msgspec.json.Encoder()
    with path.open("wb") as file:
        for record in records:
            file.write(encoder.encode(record) + b"\n")


def text_of(record: Record) -> str:
    """All words of a record, in order: what duplicates, overlaps and private data are looked for in."""
    return "\n".join(_words(record))


def fields_of(record: Record) -> list[str]:
    """The texts of a record, each by itself."""
    return list(_words(record))


def prompt_of(record: Record) -> str:
    """What was asked: the part that tells whether two examples are about the same."""
    if "messages" in record:
        return "\n".join(
            str(turn.get("content") or "") for turn in record["messages"] if turn.get("role") != "assistant"
        )
    return "\n".join(_words({"prompt": record["prompt"]})) if "prompt" in record else text_of(record)


def map_text(record: Record, change: Callable[[str], str]) -> Record:
    """The record with every text in it changed; roles and names of columns stay."""

    def walk(value: Json, key: str = "") -> Json:
        if isinstance(value, str):
            return value if key == "role" else change(value)
        if isinstance(value, list):
            return [walk(each) for each in value]
        if isinstance(value, dict):
            return {name: walk(each, name) for name, each in value.items()}
        return value

    return {name: walk(value, name) for name, value in record.items()}


def _words(value: Json, key: str = "") -> Iterator[str]:
    if isinstance(value, str):
        if key != "role":
            yield value
    elif isinstance(value, list):
        for each in value:
            yield from _words(each)
    elif isinstance(value, dict):
        for name, each in value.items():
            yield from _words(each, name)


def _jsonl(path: Path) -> Iterator[tuple[int, Record]]:
    with path.open("rb") as file:
        for number, raw in enumerate(file, 1):
            if number == 1:
                raw = raw.removeprefix(b"\xef\xbb\xbf")
            if not raw.strip():
                continue
            if len(raw) > MAX_LINE:
                raise fault(path, number, f"the line is longer than {MAX_LINE >> 20} MiB")
            try:
                found = _DECODE.decode(raw)
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                raise fault(path, number, f"not JSON: {error}") from error
            if not isinstance(found, dict):
                raise fault(path, number, f"a JSON object is wanted, not {type(found).__name__}")
            yield number, found


def _csv(path: Path) -> Iterator[tuple[int, Record]]:
    csv.field_size_limit(min(MAX_LINE, sys.maxsize))
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            header = next(reader, None)
            if not header:
                return
            if len(set(header)) < len(header) or not all(header):
                raise fault(path, 1, "the header has an empty or a repeated column")
            for cells in reader:
                if not cells:
                    continue
                if len(cells) != len(header):
                    raise fault(path, reader.line_num, f"{len(cells)} cells, but the header has {len(header)} columns")
                yield reader.line_num, _typed(dict(zip(header, cells, strict=True)))
    except csv.Error as error:
        raise fault(path, reader.line_num, str(error)) from error
    except UnicodeDecodeError as error:
        raise InvalidRequest(f"{path}: not UTF-8 text (byte {error.start})", param=str(path)) from error


def _typed(row: dict[str, str]) -> Record:
    """CSV has only text: where a column must be a truth value or messages, read it as that."""
    found: Record = dict(row)
    if (label := row.get("label", "").strip().lower()) in ("true", "false", "1", "0") and "completion" in row:
        found["label"] = label in ("true", "1")
    for name in ("messages", "prompt", "completion", "chosen", "rejected"):
        if row.get(name, "").lstrip().startswith('[{"'):
            try:
                found[name] = _DECODE.decode(row[name])
            except msgspec.DecodeError:
                continue
    return found


def _parquet(path: Path) -> Iterator[tuple[int, Record]]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise EngineUnavailable(f"{path}: Parquet needs pyarrow", hint=INSTALL) from error
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            number = 0
            for batch in file.iter_batches():
                for record in batch.to_pylist():
                    number += 1
                    yield number, record
    except pyarrow.ArrowException as error:
        raise InvalidRequest(f"{path}: no Parquet that can be read: {error}", param=str(path)) from error


def _familiar(record: Record) -> Record:
    """The same record in our columns, where it is in another tool's."""
    if "conversations" in record and isinstance(record["conversations"], list):
        turns = [
            {"role": _SPEAKERS.get(str(turn.get("from")), str(turn.get("from"))), "content": turn.get("value")}
            for turn in record["conversations"]
            if isinstance(turn, dict)
        ]
        return {**{name: value for name, value in record.items() if name != "conversations"}, "messages": turns}
    if "instruction" in record and ("output" in record or "response" in record):
        asked = "\n\n".join(str(record[name]) for name in ("instruction", "input") if record.get(name))
        return {"prompt": asked, "completion": record.get("output", record.get("response"))}
    return record


_COLUMNS: dict[Kind, tuple[str, ...]] = {
    "messages": ("messages", "tools"),
    "completion": ("prompt", "completion"),
    "text": ("text",),
    "preference": ("prompt", "chosen", "rejected"),
    "unpaired": ("prompt", "completion", "label"),
}


def _kept(kind: Kind, record: Record) -> Record:
    """Only the columns that the kind has; prompts and tables keep all."""
    wanted = _COLUMNS.get(kind)
    return {name: record[name] for name in wanted if name in record} if wanted else record


def _content(record: Record, name: str) -> str | None:
    """A text, or messages, that is not empty."""
    value = record.get(name)
    if name not in record:
        return f"the column {name!r} is missing"
    if isinstance(value, str):
        return None if value.strip() else f"{name} is empty"
    if isinstance(value, list):
        return _turns(value, name)
    return f"{name} must be text or a list of messages, not {type(value).__name__}"


def _turns(turns: Json, name: str) -> str | None:
    if not isinstance(turns, list) or not turns:
        return f"{name} must be a list of messages"
    for number, turn in enumerate(turns, 1):
        if not isinstance(turn, dict) or turn.get("role") not in ROLES:
            return f"{name}: message {number} needs a role of {', '.join(ROLES)}"
        content = turn.get("content")
        if not isinstance(content, str) and not (content is None and turn.get("tool_calls")):
            return f"{name}: message {number} needs its content as text"
    return None


def _messages(record: Record) -> str | None:
    reason = _turns(record.get("messages"), "messages")
    if reason:
        return reason
    return None if any(turn["role"] == "assistant" for turn in record["messages"]) else "no message is the assistant's"


def _all(*names: str) -> Callable[[Record], str | None]:
    return lambda record: next((reason for name in names if (reason := _content(record, name))), None)


def _preference(record: Record) -> str | None:
    reason = next((found for name in ("chosen", "rejected") if (found := _content(record, name))), None)
    if reason is None and "prompt" in record:
        reason = _content(record, "prompt")
    if reason is None and "prompt" not in record and not isinstance(record["chosen"], list):
        reason = "the column 'prompt' is missing"
    return reason or ("chosen and rejected are the same" if record["chosen"] == record["rejected"] else None)


def _unpaired(record: Record) -> str | None:
    reason = _all("prompt", "completion")(record)
    return reason or (None if isinstance(record.get("label"), bool) else "label must be true or false")


def _table(record: Record) -> str | None:
    nested = [name for name, value in record.items() if isinstance(value, list | dict)]
    return f"column {nested[0]!r} holds more than one value" if nested else None


_CHECKS: dict[Kind, Callable[[Record], str | None]] = {
    "messages": _messages,
    "completion": _all("prompt", "completion"),
    "text": _all("text"),
    "preference": _preference,
    "unpaired": _unpaired,
    "prompts": _all("prompt"),
    "table": _table,
}
