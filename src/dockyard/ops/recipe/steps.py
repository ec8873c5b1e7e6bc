"""A recipe's steps as operations with inputs and parameters; pure but for looking names up in the store."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from dockyard import plugins
from dockyard.artifact.lineage import lineage_of
from dockyard.artifact.manifest import Parent, read_artifact
from dockyard.artifact.store import Store
from dockyard.errors import InvalidRequest, ModelNotFound, NotFound
from dockyard.ops import Inputs, Params, Takes, read_params
from dockyard.ops.data import DataParams, create
from dockyard.ops.evaluate import artifact as suites
from dockyard.ops.recipe import Opened, Step
from dockyard.types import Json


class Task(msgspec.Struct, frozen=True, kw_only=True):
    """One step, understood: the operation, its parameters, and for each of its inputs the words that name them."""

    number: int
    operation: Any
    params: Params
    given: dict[str, tuple[str, ...]]
    label: str | None = None

    @property
    def title(self) -> str:
        return f"{self.number}-{self.operation.name}"


def tasks(opened: Opened) -> list[Task]:
    """Every step of a recipe, checked before anything runs. Raises InvalidRequest that names the step."""
    found: list[Task] = []
    labels: set[str] = set()
    for number, step in enumerate(opened.recipe.steps, 1):
        task = _task(number, step)
        known = {*opened.recipe.data, *labels}
        for role, words in task.given.items():
            takes = _takes(task.operation, role)
            for word in words:
                if word in labels_of(opened) and word not in known:
                    raise InvalidRequest(
                        f"step {number} ({task.operation.name}): {role} names {word!r}, a step that comes later",
                        param=f"steps[{number - 1}].{role}",
                    )
                if takes.kind != "artifact" and word not in known and not _is_name(opened, word):
                    raise InvalidRequest(
                        f"step {number} ({task.operation.name}): {role} names {word!r}, which is neither data of this "
                        "recipe nor a file",
                        param=f"steps[{number - 1}].{role}",
                        hint=f"data here: {', '.join(opened.recipe.data) or 'none'}; of the store: NAME:TAG",
                    )
        if task.label is not None:
            labels.add(task.label)
        found.append(task)
    return found


def exams_of(store: Store, opened: Opened) -> list[str]:
    """The names in the store of the suites that the recipe evaluates with: nothing that is trained on may be in them.

    Raises what reading a suite raises, NotFound for one that is neither a file nor in the store.
    """
    found: list[str] = []
    for number, suite in enumerate(opened.recipe.evaluate, 1):
        path = opened.folder / suite
        if path.exists():
            suite = f"recipes/{opened.recipe.name}:evaluation-{number}"
            suites.pack(store, path, store.named(suite))
        else:
            _check_suite(store, suite)
        found.append(suite)
    return found


def _check_suite(store: Store, name: str) -> None:
    try:
        kind = store.resolve(name).artifact_type
    except ModelNotFound:
        raise NotFound(
            f"there is no suite {name!r}, neither a file beside the recipe nor in the store",
            param="evaluate",
            hint="`dockyard pull` fetches one from a registry",
        ) from None
    if kind != suites.TYPE:
        raise InvalidRequest(f"{name} is no suite", param="evaluate")


def data_of(store: Store, opened: Opened, name: str) -> tuple[list[str | Path], list[str | Path], DataParams]:
    """A data set of the recipe: its sources, what it must not overlap with, and how it is made."""
    told = dict(opened.recipe.data[name])
    sources, against = _words(told.pop("from", None)), _words(told.pop("against", None))
    if not sources:
        raise InvalidRequest(f"data {name!r} does not say what it is from", param=f"data.{name}.from")
    try:
        params: DataParams = read_params(DataParams, told)
    except InvalidRequest as error:
        raise InvalidRequest(f"data {name!r}: {error.message}", param=f"data.{name}") from error
    return (
        [_path(opened, word) for word in sources],
        [*(_path(opened, word) for word in against), *exams_of(store, opened)],
        params,
    )


def inputs_of(
    store: Store, opened: Opened, task: Task, current: str, made: Mapping[str, str], *, settled: bool = True
) -> tuple[Inputs, list[str]]:
    """What a step starts from. ``current`` is the digest of the step before, ``made`` digests by the names of data and
    steps; the second result names those that are not made yet. A model among them is stood for by ``current``, so that
    the cost can be predicted; so is all that is implied, where an earlier step is not made (``settled`` False).

    Raises ModelNotFound for a model that the store does not have.
    """
    artifacts: list[Parent] = []
    files: dict[str, str] = {}
    missing: list[str] = []
    for takes in task.operation.takes:
        words = task.given.get(takes.role, ())
        if takes.role == "evaluation" and not words:
            words = tuple(exams_of(store, opened))
        if not words and (digest := _implied(store, takes, task, current)):
            artifacts.append(_parent(store, digest, takes.role))
        for at, word in enumerate(words):
            path = _path(opened, word)
            if word in made:
                artifacts.append(_parent(store, made[word], takes.role))
            elif takes.kind == "file" and isinstance(path, Path):
                files[f"{takes.role}/{at}{path.suffix}"] = store.add_file(path).digest
            elif takes.kind == "data" and isinstance(path, Path):
                made_of = create(store, [path], against=() if takes.role == "evaluation" else exams_of(store, opened))
                artifacts.append(_parent(store, made_of.entry.descriptor.digest, takes.role))
            elif word in opened.recipe.data or word in labels_of(opened):
                missing.append(word)
                if takes.kind == "artifact":
                    artifacts.append(_parent(store, current, takes.role))
            else:
                artifacts.append(_parent(store, store.resolve(word).digest, takes.role))
        if takes.required and not words and not any(each.role == takes.role for each in artifacts):
            if not settled and takes.kind == "artifact":
                artifacts.append(_parent(store, current, takes.role))
                continue
            raise InvalidRequest(f"step {task.title} needs {takes.role}: {takes.help}", param=takes.role)
    return Inputs(artifacts=tuple(artifacts), files=files), missing


def labels_of(opened: Opened) -> list[str]:
    """The names that the recipe's steps have, in their order."""
    return [str(step["as"]) for step in opened.recipe.steps if "as" in step]


def is_adapter(store: Store, digest: str) -> bool:
    """Whether an artifact is an adapter without weights of its own."""
    artifact = read_artifact(store, digest)
    return bool(artifact.of("adapter")) and not artifact.of("weight")


def base_of(store: Store, digest: str) -> str | None:
    """The base that an artifact's lineage names."""
    return next((each.digest for each in lineage_of(store, digest).parents if each.role == "base"), None)


def _implied(store: Store, takes: Takes, task: Task, current: str) -> str | None:
    """What stands for an input that the step does not name: the step before, and an adapter's base beside it."""
    roles = {each.role for each in task.operation.takes}
    adapter = is_adapter(store, current)
    if adapter and "adapter" in roles:
        return current if takes.role == "adapter" else base_of(store, current) if takes.role == "base" else None
    if adapter and takes.role == "model":
        return base_of(store, current)
    return current if takes.role == "base" else None


def _task(number: int, step: Step) -> Task:
    told = dict(step)
    label = told.pop("as", None)
    where = f"steps[{number - 1}]"
    if len(told) != 1 or not isinstance(label, str | None):
        raise InvalidRequest(f"step {number} must be one operation with its parameters", param=where)
    ((name, values),) = told.items()
    plugin = plugins.find("ops").get(name)
    operation: Any = plugin.load() if plugin is not None else None
    if operation is None or not hasattr(operation, "takes"):
        known = sorted(each for each, found in plugins.find("ops").items() if hasattr(found.load(), "takes"))
        raise InvalidRequest(
            f"step {number}: there is no operation {name!r}", param=where, hint=f"one of {', '.join(known)}"
        )
    if not isinstance(values, dict | None):
        raise InvalidRequest(f"step {number} ({name}): parameters are wanted, as in {{steps: 60}}", param=where)
    roles = {takes.role for takes in operation.takes}
    given = {role: _words(value) for role, value in (values or {}).items() if role in roles}
    try:
        params = read_params(operation.params, {k: v for k, v in (values or {}).items() if k not in roles})
    except InvalidRequest as error:
        raise InvalidRequest(f"step {number} ({name}): {error.message}", param=where, hint=error.hint) from error
    return Task(number=number, operation=operation, params=params, given=given, label=label)


def _takes(operation: Any, role: str) -> Takes:
    found: Takes = next(each for each in operation.takes if each.role == role)
    return found


def _words(value: Json) -> tuple[str, ...]:
    if value is None:
        return ()
    return tuple(map(str, value)) if isinstance(value, list) else (str(value),)


def _path(opened: Opened, word: str) -> str | Path:
    """A file beside the recipe, or the word itself."""
    path = opened.folder / word
    if path.is_file():
        return path
    if word.endswith((".jsonl", ".csv", ".parquet", ".ndjson", ".py")):
        raise NotFound(f"{path}: there is no such file", param=word)
    return word


def _is_name(opened: Opened, word: str) -> bool:
    return isinstance(_path(opened, word), Path) or "/" in word or ":" in word


def _parent(store: Store, digest: str, role: str) -> Parent:
    names = store.names(digest)
    return Parent(digest=digest, role=role, reference=str(names[0]) if names else None)
