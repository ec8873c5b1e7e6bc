"""A recipe planned and run: data, steps, evaluation, gate, name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal

import msgspec

from dockyard.artifact.store import Store
from dockyard.errors import DockyardError, InsufficientMemory
from dockyard.ops import Inputs, execute, find, key_of
from dockyard.ops.data import PLUGIN as DATA
from dockyard.ops.data import create
from dockyard.ops.evaluate.result import Run
from dockyard.ops.gate import Decision, Gate, Given, decide
from dockyard.ops.gate import read as read_gate
from dockyard.ops.planning import Cost, check
from dockyard.ops.planning import plan as plan_one
from dockyard.ops.recipe import Opened
from dockyard.ops.recipe.steps import Task, data_of, inputs_of, tasks
from dockyard.ops.report import attach_report
from dockyard.types import OnProgress, Progress

Evaluator = Callable[[str, str], Run]
"""Puts a suite (a file's path, or a name) to a model (a name in the store), and gives the run."""


class Planned(msgspec.Struct, frozen=True, kw_only=True):
    """One step of a plan. "made" is in the store already; "waits" can't be looked up before an earlier one is made."""

    step: str
    state: Literal["made", "to do", "waits"]
    digest: str | None = None
    cost: Cost | None = None
    refusal: str | None = None


class Made(msgspec.Struct, frozen=True, kw_only=True):
    """One step that is done."""

    step: str
    digest: str
    reused: bool


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a recipe. ``published`` is the name that the last step's artifact got; None if it got none."""

    recipe: str
    steps: tuple[Made, ...]
    digest: str
    decision: Decision | None = None
    published: str | None = None

    @property
    def passed(self) -> bool:
        return self.decision is None or self.decision.passed


def plan(store: Store, opened: Opened) -> list[Planned]:
    """What a run would do, with what it is predicted to cost; nothing is made. Raises InvalidRequest for a recipe that
    can't be run, ModelNotFound for a base that is not in the store."""
    current, known = store.resolve(opened.recipe.base).digest, True
    made: dict[str, str] = {}
    found: list[Planned] = []
    for name in opened.recipe.data:
        digest = _data_made(store, opened, name)
        if digest is not None:
            made[name] = digest
        found.append(Planned(step=f"data {name}", state="made" if digest else "to do", digest=digest))
    for task in tasks(opened):
        inputs, missing = inputs_of(store, opened, task, current, made, settled=known)
        if missing or not known:
            known = False
            found.append(_waiting(store, task, inputs))
            continue
        told = plan_one(store, task.operation, inputs, task.params)
        state: Literal["made", "to do"] = "made" if told.made else "to do"
        found.append(Planned(step=task.title, state=state, digest=told.made, cost=told.cost, refusal=told.refusal))
        if told.made is not None:
            current = told.made
            made |= _labelled(task, current)
        else:
            known = False
    return found


def run(
    store: Store,
    opened: Opened,
    evaluator: Evaluator | None = None,
    *,
    on_progress: OnProgress | None = None,
) -> Result:
    """Do what the recipe says, from wherever an earlier run was stopped.

    Everything is checked before the first step. ``evaluator`` is needed where the recipe evaluates. Each step's
    artifact is named ``recipes/NAME:STEP``; the published name is given on a pass alone. Raises what operations raise.
    """
    recipe, todo = opened.recipe, tasks(opened)
    gate = _gate(opened)
    for each in plan(store, opened):
        if each.refusal:
            raise InsufficientMemory(f"step {each.step}: {each.refusal}")
    current = store.resolve(recipe.base).digest
    made: dict[str, str] = {}
    done: list[Made] = []
    for name in recipe.data:
        sources, against, params = data_of(store, opened, name)
        reference = store.named(f"recipes/{recipe.name}:data-{name}")
        result = create(store, sources, params, against=against, reference=reference, on_progress=on_progress)
        made[name] = result.entry.descriptor.digest
        done.append(Made(step=f"data {name}", digest=made[name], reused=result.reused))
    for task in todo:
        _say(on_progress, f"step {task.title}")
        inputs, _ = inputs_of(store, opened, task, current, made)
        check(store, task.operation, inputs, task.params)
        reference = store.named(f"recipes/{recipe.name}:{task.title}")
        result = execute(store, task.operation, inputs, task.params, reference=reference, on_progress=on_progress)
        current = result.entry.descriptor.digest
        made |= _labelled(task, current)
        done.append(Made(step=task.title, digest=current, reused=result.reused))
    decision = _decided(store, opened, gate, evaluator, todo[-1], current, on_progress)
    published = None
    if recipe.publish is not None and (decision is None or decision.passed):
        store.tag(store.named(recipe.publish), current)
        published = str(store.named(recipe.publish))
    return Result(recipe=opened.digest, steps=tuple(done), digest=current, decision=decision, published=published)


def _waiting(store: Store, task: Task, inputs: Inputs) -> Planned:
    """A step whose inputs are not made yet, with the cost that it would have on what stands for them."""
    try:
        told = plan_one(store, task.operation, inputs, task.params)
    except DockyardError:  # what stands for an input may be of another kind than the input will be
        return Planned(step=task.title, state="waits")
    return Planned(step=task.title, state="waits", cost=told.cost, refusal=told.refusal)


def _decided(
    store: Store,
    opened: Opened,
    gate: tuple[Gate, str | None] | None,
    evaluator: Evaluator | None,
    last: Task,
    digest: str,
    on_progress: OnProgress | None,
) -> Decision | None:
    """Measure the base and what was made of it, attach the reports, and decide."""
    recipe = opened.recipe
    if not recipe.evaluate or evaluator is None:
        return None
    mine, theirs = [], []
    name = f"recipes/{recipe.name}:{last.title}"
    base = store.resolve(recipe.base).digest
    for suite in recipe.evaluate:
        path = opened.folder / suite
        told = str(path) if path.exists() else suite
        _say(on_progress, f"evaluate {suite}")
        mine.append(evaluator(told, name))
        theirs.append(evaluator(told, recipe.base))
    for subject, runs in ((digest, mine), (base, theirs)):
        for each in runs:
            attach_report(store, subject, each, although=True)
    if gate is None:
        return None
    rules, of_rules = gate
    against = base if rules.against == "parent" else None
    given = Given(against=against, runs=tuple(mine), others=tuple(theirs) if against else None)
    return decide(store, digest, rules, digest=of_rules, given=given)


def _gate(opened: Opened) -> tuple[Gate, str | None] | None:
    """The rules, read before anything runs."""
    if isinstance(opened.recipe.gate, Gate):
        return msgspec.structs.replace(opened.recipe.gate, name=opened.recipe.gate.name or opened.recipe.name), None
    if opened.recipe.gate is None:
        return None
    return read_gate(Path(opened.folder / opened.recipe.gate))


def _data_made(store: Store, opened: Opened, name: str) -> str | None:
    """The digest of a data set that was made before from the same files."""
    from dockyard.ops.data import inputs_for

    sources, against, params = data_of(store, opened, name)
    try:
        inputs = inputs_for(store, sources, against)
    except DockyardError:
        return None
    return find(store, key_of(DATA, inputs, params))


def _labelled(task: Task, digest: str) -> dict[str, str]:
    return {task.title: digest, **({task.label: digest} if task.label else {})}


def _say(on_progress: OnProgress | None, sentence: str) -> None:
    if on_progress is not None:
        on_progress(Progress(action="note", message=sentence))
