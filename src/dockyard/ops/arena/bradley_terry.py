"""Bradley–Terry strengths from comparisons, with bootstrap intervals.

P(i beats j) = s_i / (s_i + s_j). A tie counts half a win to each. Fitted by the MM algorithm: Hunter, Annals of
Statistics 32 (2004) 384, equation (3). Scores are 400 log10(s), centred on 0, so 400 more are ten to one.

Resampling a few prompts finds less of a difference between prompts than there is, and none where they agree. So
percentiles are expanded (``statistics``), and among what is resampled each player has won and lost two prompts more (as
Agresti and Coull, The American Statistician 52 (1998) 119, have it of proportions).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from dockyard.errors import EngineUnavailable
from dockyard.ops.evaluate.statistics import tail

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
    drawn = _resampled(table, resamples, seed)
    end = tail(level, max(2, len(units) - n + 2))
    enough = 2.0 ** (1 - len(units)) <= 1 - level
    low, high = np.quantile(drawn, [end, 1 - end], axis=0)
    low, high = np.minimum(low, scores), np.maximum(high, scores)
    # Scores are correlated, so it is differences that are compared.
    beaten = np.quantile(drawn[:, None, :] - drawn[:, :, None], end, axis=0) > 0
    found = [
        Strength(
            name=name,
            score=float(scores[at]),
            low=float(low[at]) if enough else None,
            high=float(high[at]) if enough else None,
            rank=1 + int(enough and beaten[at].sum()),
            games=round(float(whole[at].sum() + whole[:, at].sum())),
            won=float(whole[at].sum()),
        )
        for at, name in enumerate(names)
    ]
    return sorted(found, key=lambda each: -each.score)


def _resampled(table: ndarray[Any, Any], resamples: int, seed: int) -> ndarray[Any, Any]:
    """Scores of resampled units, among which are the added ones. ``table``: wins by unit."""
    np = _numpy()
    count, n = table.shape[:2]
    played = table + np.swapaxes(table, -1, -2)
    pairs = [(one, two) for one in range(n) for two in range(n) if one != two]
    added = np.zeros((len(pairs), n, n))
    for place, (one, two) in enumerate(pairs):
        added[place, one, two] = played[played > 0].mean()
    chance = np.concatenate([np.ones(count), np.full(len(pairs), _ADDED / max(1, n - 1))])
    draw = np.random.default_rng(seed)
    weights = draw.multinomial(round(chance.sum()), chance / chance.sum(), size=resamples)
    whole = np.concatenate([table, added])
    return fit(np.tensordot(weights.astype(float), whole, axes=1), steps=200, tolerance=1e-6)


def _numpy() -> Any:
    try:
        import numpy
    except ImportError:
        raise EngineUnavailable("rankings need numpy", hint="pip install 'dockyard[evaluate]'") from None
    return numpy
