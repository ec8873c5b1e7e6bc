"""Suites: a YAML file that says what is asked, of which data, and how answers are scored; or the same as an artifact.

    name: capitals
    data: capitals.jsonl            # JSONL, CSV or Parquet beside the suite
    prompt: "What is the capital of {country}? One word."
    reference: capital              # a column, or a template with {columns}
    parameters: {max_tokens: 8, temperature: 0}
    scorers: [exact-match, {regex: {pattern: "\\\\b(\\\\w+)\\\\b"}}]

The digest of a suite is of all it says and of its data, wherever the files lie and however they are laid out.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from dockyard import scorers
from dockyard.errors import InvalidRequest, NotFound
from dockyard.ops._yaml import decoded
from dockyard.ops.dataset.records import rows
from dockyard.ops.evaluate.result import digest_of
from dockyard.scorers import Chosen, Item, Scorer
from dockyard.scorers._text import filled, text_of
from dockyard.types import Json

Via = Literal["chat", "completions"]
MOST_ITEMS = 1_000_000


class Suite(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """What a suite says. Each of ``reference``, ``choices``, ``label``, ``text`` and ``id`` names a column, or is a
    template that has ``{columns}`` in it.

    ``prompt`` is one user message, or the text to go on from with ``via: completions``; ``messages`` are several.
    ``references`` is a column with a list of right answers. ``label`` is the right choice's number or its text, and
    ``delimiter`` stands between prompt and choice.
    ``text`` is what perplexity reads; ``prefix`` the text of a token that goes before it, and ``window`` the tokens
    that are read together. ``parameters`` are OpenAI's own; ``n`` among them asks for several answers. ``seed`` is sent
    with each request that has none, with the item's number added. ``limit`` takes the first items only.
    """

    name: Annotated[str, Meta(min_length=1, max_length=100)]
    data: str
    scorers: Annotated[tuple[str | dict[str, dict[str, Json] | None], ...], Meta(min_length=1)]
    description: str = ""
    prompt: str | None = None
    system: str | None = None
    messages: tuple[dict[str, Json], ...] = ()
    via: Via = "chat"
    reference: str | None = None
    references: str | None = None
    choices: str | tuple[str, ...] | None = None
    label: str | None = None
    delimiter: str = " "
    text: str | None = None
    prefix: str = ""
    window: Annotated[int, Meta(ge=16, le=1 << 20)] = 1024
    id: str | None = None
    parameters: dict[str, Json] = {}
    seed: int = 0
    limit: Annotated[int, Meta(ge=1)] | None = None

    def chosen(self) -> tuple[Chosen, ...]:
        """Its scorers with their options. Raises InvalidRequest for an entry of two names."""
        found = []
        for each in self.scorers:
            if isinstance(each, str):
                found.append(Chosen(name=each))
            elif len(each) == 1:
                ((name, options),) = each.items()
                found.append(Chosen(name=name, options=options or {}))
            else:
                raise InvalidRequest(
                    f"suite {self.name!r}: a scorer is a name, or a name with its options", param="scorers"
                )
        return tuple(found)


class Loaded(msgspec.Struct, frozen=True, kw_only=True):
    """A suite with its items, read and checked. ``folder`` is where its files lie."""

    suite: Suite
    items: tuple[Item, ...]
    digest: str
    data_digest: str
    folder: Path


def read_suite(path: Path) -> Suite:
    """The file's suite. Raises NotFound, and InvalidRequest that names what is wrong and where."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise NotFound(f"{path}: there is no such suite", param=str(path)) from None
    except OSError as error:
        raise InvalidRequest(f"{path}: {error.strerror}", param=str(path)) from error
    return parse(data, str(path))


def parse(data: bytes, where: str) -> Suite:
    """A suite from YAML; ``where`` is named in errors."""
    try:
        return decoded(data, Suite)
    except (msgspec.ValidationError, msgspec.DecodeError) as error:
        known = ", ".join(Suite.__struct_fields__)
        hint = f"a suite's keys: {known}" if "unknown field" in str(error) else None
        raise InvalidRequest(f"{where}: {error}", param=where, hint=hint) from error


def load(path: Path, *, limit: int | None = None) -> Loaded:
    """The suite of a file, or of a folder with ``suite.yaml``, and its items.

    Every item is made before anything is asked: a wrong line is found at once. ``limit`` goes over the suite's own.
    Raises NotFound, InvalidRequest (with the data's file and line).
    """
    file = path / "suite.yaml" if path.is_dir() else path
    suite = read_suite(file)
    if limit is not None:
        suite = msgspec.structs.replace(suite, limit=limit)
    for each in suite.chosen():
        scorers.kind(each.name)
    data = file.parent / suite.data
    items = tuple(_items(suite, data))
    if not items:
        raise InvalidRequest(f"{data}: there is no item in it", param=str(data))
    spoken = {key: value for key, value in msgspec.to_builtins(suite).items() if key not in ("data", "description")}
    with data.open("rb") as opened:
        data_digest = "sha256:" + hashlib.file_digest(opened, "sha256").hexdigest()
    return Loaded(
        suite=suite,
        items=items,
        digest=digest_of({**spoken, "data": data_digest}),
        data_digest=data_digest,
        folder=file.parent,
    )


def check(suite: Suite, built: Sequence[Scorer]) -> None:
    """Raises InvalidRequest where scorers need what the suite does not say, or give two figures one name."""
    needs = {need for scorer in built for need in scorer.needs}
    if "text" in needs and suite.prompt is None and not suite.messages:
        raise InvalidRequest(f"suite {suite.name!r} has scorers of answers, and asks nothing", param="prompt")
    wanting = next((scorer.name for scorer in built if "reference" in scorer.needs), None)
    if wanting is not None and suite.reference is None and suite.references is None:
        raise InvalidRequest(
            f"suite {suite.name!r}: scorer {wanting!r} compares with right answers, and there are none",
            param="reference",
            hint="`reference:` names their column",
        )
    if "likelihood" in needs and suite.text is None and suite.choices is None:
        raise InvalidRequest(
            f"suite {suite.name!r} has scorers of likelihoods, and neither `choices` nor `text`", param="scorers"
        )
    if suite.choices is not None and suite.prompt is None:
        raise InvalidRequest(f"suite {suite.name!r} has choices, and no `prompt` that they go on from", param="prompt")
    if suite.choices is not None and suite.label is None:
        raise InvalidRequest(
            f"suite {suite.name!r} has choices, and no `label` that says which is right", param="label"
        )
    names = [metric.name for scorer in built for metric in scorer.metrics]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise InvalidRequest(f"suite {suite.name!r}: two scorers have a metric {twice!r}", param="scorers")


def _items(suite: Suite, data: Path) -> Iterator[Item]:
    seen: dict[str, int] = {}
    for number, (line, row) in enumerate(rows(data)):
        if number >= (suite.limit or MOST_ITEMS):
            return
        item = _item(suite, row, line, str(data), number)
        if item.id in seen:
            raise InvalidRequest(
                f"{data}:{line}: the id {item.id!r} is that of line {seen[item.id]} too", param=f"{data}:{line}"
            )
        seen[item.id] = line
        yield item


def _item(suite: Suite, row: dict[str, Json], line: int, where: str, number: int) -> Item:
    def value(template: str) -> Json:
        if "{" in template:
            return filled(template, row, line, where)
        if template not in row:
            known = ", ".join(row) or "none"
            raise InvalidRequest(
                f"{where}:{line}: there is no column {template!r}", param=f"{where}:{line}", hint=f"columns: {known}"
            )
        return row[template]

    references: tuple[str, ...] = ()
    if suite.references is not None:
        found = value(suite.references)
        if not isinstance(found, list) or not found:
            raise InvalidRequest(f"{where}:{line}: {suite.references!r} is no list of answers", param=f"{where}:{line}")
        references = tuple(text_of(each) for each in found)
    elif suite.reference is not None:
        references = (text_of(value(suite.reference)),)
    choices, label = _choices(suite, value, f"{where}:{line}")
    return Item(
        id=text_of(value(suite.id)) if suite.id is not None else str(number + 1),
        line=line,
        row=row,
        prompt=_prompt(suite, row, line, where),
        references=references,
        choices=choices,
        label=label,
        text=text_of(value(suite.text)) if suite.text is not None else "",
    )


def _prompt(suite: Suite, row: dict[str, Json], line: int, where: str) -> str | list[dict[str, Json]]:
    if suite.via == "completions" or (suite.choices is not None and not suite.messages):
        return filled(suite.prompt or "", row, line, where)
    turns: list[dict[str, Json]] = [{"role": "system", "content": suite.system}] if suite.system is not None else []
    turns += suite.messages
    if suite.prompt is not None:
        turns.append({"role": "user", "content": suite.prompt})
    return [
        {**turn, "content": filled(turn["content"], row, line, where)} if isinstance(turn.get("content"), str) else turn
        for turn in turns
    ]


def _choices(suite: Suite, value: object, where: str) -> tuple[tuple[str, ...], int | None]:
    """The choices and the right one's number. Raises InvalidRequest with the line."""
    if suite.choices is None:
        return (), None
    assert callable(value)
    found = list(suite.choices) if isinstance(suite.choices, tuple) else value(suite.choices)
    if not isinstance(found, list) or len(found) < 2:
        raise InvalidRequest(f"{where}: {suite.choices!r} is no list of choices", param=where)
    choices = tuple(text_of(each) for each in found)
    label = value(suite.label) if suite.label is not None else None
    if isinstance(label, str) and label not in choices and label.isdigit():
        label = int(label)
    if isinstance(label, str):
        at = choices.index(label) if label in choices else None
    else:
        at = label if isinstance(label, int) and 0 <= label < len(choices) else None
    if suite.label is not None and at is None:
        raise InvalidRequest(f"{where}: the label {label!r} is none of the {len(choices)} choices", param=where)
    return choices, at
