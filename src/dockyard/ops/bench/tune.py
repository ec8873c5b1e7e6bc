"""Which way to load a model is best on this machine: one knob after another, each trial measured, the choice explained.

A full grid would take hours. The search goes knob by knob: every value of one is tried on top of the best so far, and
the best is kept. What is best is decided at ``streams`` streams: the most tokens a second among those trials that keep
the objective, or, where none does, the trial that comes nearest to it.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence

import msgspec

from dockyard.ops.bench.figures import Figures, Objective
from dockyard.types import LoadOptions


class Knob(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that can be chosen: ``values`` maps what to call a choice to the options that it sets."""

    name: str
    values: dict[str, LoadOptions]


class Trial(msgspec.Struct, frozen=True, kw_only=True):
    """One way to load the model and what it came to: alone, with ``streams`` streams, and in bytes of memory.

    ``error`` says why it could not be measured.
    """

    label: str
    options: LoadOptions
    one: Figures | None = None
    many: Figures | None = None
    memory: int = 0
    error: str = ""


class Tuned(msgspec.Struct, frozen=True, kw_only=True):
    """All trials, the best of them, those of the Pareto front (throughput against time a token), and the objective."""

    trials: tuple[Trial, ...]
    best: Trial
    front: tuple[Trial, ...]
    objective: Objective
    kept: bool
    seconds: float


Stage = Callable[[LoadOptions], Sequence[Knob]]
"""From the best options so far to the knobs to turn next."""
Measure = Callable[[LoadOptions], Awaitable[tuple[Figures, Figures, int]]]
"""Loads the model so and measures it: alone, with many streams, and its bytes of memory."""


async def tune(
    stages: Sequence[Stage],
    measure: Measure,
    objective: Objective,
    *,
    seconds: float = 600.0,
    on_trial: Callable[[Trial], None] | None = None,
) -> Tuned:
    """Search for up to ``seconds``; the trial under way then is finished. The first trial changes nothing.

    ``measure`` may raise: such a trial is recorded with its error and not chosen. Raises what the first one raised.
    """
    begun = time.monotonic()
    trials = [await _try("as it is", LoadOptions(), measure)]
    if on_trial is not None:
        on_trial(trials[0])
    best = trials[0]
    for stage in stages:
        for knob in stage(best.options):
            for label, options in knob.values.items():
                wanted = merged(best.options, options)
                late = time.monotonic() - begun > seconds
                if late or any(trial.options == wanted for trial in trials):
                    continue
                trial = await _try(f"{knob.name} {label}", wanted, measure)
                trials.append(trial)
                if on_trial is not None:
                    on_trial(trial)
            best = choose(trials, objective)
    return Tuned(
        trials=tuple(trials),
        best=best,
        front=tuple(front(trials)),
        objective=objective,
        kept=keeps(best, objective),
        seconds=time.monotonic() - begun,
    )


async def _try(label: str, options: LoadOptions, measure: Measure) -> Trial:
    try:
        one, many, memory = await measure(options)
    except Exception as error:  # noqa: BLE001 - a choice that can't be loaded is a row of the table, not the end
        return Trial(label=label, options=options, error=str(error))
    return Trial(label=label, options=options, one=one, many=many, memory=memory)


def merged(first: LoadOptions, second: LoadOptions) -> LoadOptions:
    """``first`` with what ``second`` sets; flags are merged, and those of another engine are dropped."""
    set_ = {name: getattr(second, name) for name in second.__struct_fields__ if name != "flags"}
    default = LoadOptions()
    changes = {name: value for name, value in set_.items() if value != getattr(default, name)}
    moved = ("engine" in changes and changes["engine"] != first.engine) or "replicas" in changes
    flags = {**({} if moved else first.flags), **second.flags}
    return msgspec.structs.replace(first, **changes, flags=flags)


def keeps(trial: Trial, objective: Objective) -> bool:
    return (
        trial.many is not None
        and not trial.many.failed
        and trial.many.ttft_p95 <= objective.ttft
        and trial.many.tpot_p95 <= objective.tpot
    )


def choose(trials: Sequence[Trial], objective: Objective) -> Trial:
    """The best trial; the first of equals. Where nothing could be measured, the first."""
    measured = [trial for trial in trials if trial.many is not None and not trial.many.failed]
    if not measured:
        return trials[0]
    good = [trial for trial in measured if keeps(trial, objective)]
    if good:
        return max(good, key=_throughput)
    return min(measured, key=lambda trial: _excess(trial, objective))


def front(trials: Sequence[Trial]) -> list[Trial]:
    """The trials that no other beats both in throughput and in time a token, fastest first."""
    measured = sorted((t for t in trials if t.many is not None), key=lambda t: (-_throughput(t), _tpot(t)))
    found: list[Trial] = []
    for trial in measured:
        if not found or _tpot(trial) < _tpot(found[-1]):
            found.append(trial)
    return found


def _throughput(trial: Trial) -> float:
    return trial.many.throughput if trial.many is not None else 0.0


def _tpot(trial: Trial) -> float:
    return trial.many.tpot_p95 if trial.many is not None else float("inf")


def _excess(trial: Trial, objective: Objective) -> float:
    assert trial.many is not None
    return max(trial.many.ttft_p95 / objective.ttft, trial.many.tpot_p95 / objective.tpot)
