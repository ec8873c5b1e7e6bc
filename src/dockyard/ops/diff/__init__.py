"""Two artifacts beside each other: weights, figures with intervals, size, speed, licence. Neither needs to be loaded.

What is not known is said to be unknown: figures come from attached reports, and are compared only where both have been
put to the same suite.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from dockyard.artifact.lineage import history
from dockyard.artifact.manifest import Artifact, read_artifact
from dockyard.artifact.materialize import model_files
from dockyard.artifact.reference import familiar
from dockyard.errors import DockyardError
from dockyard.ops.diff.weights import WeightsDiff, diff_weights
from dockyard.ops.evaluate.compare import Comparison, compare
from dockyard.ops.report import Report, newest, reports
from dockyard.types import Json, Reference

if TYPE_CHECKING:
    from dockyard.artifact.store import Store


class Side(msgspec.Struct, frozen=True, kw_only=True):
    """One of the two, as its manifest and headers say it; ``size`` in bytes. ``licences`` are its own; ``inherited``
    those of its ancestors that are in the store, and that it may be bound by too."""

    name: str
    digest: str
    size: int
    format: str | None
    parameters: str | None
    quantization: str | None
    context: int | None
    licences: tuple[str, ...]
    inherited: tuple[str, ...]
    operation: str | None


class File(msgspec.Struct, frozen=True, kw_only=True):
    """A file that only one of the two has, or that both have with other content. Sizes in bytes."""

    path: str
    first: int | None
    second: int | None


class Speed(msgspec.Struct, frozen=True, kw_only=True):
    """A figure of speed that reports of both have. One number a run: no interval, and so no verdict."""

    what: str
    first: float
    second: float
    relative: float | None


class Diff(msgspec.Struct, frozen=True, kw_only=True):
    """``relation``: "parent", "child", "siblings" (a common ancestor), "same", or "none" that is known."""

    first: Side
    second: Side
    relation: str
    files: tuple[File, ...]
    weights: WeightsDiff
    figures: tuple[Comparison, ...]
    unmatched: tuple[str, ...]
    speed: tuple[Speed, ...]


def diff(
    store: Store,
    first: str | Reference,
    second: str | Reference,
    *,
    weights: bool = True,
    done: Callable[[int, int], None] | None = None,
) -> Diff:
    """The second artifact against the first. ``weights`` False leaves tensors unread. Raises ModelNotFound."""
    one, two = store.resolve(first).digest, store.resolve(second).digest
    a, b = read_artifact(store, one), read_artifact(store, two)
    mine, theirs = newest(reports(store, one)), newest(reports(store, two))
    figures, unmatched = _figures(mine, theirs)
    return Diff(
        first=_side(store, one, a),
        second=_side(store, two, b),
        relation=_relation(store, one, two),
        files=tuple(_files(a, b)),
        weights=_weights(store, one, two, done) if weights else WeightsDiff(why="not asked for"),
        figures=tuple(figures),
        unmatched=tuple(unmatched),
        speed=tuple(_speed(mine, theirs)),
    )


def _side(store: Store, digest: str, artifact: Artifact) -> Side:
    names = store.names(digest)
    ancestors = [read_artifact(store, each.digest) for each in history(store, digest) if each.depth and each.here]
    return Side(
        name=familiar(names[0]) if names else digest[:19],
        digest=digest,
        size=artifact.manifest.size,
        format=artifact.spec.format,
        parameters=artifact.spec.param_size,
        quantization=artifact.spec.quantization or artifact.spec.precision,
        context=artifact.context,
        licences=artifact.about.licenses,
        inherited=tuple(dict.fromkeys(name for each in ancestors for name in each.about.licenses)),
        operation=artifact.lineage.operation if artifact.lineage else None,
    )


def _relation(store: Store, one: str, two: str) -> str:
    if one == two:
        return "same"
    before = {each.digest for each in history(store, one) if each.depth}
    after = {each.digest for each in history(store, two) if each.depth}
    if one in after:
        return "child"
    if two in before:
        return "parent"
    return "siblings" if before & after else "none"


def _files(one: Artifact, two: Artifact) -> list[File]:
    a = {each.path: each.descriptor for each in one.layers}
    b = {each.path: each.descriptor for each in two.layers}
    found = []
    for path in sorted(a.keys() | b.keys()):
        first, second = a.get(path), b.get(path)
        if first is None or second is None or first.digest != second.digest:
            found.append(File(path=path, first=first.size if first else None, second=second.size if second else None))
    return found


def _weights(store: Store, one: str, two: str, done: Callable[[int, int], None] | None) -> WeightsDiff:
    if one == two:
        return WeightsDiff(why="they are one artifact")
    try:
        a, b = (model_files(store, each, only_look=True) for each in (one, two))
        return diff_weights(a, b, done)
    except DockyardError as error:  # an artifact without weights has its other sides
        return WeightsDiff(why=error.message)


def _figures(mine: list[Report], theirs: list[Report]) -> tuple[list[Comparison], list[str]]:
    """Comparisons of the suites that both were put to, and a word on each that only one was."""
    found, unmatched = [], []
    others = {each.run.suite_digest: each for each in theirs}
    for each in mine:
        other = others.pop(each.run.suite_digest, None)
        if other is None:
            unmatched.append(f"{each.run.suite}: only of the first")
            continue
        try:
            found.append(compare(each.run, other.run))
        except DockyardError as error:
            unmatched.append(f"{each.run.suite}: {error.message}")
    return found, [*unmatched, *(f"{each.run.suite}: only of the second" for each in others.values())]


def _speed(mine: list[Report], theirs: list[Report]) -> list[Speed]:
    before, after = _speeds(mine), _speeds(theirs)
    return [
        Speed(
            what=what,
            first=value,
            second=after[what],
            relative=(after[what] - value) / abs(value) if value else None,
        )
        for what, value in before.items()
        if what in after
    ]


def _speeds(found: list[Report]) -> dict[str, float]:
    """Figures of speed by name, the newest report's where several have one."""
    kept: dict[str, float] = {}
    for each in found:
        for name, value in each.run.performance.items():
            if _is_number(value):
                kept.setdefault(name, float(value))
    return kept


def _is_number(value: Json) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
