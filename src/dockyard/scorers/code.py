"""Code that passes its tests, run in the sandbox: pass@k (Chen et al., arXiv 2107.03374, HumanEval)."""

from __future__ import annotations

import asyncio
import math
import re
from typing import Annotated, ClassVar

from msgspec import Meta

from dockyard.errors import InvalidRequest
from dockyard.sandbox.program import Bounds, run
from dockyard.scorers import Answer, Item, Mean, Means, Metric, Need, Options, Score
from dockyard.scorers._text import filled

HUMAN_EVAL = "{prompt}{answer}\n{test}\ncheck({entry_point})\n"
_FENCE = re.compile(r"```(?:python|py)?[ \t]*\n(.*?)```", re.S)
_ANSWER = "{answer}"
TOGETHER = 2


class CodeOptions(Options, frozen=True):
    """``program`` is what is run: columns of the data and ``{answer}`` in braces; HumanEval's if not said.

    It passes if it comes to its end. What stands after ``{answer}`` are the checks: they run in a process of their own,
    where nothing that an answer does can pass for them; ``apart: false`` runs all in one, for checks that need more of
    an answer than plain data and objects whose attributes they read and call. ``fenced``: a fenced block in the answer
    is the answer, and the prompt is not put before it where the block defines ``{entry_point}`` itself. ``k``: of how
    many answers one must pass.
    """

    program: str = HUMAN_EVAL
    apart: bool = True
    fenced: bool = True
    k: tuple[Annotated[int, Meta(ge=1)], ...] = (1,)
    seconds: Annotated[float, Meta(gt=0, le=600)] = 10.0
    memory: Annotated[int, Meta(ge=64 << 20)] = 512 << 20


class Code(Mean):
    """pass@k without bias: 1 - C(n - c, k) / C(n, k) where c of an item's n answers pass."""

    name: ClassVar[str] = "code"
    options = CodeOptions
    needs: frozenset[Need] = frozenset({"text", "sandbox"})

    def __init__(self, options: CodeOptions, means: Means) -> None:  # noqa: ARG002 - the protocol's
        self._options = options
        self._bounds = Bounds(seconds=options.seconds, memory=options.memory)
        self.metrics = tuple(Metric(name=f"pass@{k}") for k in options.k)
        self._places: asyncio.Semaphore | None = None

    async def score(self, item: Item, answer: Answer) -> Score:
        answers = answer.samples or (answer.text,)
        if max(self._options.k) > len(answers):
            raise InvalidRequest(
                f"pass@{max(self._options.k)} needs as many answers, and there are {len(answers)}",
                param="k",
                hint="`n` among the suite's parameters says how many are asked for",
            )
        self._places = self._places or asyncio.Semaphore(TOGETHER)
        passed, notes = 0, []
        for text in answers:
            async with self._places:
                program, checks = self.program(item, text)
                ended = await run(program, self._bounds, checks=checks)
            passed += ended.finished
            notes += [ended.reason] if ended.reason else []
        values: dict[str, tuple[float, ...]] = {f"pass@{k}": (_pass(len(answers), passed, k),) for k in self._options.k}
        return Score(values=values, note=notes[0] if notes else "")

    def program(self, item: Item, text: str) -> tuple[str, str]:
        """What is run for an answer, and what checks it."""
        columns = dict(item.row)
        if self._options.fenced and (found := _FENCE.search(text)):
            text = found.group(1)
            entry = columns.get("entry_point")
            if entry and re.search(rf"^def {re.escape(str(entry))}\b", text, re.M):
                # The prompt may import what the function uses: it stays, and what it begins ends as a stub.
                columns["prompt"] = str(columns.get("prompt") or "") + "    pass\n\n"
        columns["answer"] = text
        template = self._options.program
        end = template.rfind(_ANSWER) + len(_ANSWER) if self._options.apart and _ANSWER in template else len(template)
        return filled(template[:end], columns, item.line), filled(template[end:], columns, item.line)


def _pass(n: int, c: int, k: int) -> float:
    return 1.0 - math.comb(n - c, k) / math.comb(n, k)


PLUGIN = Code
