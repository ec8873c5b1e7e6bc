"""Arenas from a terminal: on this home's database, or at a server; a sitting; and answers to be judged."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol, TypeVar

import msgspec

from dockyard.cli._output import note, show_table
from dockyard.client import AsyncClient
from dockyard.errors import InvalidRequest
from dockyard.ops.arena.export import Exported, lines
from dockyard.ops.arena.results import Results
from dockyard.ops.arena.service import ArenaService, Asked, Draft, Overview
from dockyard.ops.arena.tasks import Task

T = TypeVar("T")
BASE = "/api/dockyard/arenas"
KEYS = {"l": "left", "r": "right", "t": "tie", "b": "bad"}


class Door(Protocol):
    """What the verbs need, here or at a server."""

    async def create(self, draft: Draft) -> Overview: ...
    async def all(self) -> list[Overview]: ...
    async def next(self, name: str, rater: str) -> Task | None: ...
    async def vote(self, name: str, rater: str, task: str, says: str | int, *, consent: bool = False) -> None: ...
    async def results(self, name: str) -> Results: ...
    async def exported(self, name: str) -> tuple[bytes, str]: ...
    async def remove(self, name: str) -> None: ...
    async def forget(self, name: str, rater: str) -> int: ...


class Local(ArenaService):
    """On this home's database."""

    async def exported(self, name: str) -> tuple[bytes, str]:
        """The file, and a word on it."""
        found = await self.export(name)
        return lines(found), _told(found)


class Remote:
    """At a server, over its API."""

    def __init__(self, client: AsyncClient) -> None:
        self._client = client

    async def create(self, draft: Draft) -> Overview:
        return msgspec.convert(await self._client.call("POST", BASE, msgspec.to_builtins(draft)), Overview)

    async def all(self) -> list[Overview]:
        return msgspec.convert((await self._client.call("GET", BASE))["arenas"], list[Overview])

    async def next(self, name: str, rater: str) -> Task | None:
        from urllib.parse import quote

        found = await self._client.call("GET", f"{BASE}/{name}/next?rater={quote(rater, safe='')}")
        return msgspec.convert(found["task"], Task | None)

    async def vote(self, name: str, rater: str, task: str, says: str | int, *, consent: bool = False) -> None:
        body = {"task": task, "says": says, "rater": rater, "consent": consent}
        await self._client.call("POST", f"{BASE}/{name}/votes", body)

    async def results(self, name: str) -> Results:
        return msgspec.convert(await self._client.call("GET", f"{BASE}/{name}/results"), Results)

    async def exported(self, name: str) -> tuple[bytes, str]:
        found = [msgspec.json.encode(each) + b"\n" async for each in self._client.lines("GET", f"{BASE}/{name}/export")]
        return b"".join(found), f"{len(found)} records of votes with consent"

    async def remove(self, name: str) -> None:
        await self._client.call("DELETE", f"{BASE}/{name}")

    async def forget(self, name: str, rater: str) -> int:
        from urllib.parse import quote

        found = await self._client.call("DELETE", f"{BASE}/{name}/votes?rater={quote(rater, safe='')}")
        return int(found["removed"])


def door(host: str | None, call: Callable[[Door], Awaitable[T]]) -> T:
    """One exchange: with the server that was named, else with this home's database."""
    import asyncio

    from dockyard.cli._connect import find_server, named_server, read_settings
    from dockyard.state import State

    settings = read_settings()

    async def use() -> T:
        if named_server(host) is not None:
            client = find_server(host, settings)
            assert client is not None
            async with client:
                return await call(Remote(client))
        settings.home_path.mkdir(parents=True, exist_ok=True)
        state = State(settings.database_url)
        await state.open()
        try:
            return await call(Local(state))
        finally:
            await state.close()

    return asyncio.run(use())


def sit(host: str | None, name: str, kind: str, rater: str, *, consent: bool, limit: int | None) -> None:
    """Show tasks and take answers from the terminal or a pipe until there are none, or the rater has enough."""
    count = 0
    while limit is None or count < limit:
        task = door(host, lambda arenas: arenas.next(name, rater))
        if task is None:
            note("There is nothing left to judge.")
            break
        if (task.scale is None) != (kind == "pairs"):
            verb = "rate" if task.scale else "vote"
            raise InvalidRequest(f"arena {name!r} has other tasks", param="name", hint=f"dockyard arena {verb} {name}")
        said = _ask(task)
        if said is None:
            break
        _cast(host, name, rater, task.task, said, consent=consent)
        count += 1
    print(f"{count} votes kept")


def _cast(host: str | None, name: str, rater: str, task: str, said: str | int, *, consent: bool) -> None:
    door(host, lambda arenas: arenas.vote(name, rater, task, said, consent=consent))


def _ask(task: Task) -> str | int | None:
    """What the rater says; None to end."""
    print(f"\n[{task.done + 1} of {task.of}] {task.prompt}\n")
    if task.right is None:
        print(f"{task.left}\n")
        prompt = f"{task.question} 1 to {task.scale}, q: "
    else:
        print(f"--- left ---\n{task.left}\n\n--- right ---\n{task.right}\n")
        prompt = f"{task.question} l, r, t(ie), b(ad), q: "
    while True:
        try:
            said = input(prompt if sys.stdin.isatty() else "").strip().lower()
        except EOFError:
            return None
        if said in ("q", "quit"):
            return None
        if task.right is not None and (said[:1] in KEYS and said in (said[:1], KEYS[said[:1]])):
            return KEYS[said[:1]]
        if task.right is None and said.isdigit() and 1 <= int(said) <= (task.scale or 0):
            return int(said)
        note(f"{said!r:.40} is no answer")


def asked(
    prompts: Sequence[str], models: Sequence[str], host: str | None, *, max_tokens: int, quiet: bool
) -> tuple[Asked, ...]:
    """Each model's answer to each prompt, greedily."""
    import asyncio

    from dockyard.api import create_app
    from dockyard.cli._connect import fetch_missing, find_server, named_server, read_settings

    settings = read_settings()
    if named_server(host) is None:
        for model in models:
            fetch_missing(model, settings, quiet=quiet)

    async def ask() -> tuple[Asked, ...]:
        client = find_server(host, settings) or AsyncClient(app=create_app(settings, trusted=True))
        async with client:
            found: list[dict[str, str]] = [{} for _ in prompts]
            for model in models:
                for place, prompt in enumerate(prompts):
                    found[place][model] = await _answer(client, model, prompt, max_tokens)
                    if not quiet:
                        note(f"{model}: {place + 1} of {len(prompts)}")
        return tuple(Asked(prompt=prompt, answers=each) for prompt, each in zip(prompts, found, strict=True))

    return asyncio.run(ask())


async def _answer(client: AsyncClient, model: str, prompt: str, max_tokens: int) -> str:
    return "".join([chunk.text async for chunk in client.chat(model, prompt, temperature=0, max_tokens=max_tokens)])


def gather_runs(names: Sequence[str]) -> tuple[Asked, ...]:
    """The answers of several runs of one suite to the same items; items that a run did not answer are left out."""
    from dockyard.cli._connect import read_settings
    from dockyard.ops.evaluate.shelf import find

    runs = [find(read_settings().home_path, name) for name in names]
    if len(runs) < 2 or len({run.suite_digest for run in runs}) > 1:
        raise InvalidRequest("answers to judge come from two runs or more of one suite", param="run")
    by_key: list[dict[str, Any]] = [{each.input: each for each in run.records if each.answer} for run in runs]
    found = []
    for key, record in by_key[0].items():
        if all(key in each for each in by_key):
            answers = {f"{run.subject.name}#{at}" if _twice(runs, run.subject.name) else run.subject.name:
                       by_key[at][key].answer.text for at, run in enumerate(runs)}  # fmt: skip
            found.append(Asked(prompt=_prompt(record.prompt), answers=answers))
    return tuple(found)


def _twice(runs: Sequence[Any], name: str) -> bool:
    return [run.subject.name for run in runs].count(name) > 1


def _prompt(prompt: Any) -> str:
    if isinstance(prompt, str):
        return prompt
    try:
        return "\n\n".join(f"{each['role']}: {each['content']}" for each in prompt)
    except (TypeError, KeyError):
        return msgspec.json.encode(prompt).decode()


def show_results(found: Results) -> None:
    """The ranking as a table, and what else there is to say."""
    if found.kind == "pairs":
        rows = [
            (
                each.rank,
                each.name,
                f"{each.score:+.0f}",
                "too few prompts" if each.low is None or each.high is None else f"{each.low:+.0f} to {each.high:+.0f}",
                f"{each.won:g}",
                each.games,
            )
            for each in found.models
        ]
        show_table(("rank", "model", "score", "interval", "won", "of"), rows)
    else:
        show_table(
            ("model", "mean", "interval", "ratings"),
            [
                (
                    each.name,
                    f"{each.mean:.2f}",
                    f"{each.interval.low:.2f} to {each.interval.high:.2f}" if each.interval else "too few prompts",
                    each.ratings,
                )
                for each in found.ratings
            ],
        )
    left = f"; left won {found.left:.0%}" if found.left is not None else ""
    print(f"\n{found.votes} votes of {found.raters} raters, {found.ties} ties, {found.bad} both bad{left}")
    if found.alpha is None:
        print("Agreement: no task was judged by two raters")
    else:
        kappa = f", Cohen's kappa {found.kappa:.2f}" if found.kappa is not None else ""
        print(f"Agreement: Krippendorff's alpha {found.alpha:.2f}{kappa}")


def _told(found: Exported) -> str:
    return (
        f"{len(found.records)} records of {found.used} votes; left out: {found.without_consent} votes without "
        f"consent, {found.undecided} undecided pairs"
    )
