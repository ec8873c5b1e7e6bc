"""What the votes of an arena say: who is better, for certain or not, and whether the raters agree. Pure."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence

import msgspec

from dockyard.ops.arena.bradley_terry import Game, Strength, rank
from dockyard.ops.evaluate.agreement import alpha, pairwise_kappa
from dockyard.ops.evaluate.result import Interval
from dockyard.ops.evaluate.statistics import LEVEL, bootstrap
from dockyard.state.arenas import Arena, Item, Vote


class Rated(msgspec.Struct, frozen=True, kw_only=True):
    """The mean rating of a model; resampled by item. ``interval`` is None of so few items that they set no bounds."""

    name: str
    mean: float
    interval: Interval | None
    ratings: int


class Results(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """``models`` of pairs, ``ratings`` of single answers, best first. ``left`` is how often the left side won, of the
    votes that chose one: far from 0.5 it tells that raters look at places. ``alpha`` is Krippendorff's (nominal for
    pairs, interval for ratings), ``kappa`` the mean of Cohen's over pairs of raters; None where none shared a task."""

    arena: str
    kind: str
    items: int
    votes: int
    raters: int
    models: tuple[Strength, ...] = ()
    ratings: tuple[Rated, ...] = ()
    ties: int = 0
    bad: int = 0
    left: float | None = None
    alpha: float | None = None
    kappa: float | None = None


def results(arena: Arena, items: Sequence[Item], votes: Sequence[Vote], *, seed: int = 0) -> Results:
    """Everything that can be said so far."""
    by_number = {item.number: item for item in items}
    known = [vote for vote in votes if vote.item in by_number]
    said: dict[str, dict[str, str | int]] = defaultdict(dict)
    for vote in known:
        said[vote.task][vote.rater] = vote.score if vote.score is not None else (vote.verdict or "")
    units = list(said.values())
    pairs = arena.kind == "pairs"
    sided = [vote for vote in known if vote.verdict in ("first", "second")]
    return Results(
        arena=arena.name,
        kind=arena.kind,
        items=len(items),
        votes=len(known),
        raters=len({vote.rater for vote in known}),
        models=tuple(_ranked(by_number, known, seed)) if pairs else (),
        ratings=() if pairs else tuple(_rated(by_number, known, seed)),
        ties=sum(vote.verdict == "tie" for vote in known),
        bad=sum(vote.verdict == "bad" for vote in known),
        left=sum(_chose_left(vote) for vote in sided) / len(sided) if sided else None,
        alpha=alpha(units, level="nominal" if pairs else "interval"),
        kappa=pairwise_kappa(units),
    )


def _chose_left(vote: Vote) -> bool:
    chosen = vote.first if vote.verdict == "first" else vote.second
    return chosen == vote.left


def _ranked(items: dict[int, Item], votes: Sequence[Vote], seed: int) -> list[Strength]:
    names = list(Counter(each.model for item in items.values() for each in item.candidates))
    place = {name: at for at, name in enumerate(names)}
    games = []
    for vote in votes:
        if vote.second is None or vote.verdict is None:
            continue
        candidates = items[vote.item].candidates
        one, two = place[candidates[vote.first].model], place[candidates[vote.second].model]
        won = {"first": 1.0, "second": 0.0}.get(vote.verdict, 0.5)
        if one != two:
            games.append(Game(one, two, won, vote.item))
    return rank(names, games, seed=seed)


def _rated(items: dict[int, Item], votes: Sequence[Vote], seed: int) -> list[Rated]:
    scores: dict[str, dict[int, list[int]]] = defaultdict(lambda: defaultdict(list))
    for vote in votes:
        if vote.score is not None:
            scores[items[vote.item].candidates[vote.first].model][vote.item].append(vote.score)
    found = []
    for name, by_item in scores.items():
        # One row an item, its sum and count, so that items are resampled whole and each rating counts alike.
        rows = [(float(sum(each)), float(len(each))) for each in by_item.values()]
        whole = sum(row[0] for row in rows) / sum(row[1] for row in rows)
        interval = bootstrap(rows, _ratio, seed=seed) if 2.0 ** (1 - len(rows)) <= 1 - LEVEL else None
        found.append(Rated(name=name, mean=whole, interval=interval, ratings=round(sum(row[1] for row in rows))))
    return sorted(found, key=lambda each: -each.mean)


def _ratio(sums: Sequence[float], n: int) -> float:  # noqa: ARG001 - the form of a Combine
    return sums[0] / sums[1]
