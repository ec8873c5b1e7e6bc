"""Blocks text that one of the settings' ``deny_patterns`` matches."""

from __future__ import annotations

import re

from dockyard.errors import SettingsError
from dockyard.settings import Settings
from dockyard.types import Verdict

LONGEST = 256
"""Characters that an unbounded pattern (``a.*b``) is taken to span: what bounds a stream's delay."""


class PatternGuard:
    """Regular expressions, each searched for in the whole text; case counts unless the pattern says ``(?i)``."""

    name = "pattern"

    def __init__(self, patterns: tuple[str, ...]) -> None:
        self._patterns: list[re.Pattern[str]] = []
        self.holdback = 0
        for text in patterns:
            try:
                self._patterns.append(re.compile(text))
            except re.error as error:
                raise SettingsError(
                    f"deny_patterns: {text!r} is no regular expression: {error}", param="deny_patterns"
                ) from error
            self.holdback = max(self.holdback, _width(text))

    async def check(self, text: str, *, final: bool = True) -> Verdict:
        for number, pattern in enumerate(self._patterns):
            for match in pattern.finditer(text):
                # A match that ends where the text does may be undone by what follows (`\bcat\b` in "cat|egory"). It
                # can wait, unless it began so long ago that its beginning would leave.
                if not final and match.end() == len(text) and len(text) - match.start() <= self.holdback:
                    continue
                return Verdict(action="block", reason=f"deny pattern {number + 1}", guard=self.name)
        return Verdict()


def _width(pattern: str) -> int:
    """The longest text that ``pattern`` can match, plus the character that settles a boundary after it."""
    from re import _parser  # type: ignore[attr-defined]  # the only place that knows; no public spelling

    return min(int(_parser.parse(pattern).getwidth()[1]), LONGEST) + 1


def build(settings: Settings) -> PatternGuard | None:
    return PatternGuard(settings.deny_patterns) if settings.deny_patterns else None


PLUGIN = build
