"""What becomes of the answer to a prompt: its reasoning is kept apart, and of several samples the majority counts."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

import msgspec

from dockyard.prompt.render import ANSWER

_MARK = re.compile(rf"\n[ \t*#]*{re.escape(ANSWER.removesuffix(':'))}[ \t*]*:[ \t*]*", re.IGNORECASE)
_HELD = len(ANSWER) + 12
"""Characters that may be the beginning of the line with the mark."""


class Splitter:
    """Takes the text of one choice as it comes; gives (reasoning, answer) as far as they are certain.

    What stands before the line that begins with "Answer:" is reasoning. Where no such line comes, the last line that
    was written is the answer.
    """

    def __init__(self) -> None:
        self._held = "\n"  # so that the first line begins as the others do
        self._begun = False
        self._marked = False
        self._fresh = True
        self._last = ""

    def add(self, text: str) -> tuple[str, str]:
        if self._marked:
            return "", self._answer(text)
        self._held += text
        match = _MARK.search(self._held)
        if match is not None and match.end() < len(self._held):
            self._marked = True
            before, after = self._held[: match.start()], self._held[match.end() :]
            self._held = ""
            return self._thought(before), self._answer(after)
        # The last line may be about to become the mark; and of the line before only its end matters then.
        cut = max(0, len(self._held) - _HELD)
        if (line := self._held.rfind("\n")) >= 0 and len(self._held) - line <= _HELD + 4:
            cut = min(cut, line)
        gone, self._held = self._held[:cut], self._held[cut:]
        self._last = (self._last + gone)[-8192:]
        return self._thought(gone), ""

    def end(self) -> tuple[str, str]:
        """What is left when no more text comes."""
        if self._marked:
            return "", ""
        rest, self._held = self._held, ""
        if (match := _MARK.search(rest)) is not None:
            return self._thought(rest[: match.start()]), rest[match.end() :].strip()
        whole = (self._last + rest).strip()
        return self._thought(rest), whole.rpartition("\n")[2].strip()

    def _thought(self, text: str) -> str:
        if not self._begun and text:
            text, self._begun = text.removeprefix("\n"), True
        return text

    def _answer(self, text: str) -> str:
        if self._fresh:
            text = text.lstrip()
            self._fresh = not text
        return text


def unwrapped(text: str) -> tuple[str, str]:
    """Reasoning and answer of JSON that follows ``render.wrapped``; what is cut short has no answer but itself."""
    try:
        told = msgspec.json.decode(text)
        answer = told["answer"]
        return str(told["reasoning"]), answer if isinstance(answer, str) else msgspec.json.encode(answer).decode()
    except (msgspec.DecodeError, KeyError, TypeError):
        return "", text


def split(text: str) -> tuple[str, str]:
    """Reasoning and answer of a whole text."""
    splitter = Splitter()
    thought, answer = splitter.add(text)
    more, rest = splitter.end()
    return (thought + more).strip(), (answer + rest).strip()


def same(text: str) -> str:
    """What two answers share that say the same: case, space and closing marks don't count; JSON by its values."""
    try:
        return msgspec.json.encode(msgspec.json.decode(text), order="deterministic").decode()
    except msgspec.DecodeError:
        return " ".join(text.casefold().split()).strip(" .!?\"'*")


def majority(answers: Sequence[str]) -> int:
    """The place of the first answer that says what most say; empty ones count only if there is nothing else."""
    kept = [same(one) for one in answers]
    counts = Counter(one for one in kept if one) or Counter(kept)
    most = max(counts.values())
    return next(place for place, one in enumerate(kept) if counts.get(one) == most)
