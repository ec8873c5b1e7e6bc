"""Rankings from votes: a planted order is found again, and intervals cover planted strengths as often as they say."""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import combinations

import numpy as np

from benchmarks._bars import Row
from dockyard.ops.arena.bradley_terry import SCALE, Game, rank
from dockyard.ops.arena.results import results
from dockyard.ops.arena.tasks import following, left_of, matchups, vote_of
from dockyard.state.arenas import Arena, Candidate, Item

PLANTED = (200.0, 100.0, 0.0, -100.0, -200.0)
NAMES = ("a", "b", "c", "d", "e")
VOTES = 60
"""A pair, each on a prompt of its own: 600 in all."""
ORDERS, COVERED = 100, 400


def rows() -> Iterator[Row]:
    yield from _order()
    yield from _coverage()
    yield from _sides()


def _games(draw: np.random.Generator, ties: float = 0.2) -> list[Game]:
    """Votes drawn from the planted strengths. A tie comes with the same chance whoever is better, and counts half."""
    games, unit = [], 0
    for one, two in combinations(range(len(PLANTED)), 2):
        chance = 1 / (1 + 10 ** ((PLANTED[two] - PLANTED[one]) / SCALE))
        for _ in range(VOTES):
            # The expected share of the win stays the planted one: ties are drawn from both sides of the coin alike.
            tied = draw.random() < ties * 2 * min(chance, 1 - chance)
            edge = (chance - ties * min(chance, 1 - chance)) / (1 - ties * 2 * min(chance, 1 - chance))
            games.append(Game(one, two, 0.5 if tied else float(draw.random() < edge), unit))
            unit += 1
    return games


def _order() -> Iterator[Row]:
    right = sum(
        "".join(each.name for each in rank(NAMES, _games(np.random.default_rng(seed)), resamples=2)) == "abcde"
        for seed in range(ORDERS)
    )
    what = f"planted order of 5 models, 100 points apart, {VOTES} votes a pair, found exactly"
    yield Row(what, f"{right} of {ORDERS}", f"95 of {ORDERS}", right >= 0.95 * ORDERS)


def _coverage() -> Iterator[Row]:
    """Of 400 arenas a rate of 95 % is seen within about a point; the scores of an arena are not independent."""
    began, inside = time.monotonic(), np.zeros(len(PLANTED))
    certain = wrong = 0
    for seed in range(COVERED):
        found = {each.name: each for each in rank(NAMES, _games(np.random.default_rng(10_000 + seed)), seed=seed)}
        for place, name in enumerate(NAMES):
            inside[place] += found[name].low <= PLANTED[place] <= found[name].high
        for one, two in combinations(range(len(NAMES)), 2):
            certain += found[NAMES[one]].rank < found[NAMES[two]].rank
            wrong += found[NAMES[one]].rank > found[NAMES[two]].rank
    share = inside.sum() / (COVERED * len(NAMES))
    each = ", ".join(f"{value / COVERED:.1%}" for value in inside)
    told = f"{share:.1%} ({each}; {time.monotonic() - began:.0f} s)"
    yield Row(
        f"95 % intervals cover the planted strength, {COVERED} arenas", told, "93 % to 97 %", 0.93 <= share <= 0.97
    )
    yield Row("pairs ranked apart for certain", f"{certain} right, {wrong} wrong", "at most 2.5 % wrong",
              wrong <= 0.025 * (certain + wrong))  # fmt: skip


def _sides() -> Iterator[Row]:
    """Raters who always choose the left answer must change no rank, since sides are drawn."""
    items = [
        Item(
            number=number, prompt=f"p{number}", candidates=tuple(Candidate(model=m, text=f"{m}{number}") for m in "ab")
        )
        for number in range(200)
    ]
    apart, lefts = 0, []
    for seed in range(20):
        arena = Arena(name="x", kind="pairs", question="?", secret=f"secret {seed}")
        votes = [vote_of(arena, items, f"r{seed}", task=each.id(arena), says="left") for each in matchups(arena, items)]
        found = results(arena, items, votes)
        apart += found.models[0].rank != found.models[1].rank
        lefts.append(
            sum(left_of(arena, each, f"r{seed}") == each.first for each in matchups(arena, items)) / len(items)
        )
        assert found.left == 1.0
        assert following(arena, items, votes, f"r{seed}") is None
    told = f"{apart} of 20 arenas; first answer on the left {np.mean(lefts):.1%}"
    yield Row("raters who always choose left tell two models apart", told, "at most 3 of 20", apart <= 3)
