"""Runs an operation by name on artifacts of a store."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dockyard import plugins
from dockyard.artifact.manifest import Parent
from dockyard.artifact.store import Store
from dockyard.ops import Done, Inputs, execute, read_params


def make(
    store: Store,
    verb: str,
    base: str,
    *,
    name: str | None = None,
    calibration: Path | None = None,
    roles: dict[str, str] | None = None,
    **params: Any,
) -> Done:
    operation: Any = plugins.find("ops")[verb].load()
    parents = [Parent(digest=store.resolve(base).digest, role="base")]
    parents += [Parent(digest=store.resolve(each).digest, role=role) for role, each in (roles or {}).items()]
    files = {}
    if calibration is not None:
        files[f"calibration/0{calibration.suffix}"] = store.add_file(calibration).digest
    return execute(
        store,
        operation,
        Inputs(artifacts=tuple(parents), files=files),
        read_params(operation.params, params),
        reference=store.named(name) if name else None,
    )
