"""The runner with answers of our choosing: who is next, what is tried again, and how a batch ends early."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from batch_help import CHAT, jsonl, line
from hypothesis import given
from hypothesis import strategies as st

from dockyard.errors import DockyardError, EngineUnavailable, Overloaded, Preempted, Unauthorized, WorkerCrashed
from dockyard.gateway.batch import Answered, Runner
from dockyard.gateway.batch.runner import Doors
from dockyard.gateway.batch.share import Share, pick, room
from dockyard.state import State
from dockyard.state.batches import OPEN, About, Batch, Batches
from dockyard.state.files import File, Files
from dockyard.types import LoadedModel, Memory, Principal

pytestmark = pytest.mark.anyio

Ask = Callable[[str], Awaitable[None]]


class Site:
    """Batches in a folder, and runners over them."""

    def __init__(self, state: State, folder: Path) -> None:
        self.files = Files(state, "here", folder / "files")
        self.batches = Batches(state, "here", self.files)
        self.folder = folder
        self.stopping = False
        self.asked: Counter[str] = Counter()

    async def add(self, id: str, count: int, *, key: str = "ann", seconds: float = 100) -> None:
        content = jsonl([line(f"{id}-{number}") for number in range(count)])
        self.files.part(f"in-{id}").write_bytes(content)
        await self.files.add(File(id=f"in-{id}", key=key, name="i", purpose="batch", bytes=len(content)))
        made = Batch(id=id, key=key, endpoint=CHAT, input=f"in-{id}", expires=time.time() + seconds, about=About())
        await self.batches.add(made)

    @asynccontextmanager
    async def running(self, ask: Ask, *, most: int = 4, gone: bool = False) -> AsyncIterator[Runner]:
        async def answer(endpoint: str, body: bytes, principal: Principal) -> Answered:
            text = msgspec.json.decode(body)["messages"][0]["content"].removeprefix("hello ")
            self.asked[text] += 1
            await ask(text)
            return Answered("r", b'{"said":' + msgspec.json.encode(text) + b"}")

        async def principal(name: str) -> Principal:
            if gone:
                raise Unauthorized("gone")
            return Principal(name=name)

        async def known(endpoint: str, model: str) -> None: ...

        doors = Doors(
            ask=answer,
            principal=principal,
            known=known,
            told=lambda error: msgspec.json.encode({"code": error.code}),
            models=lambda: [loaded(8)],
            stopping=lambda: self.stopping,
        )
        runner = Runner(self.batches, doors, lock=self.folder / "lock", most=most, longest=1 << 20)
        task = asyncio.create_task(runner.run())
        try:
            yield runner
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def ended(self, id: str) -> Batch:
        async with asyncio.timeout(20):
            while (found := await self.batches.get(id)).status in OPEN:  # noqa: ASYNC110 - nothing tells of it
                await asyncio.sleep(0.02)
        return found

    def told(self, id: str | None) -> list[dict[str, Any]]:
        return [] if id is None else [msgspec.json.decode(one) for one in self.files.path(id).read_bytes().splitlines()]


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    state = State(f"sqlite+aiosqlite:///{tmp_path / 'state.db'}")
    await state.open()
    yield Site(state, tmp_path)
    await state.close()


def loaded(parallel: int, state: str = "ready") -> LoadedModel:
    return LoadedModel(
        reference="m", digest="d", engine="e", state=state, pid=None, context=1, parallel=parallel, predicted=Memory()
    )


async def at_once(text: str) -> None: ...


async def test_what_made_way_is_run_again_at_no_cost(site: Site) -> None:
    async def ask(text: str) -> None:
        if site.asked[text] < 6:
            raise Preempted("interactive work needs the slot")

    await site.add("b", 5)
    async with site.running(ask):
        batch = await site.ended("b")
    assert (batch.completed, batch.failed) == (5, 0)
    assert set(site.asked.values()) == {6}


@pytest.mark.parametrize(
    ("error", "tries", "status"),
    [
        (WorkerCrashed("gone", retry_after=0.01), 3, 503),
        (EngineUnavailable("no such extra"), 1, 501),
        (DockyardError("broken"), 1, 500),
        (ValueError("a defect"), 1, 500),
    ],
)
async def test_what_fails_is_tried_as_often_as_it_may_help(
    site: Site, error: Exception, tries: int, status: int
) -> None:
    async def ask(text: str) -> None:
        if text.endswith("-1"):
            raise error

    await site.add("b", 3)
    async with site.running(ask):
        batch = await site.ended("b")
    assert (batch.status, batch.completed, batch.failed) == ("completed", 2, 1)
    assert site.asked["b-1"] == tries
    (failed,) = site.told(batch.about.failures)
    assert (failed["custom_id"], failed["response"]["status_code"]) == ("b-1", status)


async def test_a_full_server_is_waited_for(site: Site) -> None:
    async def ask(text: str) -> None:
        if sum(site.asked.values()) < 10:
            raise Overloaded("full", retry_after=0.01)

    await site.add("b", 4)
    async with site.running(ask):
        batch = await site.ended("b")
    assert (batch.completed, batch.failed) == (4, 0)


async def test_a_batch_without_a_key_runs_no_further(site: Site) -> None:
    await site.add("b", 2)
    async with site.running(at_once, gone=True):
        batch = await site.ended("b")
    assert (batch.completed, batch.failed) == (0, 2)
    assert [one["response"]["status_code"] for one in site.told(batch.about.failures)] == [401, 401]


async def test_the_window_closes(site: Site) -> None:
    async def ask(text: str) -> None:
        if int(text.partition("-")[2]) % 2:
            await asyncio.sleep(60)

    await site.add("b", 9, seconds=1.0)
    async with site.running(ask, most=32):
        batch = await site.ended("b")
    assert (batch.status, batch.completed, batch.failed) == ("expired", 5, 4)
    assert batch.about.times["expired_at"]
    late = site.told(batch.about.failures)
    assert [one["custom_id"] for one in late] == ["b-1", "b-3", "b-5", "b-7"]
    assert all(one["error"]["code"] == "batch_expired" and one["response"] is None for one in late)
    assert [one["custom_id"] for one in site.told(batch.about.output)] == ["b-0", "b-2", "b-4", "b-6", "b-8"]


async def test_two_runners_take_turns_and_redo_nothing(site: Site) -> None:
    async def ask(text: str) -> None:
        await asyncio.sleep(0.01)

    await site.add("b", 60)
    async with site.running(ask), site.running(ask):
        while not site.asked["b-20"]:  # noqa: ASYNC110 - nothing tells of it
            await asyncio.sleep(0.01)
    recorded = len(await site.batches.done("b"))
    async with site.running(ask):
        batch = await site.ended("b")
    assert [one["custom_id"] for one in site.told(batch.about.output)] == [f"b-{number}" for number in range(60)]
    assert recorded > 0
    assert sum(site.asked.values()) <= 60 + 9


async def test_the_files_are_written_again_after_a_crash_in_between(site: Site) -> None:
    await site.add("b", 3)
    async with site.running(at_once):
        await site.ended("b")
    before = site.told((await site.batches.get("b")).about.output)
    await site.add("c", 3)
    site.files.part("file-cout").write_bytes(b"half a li")
    site.files.path("file-cout").write_bytes(b"an earlier attempt")
    async with site.running(at_once):
        batch = await site.ended("c")
    assert len(site.told(batch.about.output)) == len(before) == 3


async def test_a_server_that_stops_begins_nothing(site: Site) -> None:
    site.stopping = True
    await site.add("b", 3)
    async with site.running(at_once):
        await asyncio.sleep(0.3)
        assert not site.asked
        site.stopping = False
        assert (await site.ended("b")).completed == 3


async def test_batches_share_what_there_is(site: Site) -> None:
    order: list[str] = []

    async def ask(text: str) -> None:
        order.append(text.partition("-")[0])
        await asyncio.sleep(0.005)

    await site.add("a", 30)
    await site.add("b", 30, key="bob")
    async with site.running(ask, most=2):
        await site.ended("a")
        await site.ended("b")
    assert 8 <= order[:24].count("a") <= 16


shares = st.builds(
    Share, key=st.sampled_from("abc"), running=st.integers(0, 5), started=st.floats(0, 10, allow_nan=False)
)


@given(st.lists(shares, max_size=6))
def test_the_next_line_is_of_the_key_with_least(found: list[Share]) -> None:
    place = pick(found)
    assert (place is None) == (not found)
    if place is not None:
        keys: Counter[str] = Counter()
        for share in found:
            keys[share.key] += share.running
        chosen = found[place]
        assert keys[chosen.key] == min(keys.values())
        mine = [share for share in found if keys[share.key] == keys[chosen.key]]
        assert chosen.running == min(share.running for share in mine)


@given(st.lists(st.integers(1, 6), min_size=1, max_size=4), st.integers(1, 3), st.integers(1, 60))
def test_everybody_is_served_in_turn(counts: list[int], keys: int, slots: int) -> None:
    """Running all lines with ``slots`` at once, no batch waits while another of its rank gets two more."""
    left, running, started = list(counts), [0] * len(counts), [0.0] * len(counts)
    clock = 0.0
    while any(left):
        able = [n for n in range(len(counts)) if left[n]]
        place = pick([Share(f"k{n % keys}", running[n], started[n]) for n in able])
        assert place is not None
        chosen, clock = able[place], clock + 1
        left[chosen] -= 1
        running[chosen] += 1
        started[chosen] = clock
        if sum(running) >= slots:
            running[max(range(len(counts)), key=running.__getitem__)] -= 1
    assert clock == sum(counts)


@pytest.mark.parametrize(
    ("models", "most", "lines"),
    [([], 32, 2), ([loaded(4)], 32, 5), ([loaded(4), loaded(8, "loading")], 32, 5), ([loaded(64)], 32, 32)],
)
def test_as_many_lines_as_there_are_slots(models: list[LoadedModel], most: int, lines: int) -> None:
    assert room(models, most) == lines
