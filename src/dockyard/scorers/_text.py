"""Text as scorers compare it, and templates that a row of the data fills."""

from __future__ import annotations

import re
import string
from collections.abc import Mapping

import msgspec

from dockyard.errors import InvalidRequest
from dockyard.scorers import Item
from dockyard.types import Json

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)
_FIELD = re.compile(r"\{\{|\}\}|\{(\w+)\}")


def normalized(text: str) -> str:
    """Without case, punctuation, articles and extra space: SQuAD's ``normalize_answer`` (evaluate-v2.0.py)."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def references(item: Item) -> tuple[str, ...]:
    """The right answers. Raises InvalidRequest where the item has none."""
    if not item.references:
        where = f"line {item.line}" if item.line else f"item {item.id}"
        raise InvalidRequest(
            f"{where} has no reference", param="reference", hint="the suite's `reference:` names a column"
        )
    return item.references


def filled(template: str, row: Mapping[str, Json], line: int = 0, where: str = "") -> str:
    """``template`` with each ``{column}`` replaced; ``{{`` and ``}}`` are braces, and other braces stay as they are.

    Text goes in as it is, other values as JSON. Raises InvalidRequest that names the line and a column it lacks.
    """

    def value(match: re.Match[str]) -> str:
        name = match.group(1)
        if name is None:
            return match.group()[0]
        if name not in row:
            at = f"{where}:{line}" if where and line else where or (f"line {line}" if line else "")
            known = ", ".join(row) or "none"
            raise InvalidRequest(
                f"{at + ': ' if at else ''}there is no column {name!r}", param=name, hint=f"columns: {known}"
            )
        return text_of(row[name])

    return _FIELD.sub(value, template)


def text_of(value: Json) -> str:
    """A value of the data as text."""
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()
