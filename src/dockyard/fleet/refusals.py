"""The fleet's refusals in words: what is needed, what there is, and what to do about it."""

from __future__ import annotations

from dockyard.errors import DockyardError, InsufficientMemory, Overloaded, WorkerCrashed
from dockyard.fleet import admission
from dockyard.fleet.machine import Machine, size
from dockyard.fleet.replica import Group, Replica
from dockyard.fleet.schedule import Outlook

SMALLER = "a smaller context (setting `context`), fewer requests at once (`parallel`), or a smaller quantization"


def closing() -> DockyardError:
    return Overloaded("Dockyard is shutting down", hint="try again when it runs", retry_after=5.0)


def too_large(replica: Replica, refusal: admission.Refuse, machine: Machine) -> DockyardError:
    predicted = replica.plan.predicted
    needs = (
        f"{replica.reference} needs {size(refusal.need)} of memory (weights {size(predicted.weights)}, KV cache "
        f"{size(predicted.kv_cache)}, workspace {size(predicted.workspace)}; context {replica.plan.context}, "
        f"{replica.plan.parallel} at once)"
    )
    match refusal.cause:
        case "budget":
            return InsufficientMemory(
                f"{needs}; all models together may take {size(refusal.limit)} ({machine.source})",
                hint=f"try {SMALLER}; or raise `memory_budget` or the container's memory limit",
            )
        case "pinned":
            return InsufficientMemory(
                f"{needs}; pinned models leave {size(refusal.limit)} of {size(machine.budget)}",
                hint=f"unload a pinned model, or try {SMALLER}",
            )
        case _:
            return InsufficientMemory(
                f"{needs}; the machine has {size(refusal.limit)} left for models now, other processes hold the rest",
                hint=f"end other processes, or try {SMALLER}",
                retry_after=30.0,
            )


def too_long(group: Group, waited: float, outlook: Outlook) -> DockyardError:
    reference, place = group.files.reference, f"{outlook.reason} (place {outlook.place})"
    if outlook.loaded:
        return Overloaded(
            f"no slot of {reference} came free within {waited:g} s: {place}",
            hint="try again later; more slots (`parallel`) or a replica on a throughput engine serve more at once",
            retry_after=max(1.0, outlook.estimate),
        )
    return Overloaded(
        f"{reference} was not loaded within {waited:g} s: {place}",
        hint="try again later, unload models that are not needed, or raise `memory_budget`",
        retry_after=max(1.0, outlook.estimate),
    )


def broken(replica: Replica, seconds: float) -> DockyardError:
    """The circuit is open."""
    return WorkerCrashed(
        f"{replica.reference} failed {replica.health.failures} times in a row and is not tried again for "
        f"{seconds:.0f} s; last: {replica.health.last}",
        hint=f"`dockyard logs` shows more; its log is {replica.log_path}",
        retry_after=max(1.0, seconds),
    )
