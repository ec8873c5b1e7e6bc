"""What an operation will cost before it runs: memory, disk and time; and the refusal of what can't fit.

An operation that has ``predict(store, inputs, params) -> Cost`` is checked here by whoever is about to run it, and
``--dry-run`` prints the plan.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from functools import cache
from typing import Any

import msgspec

from dockyard.artifact.store import Store
from dockyard.errors import InsufficientMemory, StoreFull
from dockyard.hardware import Hardware, detect
from dockyard.ops import Inputs, Operation, Params, find, key_of
from dockyard.ops._libraries import library

PROCESS = 900 << 20
"""Bytes that Python with torch, transformers and a runtime takes before a model is opened, as measured here."""
RUNS = 16
"""Times that the machine's speed is measured."""


class Cost(msgspec.Struct, frozen=True, kw_only=True):
    """The most that an operation will hold at once: bytes of memory, bytes on the store's disk, and seconds.

    ``notes`` are sentences for whoever decides.
    """

    memory: int
    disk: int
    seconds: float
    notes: tuple[str, ...] = ()

    @property
    def minutes(self) -> float:
        return self.seconds / 60


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What running an operation would do. ``made`` is the digest of an artifact that is its result already;
    ``refusal`` says why it would not run."""

    operation: str
    version: str
    key: str
    made: str | None = None
    cost: Cost | None = None
    memory_available: int = 0
    disk_available: int = 0
    refusal: str | None = None


def plan(store: Store, operation: Operation[Any], inputs: Inputs, params: Params) -> Plan:
    """Look ahead; nothing is made. Raises what ``predict`` raises for inputs that the operation does not take."""
    key = key_of(operation, inputs, params)
    made = find(store, key)
    machine, free = detect(), shutil.disk_usage(store.root).free
    predict = getattr(operation, "predict", None)
    cost = predict(store, inputs, params) if predict is not None else None
    refusal = None
    if cost is not None and made is None:
        try:
            admit(store, cost, machine, operation.name)
        except (InsufficientMemory, StoreFull) as error:
            refusal = error.message
    return Plan(
        operation=operation.name,
        version=operation.version,
        key=key,
        made=made,
        cost=cost,
        memory_available=machine.memory_available,
        disk_available=free,
        refusal=refusal,
    )


def check(store: Store, operation: Operation[Any], inputs: Inputs, params: Params) -> Cost | None:
    """Raise InsufficientMemory or StoreFull for what can't fit this machine now; the cost, if the operation tells."""
    predict = getattr(operation, "predict", None)
    if predict is None or find(store, key_of(operation, inputs, params)) is not None:
        return None
    cost: Cost = predict(store, inputs, params)
    admit(store, cost, detect(), operation.name)
    return cost


def admit(store: Store, cost: Cost, machine: Hardware, name: str) -> None:
    """Raise InsufficientMemory or StoreFull where the machine has not what it takes."""
    if cost.memory > machine.memory_available:
        raise InsufficientMemory(
            f"{name} would take {_gigabytes(cost.memory)} of memory, of which {_gigabytes(machine.memory_available)} "
            "are free",
            hint="unload models, take a smaller one, or run it on a larger machine",
        )
    store.check_room(cost.disk)


@cache
def flops() -> float:
    """Multiplications and additions a second in float32 on all cores, measured once in about a twentieth of a second,
    or half of one where other processes want the cores too."""
    np = library("numpy")

    left = np.ones((512, 512), np.float32)
    np.matmul(left, left)
    return 2 * 512**3 / fastest(lambda: np.matmul(left, left))


def fastest(work: Callable[[], object], clock: Callable[[], float] = time.perf_counter) -> float:
    """Seconds of the fastest of some runs: at least ``RUNS`` of them, unless that takes half a second, since on a busy
    machine one that waits for its turn is fifty times as long."""
    best, begun, runs = float("inf"), clock(), 0
    while (passed := clock() - begun) < 0.05 or (runs < RUNS and passed < 0.5):
        before = clock()
        work()
        best, runs = min(best, max(clock() - before, 1e-6)), runs + 1
    return best


def forward_seconds(parameters: int, tokens: int) -> float:
    """Time to compute ``tokens`` tokens of a model once: two operations a weight and token, at half of the peak."""
    return 2.0 * parameters * tokens / (0.5 * flops())


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:.1f} GB"
