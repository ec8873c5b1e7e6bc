"""Where runs lie: ``<home>/evaluations/<id>.json``, each whole; those under way are journals beside them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from dockyard.errors import InvalidRequest, NotFound
from dockyard.ops.evaluate.result import Run, read

FOLDER = "evaluations"


def place(home: Path, identity: str) -> Path:
    """A run's file."""
    return home / FOLDER / f"{identity}.json"


def journal_of(home: Path, identity: str) -> Path:
    """The journal of a run that is under way."""
    return home / FOLDER / f"{identity}.journal"


def runs(home: Path) -> list[Run]:
    """All finished runs, the newest first. Files that are none are passed over."""
    found = []
    for path in sorted((home / FOLDER).glob("*.json")):
        try:
            found.append(read(path))
        except (InvalidRequest, NotFound):
            continue
    return sorted(found, key=lambda run: run.began, reverse=True)


def under_way(home: Path) -> list[str]:
    """The ids of runs that have begun and not ended."""
    return sorted(path.stem for path in (home / FOLDER).glob("*.journal"))


def find(home: Path, name: str) -> Run:
    """The run with this id, the beginning of one, or in this file. Raises NotFound, InvalidRequest."""
    if name.endswith(".json") or "/" in name:
        return read(Path(name))
    found = sorted((home / FOLDER).glob(f"{name}*.json")) if name and name.isalnum() else []
    if len(found) > 1:
        raise InvalidRequest(
            f"{len(found)} runs begin with {name!r}", param=name, hint=", ".join(path.stem for path in found[:8])
        )
    if not found:
        raise NotFound(f"there is no run {name!r}", param=name, hint="`dockyard eval ls` lists them")
    return read(found[0])


def of_parent(run: Run, others: Sequence[Run]) -> Run | None:
    """The newest run of the same suite on a model that this one's was made from."""
    for other in others:
        same = (other.suite_digest, other.data_digest) == (run.suite_digest, run.data_digest)
        if same and other.subject.digest is not None and other.subject.digest in run.subject.parents:
            return other
    return None
