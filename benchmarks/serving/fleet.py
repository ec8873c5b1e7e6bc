"""Six models on a budget that holds two, 500 mixed requests of three keys: the real fleet, the real model, one process.

Every step of it is watched: the ledger after each event, and each worker that is stopped for requests still open in it.
The same trace served strictly in the order of arrival is computed by the simulator, with the times measured here; it
also computes what our own schedule should take, so that the comparison can be checked against the run.
"""

from __future__ import annotations

import asyncio
import math
import random
import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks._bars import Row
from benchmarks._serving import pull_starter
from dockyard.artifact.store import Store
from dockyard.engines import ChunkStream
from dockyard.fleet import Fleet, Parts
from dockyard.fleet import runner as runners
from dockyard.fleet.runner import Exit, Runner, Started
from dockyard.fleet.simulator import Arrival, Model, Simulator, fifo
from dockyard.ops.pack import PackParams, Sources, package
from dockyard.settings import Settings
from dockyard.types import Message, Request, Sampling

MODELS = 6
HELD = 2
REQUESTS = 500
RATE = 4.0
"""Requests a second: bursts of it are more than the machine can do, its average is not."""

TOKENS = (4, 8, 16)
KEYS = ("alice", "bob", "carol")
PARALLEL = 4


@dataclass
class Seen:
    """What happened, as the requests and the workers tell it."""

    waits: list[float] = field(default_factory=list)
    holds: list[float] = field(default_factory=list)
    loads: list[float] = field(default_factory=list)
    ends: list[float] = field(default_factory=list)
    answered: int = 0
    evicted_busy: int = 0
    over: int = 0
    queued: int = 0


class Watched:
    """A worker process, and a look at what is open in it when it is stopped."""

    def __init__(self, inner: Runner, seen: Seen) -> None:
        self._inner = inner
        self._seen = seen
        self._open: set[str] = set()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    async def start(self) -> Started:
        started = await self._inner.start()
        self._seen.loads.append(started.seconds)
        return started

    def generate(self, request: Request) -> ChunkStream:
        self._open.add(request.id)
        return _Counted(self._inner.generate(request), lambda: self._open.discard(request.id))

    async def wait_exit(self) -> Exit:
        return await self._inner.wait_exit()

    async def stop(self, drain: float = 0.0) -> None:
        self._seen.evicted_busy += len(self._open)
        began = time.monotonic()
        await self._inner.stop(drain)
        self._seen.ends.append(time.monotonic() - began)


class _Counted:
    def __init__(self, inner: ChunkStream, over: Any) -> None:
        self._inner = inner
        self._over = over

    def __aiter__(self) -> _Counted:
        return self

    async def __anext__(self) -> list[Any]:
        try:
            return await self._inner.__anext__()
        except BaseException:
            self._over()
            raise

    async def aclose(self) -> None:
        self._over()
        await self._inner.aclose()


def rows() -> Iterator[Row]:
    with tempfile.TemporaryDirectory() as scratch:
        home = Path(scratch)
        pull_starter(home)
        store = Store(home / "store")
        for number in range(MODELS):
            named = store.named(_name(number))
            package(store, Sources(), PackParams(name=f"Copy {number}"), base="smollm2", reference=named)
        trace = _trace()
        seen, took, need = asyncio.run(_run(home, store, trace))
        yield from _judge(trace, seen, took, need)


def _name(number: int) -> str:
    return f"copy-{number}"


def _trace() -> list[Arrival]:
    """Poisson arrivals; the first models are asked for most, as on a real box. ``hold`` is in tokens."""
    chance = random.Random(3)
    now, trace = 0.0, []
    weights = [1 / (1 + number) for number in range(MODELS)]
    for _ in range(REQUESTS):
        now += chance.expovariate(RATE)
        (model,) = chance.choices(range(MODELS), weights)
        trace.append(Arrival(now, _name(model), chance.choice(TOKENS), None, chance.choice(KEYS)))
    return trace


async def _run(home: Path, store: Store, trace: list[Arrival]) -> tuple[Seen, float, int]:
    plain = Settings(home=str(home), context=1024, parallel=PARALLEL, idle_seconds=-1, native_llama=False)
    probe = Fleet(plain, store)
    need = (await probe.explain(_name(0))).replicas[0].predicted.total
    settings = Settings(
        home=str(home), context=1024, parallel=PARALLEL, idle_seconds=-1, native_llama=False,
        memory_budget=int(need * (HELD + 0.7)),
    )  # fmt: skip
    seen = Seen()
    parts = Parts(runner=lambda *given, **more: Watched(runners.create(*given, **more), seen))
    fleet = Fleet(settings, store, parts=parts)
    await fleet.start()
    watch = asyncio.create_task(_watch(fleet, seen))
    began = time.monotonic()
    try:
        async with asyncio.TaskGroup() as group:
            for number, arrival in enumerate(trace):
                group.create_task(_client(fleet, number, arrival, began, seen))
        return seen, time.monotonic() - began, need
    finally:
        watch.cancel()
        await fleet.close(drain=0.0)


async def _watch(fleet: Fleet, seen: Seen) -> None:
    ledger = fleet.schedule.ledger
    while True:
        seen.over += ledger.charged > ledger.budget
        seen.queued = max(seen.queued, *(row.queued for row in fleet.models()), 0)
        await asyncio.sleep(0.01)


async def _client(fleet: Fleet, number: int, arrival: Arrival, began: float, seen: Seen) -> None:
    await asyncio.sleep(max(0.0, began + arrival.at - time.monotonic()))
    asked = time.monotonic()
    lease = await fleet.lease(arrival.model, key=arrival.key)
    granted = time.monotonic()
    try:
        request = Request(
            id=f"r{number}",
            messages=(Message(role="user", content=f"Say something about the number {number}."),),
            sampling=Sampling(max_tokens=int(arrival.hold), temperature=0, ignore_eos=True),
        )
        tokens = 0
        async for chunks in lease.generate(request):
            tokens += sum(chunk.usage.completion_tokens for chunk in chunks if chunk.usage)
    finally:
        lease.release()
    seen.waits.append(granted - asked)
    seen.holds.append(time.monotonic() - granted)
    seen.answered += tokens == int(arrival.hold)


def _judge(trace: list[Arrival], seen: Seen, took: float, need: int) -> Iterator[Row]:
    load, hold, end = statistics.mean(seen.loads), max(seen.holds), statistics.mean(seen.ends)
    patience = 10.0
    # A model that is waited for is overdue after ``patience``. Those that were waited for longer come first, each with
    # a load, a turn of ``patience`` for those who wait for it, its longest request and its end. Our own model needs as
    # many turns as serve all who wait for it.
    turns = max(1, math.ceil(seen.queued * statistics.mean(seen.holds) / PARALLEL / patience))
    bound = patience + turns * (MODELS - 1) * (load + patience + hold + end)
    yield Row("requests answered in full", f"{seen.answered} of {REQUESTS}", f"{REQUESTS}", seen.answered == REQUESTS)
    yield Row("requests open in a worker that was stopped", f"{seen.evicted_busy}", "0", seen.evicted_busy == 0)
    yield Row("samples of the ledger above its budget", f"{seen.over}", "0", seen.over == 0)
    told = f"{bound:.0f} s = 10 + {turns} turns x {MODELS - 1} models x ({load:.1f} load + 10 + {hold:.1f} + {end:.1f})"
    yield Row("longest wait", f"{max(seen.waits):.1f} s", told, max(seen.waits) <= bound)
    models = {_name(n): Model(need, need, load, end, False, PARALLEL) for n in range(MODELS)}
    second = statistics.mean(seen.holds) / statistics.mean(arrival.hold for arrival in trace)
    timed = [Arrival(a.at, a.model, a.hold * second, None, a.key) for a in trace]
    budget = int(need * (HELD + 0.7))
    ours, first = Simulator(budget, models, patience=patience).run(timed), fifo(budget, models, timed)
    yield Row(
        "total time and 95th wait, measured",
        f"{took:.0f} s, {_p95(seen.waits):.1f} s, {len(seen.loads)} loads",
        "",
        None,
    )
    yield Row(
        "the same as simulated with these times",
        f"{ours.ended:.0f} s, {_p95(list(ours.waits.values())):.1f} s, {ours.loads} loads",
        "",
        None,
    )
    yield Row(
        "first come, first served, simulated",
        f"{first.ended:.0f} s, {_p95(list(first.waits.values())):.1f} s, {first.loads} loads",
        "",
        None,
    )
    total, wait = took / first.ended, _p95(seen.waits) / max(0.001, _p95(list(first.waits.values())))
    yield Row("ratio to first come, first served", f"total time {total:.2f}, 95th wait {wait:.2f}", "printed", None)


def _p95(values: list[float]) -> float:
    return sorted(values)[int(0.95 * (len(values) - 1))]
