"""A search for better instructions and examples of a prompt, judged by a score.

The questions are divided three ways by the seed: examples are taken from the first part, candidates compete on the
second, and only the winner and the prompt as it was are asked the third. So the figure that is told is of questions
which no decision has seen, with the interval of the paired difference (bootstrap, 95 %).

Candidates are instructions (the prompt's own, those given, and rewordings that a model proposes) times sets of examples
(the prompt's own, none, and draws from the first part; where the prompt reasons, with reasonings of the model itself
that led to a right answer). They race: all are asked a few questions, the better half some more, until one is left.
"""

from __future__ import annotations

import asyncio
import random
import re
import statistics
from collections.abc import Callable, Sequence
from typing import Annotated

import msgspec
from msgspec import Meta

from dockyard.errors import DockyardError, InvalidRequest
from dockyard.prompt.model import Example, Prompt
from dockyard.prompt.trial import Asker, judged
from dockyard.scorers import Chosen, Item, Scorer, build

RESAMPLES = 2000
FIRST = 8
"""Questions of the race's first round."""
PROPOSE = (
    "Here is the instruction of a prompt for a language model:\n\n{task}\n\nExamples of what is asked and wanted:\n\n"
    "{examples}\n\nWrite one better instruction for the same job: short, clear, and exact about what the answer looks "
    "like. Write the instruction only."
)


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """A question with its right answers; the first is shown where it serves as an example."""

    input: str
    references: tuple[str, ...]
    variables: dict[str, str] = {}


class Budget(msgspec.Struct, frozen=True, kw_only=True):
    """How hard to search. ``requests`` bounds what is asked of the model in the search, ``examples`` how many are
    shown, ``parallel`` how many questions are under way at once."""

    requests: Annotated[int, Meta(ge=20)] = 400
    examples: Annotated[int, Meta(ge=0, le=32)] = 4
    sets: Annotated[int, Meta(ge=0, le=64)] = 4
    proposals: Annotated[int, Meta(ge=0, le=64)] = 3
    parallel: Annotated[int, Meta(ge=1, le=64)] = 4
    seed: int = 0


class Tried(msgspec.Struct, frozen=True, kw_only=True):
    """One candidate of the race: how it is called, its mean score and on how many questions."""

    name: str
    score: float
    asked: int


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What the held-out questions say: mean scores before and after, their difference with its interval.

    ``better`` is "yes" where the interval lies above 0, "no" below, else "cannot tell".
    """

    before: float
    after: float
    difference: float
    low: float
    high: float
    asked: int
    better: str


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """``prompt`` is the winner of the race, which may be the prompt as it was (``name`` "as it was")."""

    prompt: Prompt
    name: str
    held_out: Verdict
    race: tuple[Tried, ...]
    requests: int
    failed: int


class Candidate(msgspec.Struct):
    """A prompt in the race, with the scores that it has so far."""

    name: str
    prompt: Prompt
    scores: list[float] = []


OnNote = Callable[[str], None]


async def optimize(
    asker: Asker,
    prompt: Prompt,
    rows: Sequence[Row],
    scorer: Chosen,
    *,
    budget: Budget | None = None,
    instructions: Sequence[str] = (),
    proposer: Asker | None = None,
    on_note: OnNote = lambda _: None,
) -> Result:
    """Search. Raises InvalidRequest for fewer than 15 rows, and what the scorer's builder raises.

    A question that fails counts as the score 0 for whoever was asked it, and in ``failed``.
    """
    budget = budget or Budget()
    if len(rows) < 15:
        raise InvalidRequest(f"{len(rows)} questions are too few to learn from and to judge by", hint="give 15 or more")
    order = list(rows)
    random.Random(budget.seed).shuffle(order)  # noqa: S311 - a repeatable order is the point
    third = len(order) // 3
    shown, race, held = order[:third], order[third : 2 * third], order[2 * third :]
    court = Court(asker, build(scorer, asker.means), budget)
    wordings = [*instructions, *(await _proposed(proposer, prompt, shown, budget, on_note) if proposer else [])]
    sets = await _example_sets(court, prompt, shown, budget)
    candidates = _candidates(prompt, wordings, sets)
    on_note(f"{len(candidates)} candidates, {len(race)} questions to race on, {len(held)} held out")
    ranked = await _race(court, candidates, race, budget, on_note)
    winner = ranked[0]
    spent = court.asked
    before = await court.scores(prompt, held)
    after = before if winner.prompt == prompt else await court.scores(winner.prompt, held)
    return Result(
        prompt=winner.prompt,
        name=winner.name,
        held_out=verdict(before, after, budget.seed),
        race=tuple(Tried(name=one.name, score=_mean(one.scores), asked=len(one.scores)) for one in ranked),
        requests=spent,
        failed=court.failed,
    )


class Court:
    """Asks and judges; counts what that took."""

    def __init__(self, asker: Asker, scorer: Scorer, budget: Budget) -> None:
        self.asked = 0
        self.failed = 0
        self._asker = asker
        self._scorer = scorer
        self._limit = asyncio.Semaphore(budget.parallel)

    async def scores(self, prompt: Prompt, rows: Sequence[Row]) -> list[float]:
        """The score of each question, in order."""
        return list(await asyncio.gather(*(self.score(prompt, row) for row in rows)))

    async def score(self, prompt: Prompt, row: Row) -> float:
        return (await self.judge(prompt, row))[0]

    async def judge(self, prompt: Prompt, row: Row) -> tuple[float, str, str]:
        """Score, answer and reasoning."""
        async with self._limit:
            self.asked += 1
            try:
                answer = await self._asker.ask(prompt, row.input, dict(row.variables))
                item = Item(id=row.input[:40], prompt=row.input, references=row.references)
                values = await judged(self._scorer, item, answer)
            except DockyardError:
                self.failed += 1
                return 0.0, "", ""
        metric = self._scorer.metrics[0]
        value = values[metric.name]
        return (value if metric.better == "higher" else -value), answer.text, answer.reasoning


def verdict(before: Sequence[float], after: Sequence[float], seed: int) -> Verdict:
    """The paired difference of two lists of scores, with the 2.5th and 97.5th percentile of its bootstrap means."""
    differences = [late - early for early, late in zip(before, after, strict=True)]
    draw = random.Random(seed)  # noqa: S311 - resampling, not secrets
    means = sorted(_mean(draw.choices(differences, k=len(differences))) for _ in range(RESAMPLES))
    low, high = means[int(0.025 * RESAMPLES)], means[int(0.975 * RESAMPLES) - 1]
    return Verdict(
        before=_mean(before),
        after=_mean(after),
        difference=_mean(differences),
        low=low,
        high=high,
        asked=len(differences),
        better="yes" if low > 0 else "no" if high < 0 else "cannot tell",
    )


async def _race(
    court: Court, candidates: list[Candidate], rows: Sequence[Row], budget: Budget, on_note: OnNote
) -> list[Candidate]:
    """All candidates, the winner first. Each round asks those that are left some further questions."""
    left, place, step = list(candidates), 0, FIRST
    out: list[Candidate] = []
    while len(left) > 1 and place < len(rows):
        room = (budget.requests - court.asked) // len(left)
        part = rows[place : place + min(step, room)]
        if not part:
            break
        for one in left:
            one.scores = [*one.scores, *await court.scores(one.prompt, part)]
        place, step = place + len(part), step * 2
        left.sort(key=lambda one: -_mean(one.scores))
        keep = max(1, (len(left) + 1) // 2) if place < len(rows) else 1
        left, out = left[:keep], [*left[keep:], *out]
        on_note(f"{place} questions: {left[0].name} leads with {_mean(left[0].scores):.3f}; {len(left)} left")
    return [*sorted(left, key=lambda one: -_mean(one.scores)), *out]


def _candidates(prompt: Prompt, wordings: Sequence[str], sets: dict[str, tuple[Example, ...]]) -> list[Candidate]:
    """Each wording with each set of examples; the prompt as it was comes first, and wins where others are no better."""
    found = [Candidate("as it was", prompt)]
    field = "system" if prompt.system else "task"
    for number, wording in enumerate([None, *dict.fromkeys(wordings)]):
        base = prompt if wording is None else msgspec.structs.replace(prompt, **{field: _plain(wording)})
        for name, examples in {"its own examples": prompt.examples, **sets}.items():
            made = msgspec.structs.replace(base, examples=examples, select=None if examples else base.select)
            if all(made != one.prompt for one in found):
                label = "its own wording" if wording is None else f"wording {number}"
                found.append(Candidate(f"{label}, {name}", made))
    return found


async def _example_sets(
    court: Court, prompt: Prompt, rows: Sequence[Row], budget: Budget
) -> dict[str, tuple[Example, ...]]:
    """Draws of examples. A prompt that reasons gets those that the model answered rightly, with its reasoning."""
    if not budget.examples or not budget.sets:
        return {}
    pool: list[Example] = []
    if prompt.reasoning == "steps":
        for row in rows[: budget.requests // 4]:
            score, _, thought = await court.judge(prompt, row)
            if score >= 1.0 and thought.strip():
                pool.append(_example(row, thought.strip()))
    else:
        pool = [_example(row) for row in rows if row.references]
    found: dict[str, tuple[Example, ...]] = {"no examples": ()}
    for number in range(budget.sets):
        count = max(1, budget.examples >> (number % 2))
        if len(pool) >= count:
            drawn = random.Random(budget.seed * 1009 + number).sample(pool, count)  # noqa: S311 - repeatable
            found[f"{count} examples, draw {number + 1}"] = tuple(drawn)
    return found


def _example(row: Row, thought: str = "") -> Example:
    return Example(input=row.input, output=row.references[0], reasoning=thought, variables=dict(row.variables))


async def _proposed(proposer: Asker, prompt: Prompt, rows: Sequence[Row], budget: Budget, on_note: OnNote) -> list[str]:
    """Rewordings by a model; what it can't or won't say is left out, with a note."""
    task = prompt.system or prompt.task
    if not task:
        return []
    told = []
    for number in range(budget.proposals):
        some = random.Random(budget.seed + number).sample(list(rows), min(3, len(rows)))  # noqa: S311 - repeatable
        lines = "\n".join(f"- {row.input[:300]} -> {row.references[0][:200]}" for row in some if row.references)
        asked = PROPOSE.format(task=task, examples=lines)
        plain = Prompt(template="{{ input }}")
        try:
            text = (await proposer.ask(plain, asked)).text.strip().strip('"')
        except DockyardError as error:
            on_note(f"no proposal: {error.message}")
            continue
        text = re.sub(r"^(instruction|improved instruction)\s*:\s*", "", text, flags=re.IGNORECASE)
        if 8 <= len(text) <= 2000:
            told.append(text)
    return told


def _plain(wording: str) -> str:
    """A wording that a model or a file gave is text, not a template."""
    return wording.replace("{{", "{ {").replace("{%", "{ %").replace("{#", "{ #")


def _mean(values: Sequence[float]) -> float:
    return statistics.fmean(values) if values else 0.0
