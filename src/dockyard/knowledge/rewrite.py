"""A question in words that find more: what went before is folded in, and a model may word it anew."""

from __future__ import annotations

import re
from collections.abc import Sequence

from dockyard.knowledge.models import Models
from dockyard.types import Message

MOST_WORDINGS = 3
_ASK = (
    "Rewrite the user's last question as a search query that can be understood alone: name what 'it' and 'they' mean. "
    "Write {count} different wordings, one a line, without numbers and without answering."
)
_MARK = re.compile(r"^\s*(?:\d+[.)]|[-*•])\s*")


async def wordings(models: Models, model: str, turns: Sequence[Message], question: str, count: int = 1) -> list[str]:
    """Up to ``count`` other wordings of a question; whatever the model writes instead of one is dropped."""
    talk = "\n".join(f"{one.role}: {one.content}" for one in turns[-6:] if isinstance(one.content, str))
    asked = [
        Message(role="system", content=_ASK.format(count=count)),
        Message(role="user", content=f"{talk}\n\nLast question: {question}" if talk else f"Question: {question}"),
    ]
    pieces = [piece async for piece in models.write(model, asked, temperature=0, max_tokens=60 * count)]
    found = []
    for line in "".join(pieces).splitlines():
        text = _MARK.sub("", line).strip().strip("\"'")
        if 3 <= len(text) <= 300 and text.lower() != question.lower() and text not in found:
            found.append(text)
    return found[:count]


def with_context(question: str, turns: Sequence[Message]) -> str:
    """A short question after others leans on the one before: then both are searched for."""
    before = [one.content for one in turns if one.role == "user" and isinstance(one.content, str)]
    if before and len(question.split()) <= 6:
        return f"{before[-1]}\n{question}"
    return question
