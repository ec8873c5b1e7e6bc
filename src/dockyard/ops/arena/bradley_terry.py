"""Bradley–Terry strengths from comparisons, with bootstrap intervals.

P(i beats j) = s_i / (s_i + s_j). A tie counts half a win to each. Fitted by the MM algorithm: Hunter, Annals of
Statistics 32 (2004) 384, equation (3). Scores are 400 log10(s), centred on 0, so 400 more are ten to one.

Resampling a few prompts finds less of a difference between prompts than there is, and none where they agree. So
percentiles are expanded (``statistics``), and joined with an interval of standard errors for which each player has won
and lost two prompts more (as Agresti and Coull, The American Statistician 52 (1998) 119, have it of proportions).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from dockyard.errors import EngineUnavailable
from dockyard.ops.evaluate.statistics import student, tail

if TYPE_CHECKING:
    from numpy import ndarray

SCALE = 400.0
PRIOR = 0.1
"""Wins that each player has over each other beforehand, so that who never lost has a finite score. It pulls scores of
few comparisons together by a little; with dozens a pair it is not seen."""
_ADDED = 2.0


class Game(msgspec.Struct, frozen=True):
    """One comparison: the players by number, and the first's share of the win (1, 0, or 0.5 of a tie). Games of one
    ``unit`` (a prompt, say) are resampled together, since they are not independent."""

    first: int
    second: int
    won: float
    unit: int = 0


class Strength(msgspec.Struct, frozen=True, kw_only=True):
    """A player's score with its interval, and how it did. ``rank`` counts those that are better for certain, from 1.

    ``low`` and ``high`` are None of so few prompts that they set no bounds.
    """

    name: str
    score: float
    low: float | None
    high: float | None
    rank: int
    games: int
    won: float


def fit(wins: ndarray[Any, Any], steps: int = 500, tolerance: float = 1e-9) -> ndarray[Any, Any]:
    """Scores from a matrix of wins, row over column; ``[..., n, n]`` fits many matrices at once."""
    np = _numpy()
    n = wins.shape[-1]
    wins = wins + PRIOR * (1 - np.eye(n))
    games, won = wins + np.swapaxes(wins, -1, -2), wins.sum(-1)
    strength = np.ones(wins.shape[:-1])
    for _ in range(steps):
        shares = games / (strength[..., :, None] + strength[..., None, :])
        fresh = won / shares.sum(-1)
        fresh = fresh / np.exp(np.log(fresh).mean(-1, keepdims=True))
        moved = float(np.abs(np.log(fresh / strength)).max())
        strength = fresh
        if moved < tolerance:
            break
    scores: ndarray[Any, Any] = SCALE * np.log10(strength)
    return scores


def rank(
    names: Sequence[str], games: Sequence[Game], *, resamples: int = 1000, level: float = 0.95, seed: int = 0
) -> list[Strength]:
    """The players, best first. Intervals are percentiles of refits to resampled units; [] of no games.

    Units so few that all of them may go one way by chance (the sign test, 2^(1-n)) give no intervals, and rank nobody
    above another.
    """
    if not games:
        return []
    np = _numpy()
    n, units = len(names), sorted({each.unit for each in games})
    place = {unit: at for at, unit in enumerate(units)}
    table = np.zeros((len(units), n, n))
    for each in games:
        table[place[each.unit], each.first, each.second] += each.won
        table[place[each.unit], each.second, each.first] += 1 - each.won
    whole = table.sum(0)
    scores = fit(whole)
    draw = np.random.default_rng(seed)
    weights = draw.multinomial(len(units), np.full(len(units), 1 / len(units)), size=resamples)
    drawn = fit(np.tensordot(weights.astype(float), table, axes=1), steps=200, tolerance=1e-6)
    end = tail(level, len(units))
    enough = 2.0 ** (1 - len(units)) <= 1 - level
    low, high = np.quantile(drawn, [end, 1 - end], axis=0)
    beaten = np.zeros((n, n), bool)
    if enough:
        centre, own, apart = _errors(table)
        errors = student(level, len(units))
        low, high = np.minimum(low, centre - errors * own), np.maximum(high, centre + errors * own)
        # Scores are correlated, so it is differences that are compared.
        lead = np.quantile(drawn[:, None, :] - drawn[:, :, None], end, axis=0)
        beaten = (lead > 0) & (centre[None, :] - centre[:, None] > errors * apart)
    found = [
        Strength(
            name=name,
            score=float(scores[at]),
            low=float(low[at]) if enough else None,
            high=float(high[at]) if enough else None,
            rank=1 + int(beaten[at].sum()),
            games=round(float(whole[at].sum() + whole[:, at].sum())),
            won=float(whole[at].sum()),
        )
        for at, name in enumerate(names)
    ]
    return sorted(found, key=lambda each: -each.score)


def _errors(table: ndarray[Any, Any]) -> tuple[ndarray[Any, Any], ndarray[Any, Any], ndarray[Any, Any]]:
    """Scores, their standard errors and those of their differences, with the added units. ``table``: wins by unit.

    The larger of the likelihood's, for which games are independent, and of Huber's sandwich, for which only units are:
    of few units the sandwich is too small.
    """
    np = _numpy()
    n = table.shape[-1]
    played = table + np.swapaxes(table, -1, -2)
    size, more = played[played > 0].mean(), _ADDED / max(1, n - 1)
    wins = table.sum(0) + more * size * (1 - np.eye(n))
    scores = fit(wins)
    chance = 1 / (1 + 10 ** ((scores[None, :] - scores[:, None]) / SCALE))
    likely = np.linalg.pinv(_laplacian((wins + wins.T) * chance * (1 - chance)))
    surplus = (table - played * chance).sum(-1)
    added = more * (size * (1 - chance)) ** 2 * (1 - np.eye(n))
    robust = likely @ (surplus.T @ surplus + _laplacian(added + added.T)) @ likely
    unit = SCALE / np.log(10)
    own = [np.diag(each) for each in (likely, robust)]
    pairs = [one[None, :] + one[:, None] - 2 * each for one, each in zip(own, (likely, robust), strict=True)]
    return scores, unit * np.sqrt(np.maximum(*own)), unit * np.sqrt(np.maximum(0, np.maximum(*pairs)))


def _laplacian(weight: ndarray[Any, Any]) -> ndarray[Any, Any]:
    found: ndarray[Any, Any] = _numpy().diag(weight.sum(1)) - weight
    return found


def _numpy() -> Any:
    try:
        import numpy
    except ImportError:
        raise EngineUnavailable("rankings need numpy", hint="pip install 'dockyard[evaluate]'") from None
    return numpy
