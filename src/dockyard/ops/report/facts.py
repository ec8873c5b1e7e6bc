"""What a card and a bill of materials are made of: the artifact, its ancestors, its files and its newest reports."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from dockyard.artifact.lineage import Ancestor, history
from dockyard.artifact.manifest import Artifact, read_artifact
from dockyard.artifact.reference import familiar
from dockyard.ops.report import Report, newest, reports
from dockyard.types import Reference

if TYPE_CHECKING:
    from dockyard.artifact.store import Store

SPDX = {
    each.casefold(): each
    for each in (
        "Apache-2.0", "MIT", "BSD-2-Clause", "BSD-3-Clause", "GPL-2.0-only", "GPL-3.0-only", "LGPL-3.0-only",
        "AGPL-3.0-only", "MPL-2.0", "CC0-1.0", "CC-BY-4.0", "CC-BY-SA-4.0", "CC-BY-NC-4.0", "CC-BY-NC-SA-4.0",
        "CC-BY-NC-ND-4.0", "Unlicense", "ISC", "Artistic-2.0", "BSL-1.0", "EUPL-1.2", "ODbL-1.0", "PDDL-1.0",
    )
}  # fmt: skip
"""Licences of models and data by their SPDX name; what is not here is told by name."""


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """``digest`` and ``name`` are of what was asked for; ``artifact`` of the manifest read, of an index one of its."""

    name: str
    digest: str
    artifact: Artifact
    ancestors: tuple[Ancestor, ...]
    reports: tuple[Report, ...]

    @property
    def licences(self) -> list[str]:
        return [SPDX.get(each.casefold(), each) for each in self.artifact.about.licenses]

    @property
    def title(self) -> str:
        return self.artifact.about.title or self.artifact.about.name or self.name


def gather(store: Store, name: str | Reference) -> Facts:
    """Raises ModelNotFound, and what a damaged artifact or report raises."""
    found = store.resolve(name)
    names = store.names(found.digest)
    return Facts(
        name=familiar(names[0]) if names else found.digest,
        digest=found.digest,
        artifact=read_artifact(store, found.digest),
        ancestors=tuple(each for each in history(store, found.digest) if each.depth),
        reports=tuple(newest(reports(store, found.digest))),
    )
