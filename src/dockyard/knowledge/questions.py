"""Question sets: read from a file, or written by a model from passages of a base, each with the passage that answers.

A set is JSON lines: ``{"question": …, "documents": [path, …]}``, and where they are known ``"answer"`` and ``"span":
[start, end]`` of the first document. No documents means that the base does not hold the answer.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from pathlib import Path

import msgspec

from dockyard.errors import InvalidRequest, NotFound
from dockyard.knowledge.bases import Base
from dockyard.knowledge.model import Row
from dockyard.knowledge.models import Models
from dockyard.types import Message

_ASK = (
    "Write one question that the passage below answers, in the words of somebody who has not read it. "
    "Name what the question is about. Write the question only."
)
_POINTS = re.compile(r"\b(?:passage|text|document|paragraph|section|above|below|excerpt)\b", re.IGNORECASE)


class Question(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """One question. ``documents`` are paths of those that answer it; none: nobody does."""

    question: str
    documents: tuple[str, ...] = ()
    answer: str = ""
    span: tuple[int, int] | None = None


def read(path: Path) -> list[Question]:
    """Raises NotFound, and InvalidRequest naming the line that is none."""
    if not path.is_file():
        raise NotFound(f"{path}: there is no such file", param="questions")
    found = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip():
            continue
        try:
            found.append(msgspec.json.decode(line, type=Question))
        except (msgspec.DecodeError, msgspec.ValidationError) as error:
            raise InvalidRequest(f"{path}:{number}: {error}", param="questions") from None
    if not found:
        raise InvalidRequest(f"{path} has no questions", param="questions")
    return found


async def written(
    base: Base,
    models: Models,
    writer: str,
    count: int,
    *,
    seed: int = 7,
    told: Callable[[int, int], None] = lambda *_: None,
) -> list[Question]:
    """Up to ``count`` questions about passages drawn at random, each answered by the document it was written from.

    What points at "the passage", or is no question, is thrown away; nothing is filtered by how well it is found.
    """
    with base.ledger() as ledger:
        recipe, snapshot, place = ledger.recipe, ledger.snapshot, ledger.place
        documents = {one.number: one for one in ledger.documents()}
    store = base.vectors(recipe, place)
    rows = [row for row in store.rows(snapshot, sorted(documents)) if len(row.text) >= 120]
    random.Random(seed).shuffle(rows)  # noqa: S311 - a sample, no secret
    found: list[Question] = []
    for row in rows[: 3 * count]:
        if len(found) >= count:
            break
        text = await _asked(models, writer, row)
        if text and text not in [one.question for one in found]:
            span = (row.start, row.end)
            found.append(Question(question=text, documents=(documents[row.doc].path,), span=span))
            told(len(found), count)
    return found


async def _asked(models: Models, writer: str, row: Row) -> str:
    messages = [Message(role="system", content=_ASK), Message(role="user", content=row.words[:1500])]
    pieces = [piece async for piece in models.write(writer, messages, temperature=0, max_tokens=60)]
    line = "".join(pieces).strip().splitlines()[0:1]
    text = re.sub(r"^(?:question|q)\s*:\s*", "", line[0].strip().strip('"*'), flags=re.IGNORECASE) if line else ""
    return text if text.endswith("?") and 15 <= len(text) <= 250 and not _POINTS.search(text) else ""
