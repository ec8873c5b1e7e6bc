"""Arenas on the database: what the API and the command line ask for."""

from __future__ import annotations

import re
import secrets
from collections.abc import Sequence
from typing import Literal

import msgspec

from dockyard.errors import InvalidRequest
from dockyard.ops.arena.export import Exported, export
from dockyard.ops.arena.results import Results, results
from dockyard.ops.arena.tasks import Task, following, matchups, vote_of
from dockyard.state import State
from dockyard.state.arenas import Arena, Arenas, Candidate, Item

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
MOST_ITEMS = 20_000
QUESTIONS = {"pairs": "Which answer is better?", "rating": "How good is this answer?"}


class Asked(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One item of a new arena: a prompt, and each model's answer to it."""

    prompt: str
    answers: dict[str, str]


class Draft(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A new arena. ``scale`` is the best rating; ``question`` is what raters are asked."""

    name: str
    items: tuple[Asked, ...]
    kind: Literal["pairs", "rating"] = "pairs"
    question: str = ""
    scale: int = 5


class Overview(msgspec.Struct, frozen=True, kw_only=True):
    """An arena in a line."""

    name: str
    kind: str
    question: str
    items: int
    tasks: int
    votes: int
    created: float


class ArenaService:
    """Arenas of one database. Failures are those of ``errors``: NotFound, Conflict, InvalidRequest."""

    def __init__(self, state: State) -> None:
        self._tables = Arenas(state)

    async def create(self, draft: Draft) -> Overview:
        """Make an arena. Raises InvalidRequest that names the item, and Conflict."""
        check(draft)
        arena = Arena(
            name=draft.name,
            kind=draft.kind,
            question=draft.question or QUESTIONS[draft.kind],
            secret=secrets.token_hex(16),
            scale=draft.scale,
        )
        items = [
            Item(
                number=number,
                prompt=each.prompt,
                candidates=tuple(Candidate(model=model, text=text) for model, text in each.answers.items()),
            )
            for number, each in enumerate(draft.items)
        ]
        await self._tables.add(arena, items)
        return await self.overview(draft.name)

    async def all(self) -> list[Overview]:
        """Every arena, oldest first."""
        return [await self.overview(each.name) for each in await self._tables.all()]

    async def overview(self, name: str) -> Overview:
        arena = await self._tables.get(name)
        items = await self._tables.items(name)
        return Overview(
            name=name,
            kind=arena.kind,
            question=arena.question,
            items=len(items),
            tasks=len(matchups(arena, items)),
            votes=len(await self._tables.votes(name)),
            created=arena.created,
        )

    async def next(self, name: str, rater: str) -> Task | None:
        """What this rater is to judge next; None when there is nothing left."""
        arena = await self._tables.get(name)
        return following(arena, await self._tables.items(name), await self._tables.votes(name), _rater(rater))

    async def vote(self, name: str, rater: str, task: str, says: str | int, *, consent: bool = False) -> None:
        """Keep what a rater says of a task. Raises Conflict for a task that they judged before."""
        arena = await self._tables.get(name)
        items = await self._tables.items(name)
        made = vote_of(arena, items, _rater(rater), task=task, says=says, consent=consent)
        await self._tables.vote(name, made)

    async def results(self, name: str) -> Results:
        arena = await self._tables.get(name)
        return results(arena, await self._tables.items(name), await self._tables.votes(name))

    async def export(self, name: str) -> Exported:
        """Preference data of the votes that may be used so."""
        arena = await self._tables.get(name)
        return export(arena, await self._tables.items(name), await self._tables.votes(name))

    async def remove(self, name: str) -> None:
        await self._tables.remove(name)

    async def forget(self, name: str, rater: str) -> int:
        """Delete the votes of a rater who takes them back; how many those were."""
        await self._tables.get(name)
        return await self._tables.forget(name, _rater(rater))


def check(draft: Draft) -> None:
    """Raises InvalidRequest that names what is wrong, and in which item."""
    if not NAME.fullmatch(draft.name):
        raise InvalidRequest(f"{draft.name!r:.80} is no name for an arena", param="name", hint="letters, digits, . _ -")
    if not draft.items or len(draft.items) > MOST_ITEMS:
        raise InvalidRequest(f"an arena has 1 to {MOST_ITEMS} items, not {len(draft.items)}", param="items")
    if not 2 <= draft.scale <= 100:
        raise InvalidRequest(f"a scale goes to 2 at least and 100 at most, not {draft.scale}", param="scale")
    least = 2 if draft.kind == "pairs" else 1
    for number, item in enumerate(draft.items, 1):
        if len(item.answers) < least:
            told = f"item {number} has {len(item.answers)} answers, and {draft.kind} need {least}"
            raise InvalidRequest(told, param=f"items[{number - 1}].answers")
        if not item.prompt.strip() or any(not text.strip() for text in item.answers.values()):
            raise InvalidRequest(f"item {number} has an empty prompt or answer", param=f"items[{number - 1}]")


def read_items(lines: Sequence[str], where: str) -> tuple[Asked, ...]:
    """Items from JSONL. Raises InvalidRequest with file and line."""
    found = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            found.append(msgspec.json.decode(line, type=Asked))
        except msgspec.DecodeError as error:
            raise InvalidRequest(
                f"{where}:{number}: {error}", param=where, hint='{"prompt": "…", "answers": {"MODEL": "…"}}'
            ) from error
    return tuple(found)


def _rater(name: str) -> str:
    if not name.strip() or len(name) > 200:
        raise InvalidRequest("a rater has a name of at most 200 characters", param="rater")
    return name.strip()
