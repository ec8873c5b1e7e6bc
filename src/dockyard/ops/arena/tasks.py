"""Which task a rater is shown next, and on which side which answer stands. Pure."""

from __future__ import annotations

import hashlib
import hmac
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import combinations

import msgspec

from dockyard.errors import InvalidRequest, NotFound
from dockyard.state.arenas import Arena, Item, Verdict, Vote

LEFT_RIGHT = ("left", "right", "tie", "bad")
"""What a rater may say of a pair."""


class Matchup(msgspec.Struct, frozen=True):
    """What is to be judged: candidates of an item, by place; ``second`` is None where one is judged alone."""

    item: int
    first: int
    second: int | None = None

    def id(self, arena: Arena) -> str:
        """What raters know it by; it tells nothing of item, places or models."""
        return _draw(arena, f"task {self.item} {self.first} {self.second}").hex()[:16]


class Task(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A task as a rater sees it: of a pair ``left`` and ``right``, else ``left`` alone, to be scored 1 to ``scale``."""

    task: str
    question: str
    prompt: str
    left: str
    right: str | None = None
    scale: int | None = None
    done: int = 0
    of: int = 0


def matchups(arena: Arena, items: Iterable[Item]) -> list[Matchup]:
    """All that there is to judge. Answers of one item that are the same text make no pair: there is nothing to tell."""
    found = []
    for item in items:
        if arena.kind == "rating":
            found += [Matchup(item.number, place) for place in range(len(item.candidates))]
            continue
        for one, two in combinations(range(len(item.candidates)), 2):
            if item.candidates[one].text != item.candidates[two].text:
                found.append(Matchup(item.number, one, two))
    return found


def following(arena: Arena, items: Sequence[Item], votes: Sequence[Vote], rater: str) -> Task | None:
    """The task that was judged least so far, of those that this rater has not judged; None if that is none.

    Among equals the order is the rater's own, so that no item profits from coming first.
    """
    everything = {each.id(arena): each for each in matchups(arena, items)}
    counts = Counter(vote.task for vote in votes)
    mine = {vote.task for vote in votes if vote.rater == rater}
    open_ = [id for id in everything if id not in mine]
    if not open_:
        return None
    chosen = min(open_, key=lambda id: (counts[id], _draw(arena, f"order {rater} {id}")))
    return shown(arena, items, everything[chosen], rater, done=len(mine & everything.keys()), of=len(everything))


def shown(arena: Arena, items: Sequence[Item], matchup: Matchup, rater: str, *, done: int = 0, of: int = 0) -> Task:
    """A matchup as this rater sees it, now and whenever it is asked for again."""
    item = next(each for each in items if each.number == matchup.item)
    left = left_of(arena, matchup, rater)
    right = None
    if matchup.second is not None:
        right = matchup.second if left == matchup.first else matchup.first
    return Task(
        task=matchup.id(arena),
        question=arena.question,
        prompt=item.prompt,
        left=item.candidates[left].text,
        right=None if right is None else item.candidates[right].text,
        scale=arena.scale if arena.kind == "rating" else None,
        done=done,
        of=of,
    )


def left_of(arena: Arena, matchup: Matchup, rater: str) -> int:
    """The candidate on the left: a fair coin, tossed once for each rater and task."""
    if matchup.second is None:
        return matchup.first
    heads = _draw(arena, f"side {rater} {matchup.id(arena)}")[0] & 1
    return matchup.second if heads else matchup.first


def vote_of(
    arena: Arena,
    items: Sequence[Item],
    rater: str,
    *,
    task: str,
    says: str | int,
    consent: bool = False,
) -> Vote:
    """The vote that an answer to a task is. Raises NotFound for no such task, InvalidRequest for no such answer."""
    matchup = next((each for each in matchups(arena, items) if each.id(arena) == task), None)
    if matchup is None:
        raise NotFound(f"arena {arena.name!r} has no task {task!r:.40}", param="task")
    if matchup.second is None:
        return Vote(task=task, rater=rater, item=matchup.item, first=matchup.first, score=_score(arena, says),
                    consent=consent)  # fmt: skip
    if says not in LEFT_RIGHT:
        raise InvalidRequest(f"of a pair one says {', '.join(LEFT_RIGHT)}, not {says!r:.40}", param="says")
    left = left_of(arena, matchup, rater)
    verdict: Verdict = "tie" if says == "tie" else "bad"
    if says in ("left", "right"):
        verdict = "first" if (left == matchup.first) == (says == "left") else "second"
    return Vote(
        task=task,
        rater=rater,
        item=matchup.item,
        first=matchup.first,
        second=matchup.second,
        verdict=verdict,
        left=left,
        consent=consent,
    )


def _score(arena: Arena, says: str | int) -> int:
    try:
        number = int(says)
    except ValueError:
        number = 0
    if isinstance(says, bool) or not 1 <= number <= arena.scale:
        raise InvalidRequest(f"an answer is rated from 1 to {arena.scale}, not {says!r:.40}", param="says")
    return number


def _draw(arena: Arena, of: str) -> bytes:
    return hmac.digest(arena.secret.encode(), of.encode(), hashlib.sha256)
