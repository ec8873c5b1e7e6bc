"""A regular expression: found in the answer, or taking out of it what must equal a reference."""

from __future__ import annotations

import re
from typing import ClassVar

from dockyard.errors import InvalidRequest
from dockyard.scorers import Answer, Item, Mean, Means, Metric, Need, Options, Score


class RegexOptions(Options, frozen=True, kw_only=True):
    """``pattern`` as Python has it. Where it has a group and the item references, the ``which`` group found is compared
    with them (numbers by their value); else finding it is enough. ``metric`` names the figure.
    """

    pattern: str
    which: int = -1
    metric: str = "regex"


class Regex(Mean):
    """1 where it fits, else 0."""

    name: ClassVar[str] = "regex"
    options = RegexOptions
    needs: frozenset[Need] = frozenset({"text"})

    def __init__(self, options: RegexOptions, means: Means) -> None:  # noqa: ARG002 - the protocol's
        try:
            self._pattern = re.compile(options.pattern)
        except re.error as error:
            raise InvalidRequest(
                f"scorer 'regex': {options.pattern!r} is no regular expression: {error}", param="pattern"
            ) from error
        self._which, self._metric = options.which, options.metric
        self.metrics = (Metric(name=options.metric, kind="proportion", signature=f"pattern:{options.pattern}"),)

    async def score(self, item: Item, answer: Answer) -> Score:
        found = list(self._pattern.finditer(answer.text))
        right = bool(found)
        note = ""
        if found and self._pattern.groups and item.references:
            place = self._which if -len(found) <= self._which < len(found) else -1
            note = next((group for group in found[place].groups() if group is not None), "")
            right = any(_same(note, each) for each in item.references)
        return Score(values={self._metric: (float(right),)}, note=note)


def _same(said: str, right: str) -> bool:
    one, two = said.strip(), right.strip()
    try:
        return one == two or float(one.replace(",", "")) == float(two.replace(",", ""))
    except ValueError:
        return False


PLUGIN = Regex
