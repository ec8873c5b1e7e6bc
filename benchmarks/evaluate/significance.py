"""Whether the comparison keeps its word: no difference where there is none, and one found at the size that was said.

Two runs of one model differ only by the luck of sampling. Each of 100 seeded pairs below is two runs of the same
answerer, which is right with a probability of its own for each item; then one of the two is 5 % worse, with as many
items as the first run's own ``detects`` said it takes.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Sequence

from benchmarks._bars import Row
from dockyard.ops.evaluate.aggregate import aggregates
from dockyard.ops.evaluate.compare import compare
from dockyard.ops.evaluate.result import Aggregate, Record, Run, Subject, digest_of
from dockyard.scorers import Chosen, build

PAIRS = 100
ITEMS = 200
PLANTED = 0.05
Stats = tuple[float, ...]
Draw = Callable[[random.Random, float], Stats]


def rows() -> Iterator[Row]:
    yield _identical("right or wrong", _proportion, "exact-match", "exact_match")
    yield _identical("a score from 0 to 1", _score, "f1", "f1")
    yield _identical("a ratio of sums, as perplexity", _ratio, "perplexity", "perplexity")
    n = _needed()
    found = sum(_planted(seed, n) for seed in range(PAIRS))
    yield Row(
        f"5 % worse, at the {n} items that the report said",
        f"found in {found} of {PAIRS}",
        ">= 80 (power 0.8)",
        found >= 80,
    )
    few = sum(_planted(seed, n // 8) for seed in range(PAIRS))
    yield Row(f"the same at {n // 8} items", f"found in {few} of {PAIRS}", "said", None)


def _identical(what: str, draw: Draw, scorer: str, metric: str) -> Row:
    same = 0
    for seed in range(PAIRS):
        dice = random.Random(seed)
        skill = [dice.betavariate(2, 1) for _ in range(ITEMS)]
        one, two = (_run([draw(dice, each) for each in skill], scorer, metric, name) for name in ("one", "two"))
        same += _verdict(one, two, metric, seed) == "no difference"
    return Row(f"two runs of one model, {what}", f"no difference in {same} of {PAIRS}", ">= 95", same >= 95)


def _verdict(one: Run, two: Run, metric: str, seed: int) -> str:
    found = next(each for each in compare(one, two, seed=seed).metrics if each.metric.name == metric)
    assert found.difference is not None
    return found.difference.verdict


def _run(values: Sequence[Stats], scorer: str, metric: str, name: str, *, figures: bool = False) -> Run:
    """A run as the walk over a suite leaves it, whose items have these statistics; ``figures`` as it would print."""
    records = tuple(
        Record(id=str(number), input=digest_of(number), scores={metric: value}) for number, value in enumerate(values)
    )
    built = build(Chosen(name=scorer))
    known = [each for each in built.metrics if each.name == metric]
    return Run(
        id=name,
        suite="planted",
        suite_digest="sha256:0",
        data_digest="sha256:0",
        subject=Subject(name=name),
        scorers=(Chosen(name=scorer),),
        parameters={},
        seed=0,
        records=records,
        aggregates=tuple(
            aggregates(records, [built], 0)
            if figures
            else [Aggregate(metric=each, scorer=scorer, value=None, interval=None, n=len(values)) for each in known]
        ),
    )


def _proportion(dice: random.Random, skill: float) -> tuple[float, ...]:
    return (float(dice.random() < skill),)


def _score(dice: random.Random, skill: float) -> tuple[float, ...]:
    return (min(1.0, max(0.0, dice.gauss(skill, 0.2))),)


def _ratio(dice: random.Random, skill: float) -> tuple[float, ...]:
    length = dice.randint(5, 80)
    return (dice.gauss(-skill, 0.1) * length, float(length))


def _needed() -> int:
    """How many items the report of a first run says a planted difference takes: its ``detects`` shrinks as 1/√n."""
    dice = random.Random(1)
    first = _run(
        [_score(dice, dice.betavariate(2, 1)) for _ in range(ITEMS)], "f1", "f1", "first", figures=True
    ).aggregate("f1")
    assert first.detectable is not None
    assert first.value is not None
    return math.ceil(ITEMS * (first.detectable / (PLANTED * first.value)) ** 2)


def _planted(seed: int, n: int) -> bool:
    dice = random.Random(1000 + seed)
    skill = [dice.betavariate(2, 1) for _ in range(n)]
    one = _run([_score(dice, each) for each in skill], "f1", "f1", "one")
    two = _run([(_score(dice, each)[0] * (1 - PLANTED),) for each in skill], "f1", "f1", "two")
    return _verdict(one, two, "f1", seed) == "worse"
