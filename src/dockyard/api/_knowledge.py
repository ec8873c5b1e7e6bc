"""The knowledge bases of one site: opened when somebody first asks for one, by their names or a stack's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from dockyard.api._site import Site
from dockyard.errors import NotFound

if TYPE_CHECKING:
    from dockyard.knowledge.bases import Base, Bases


def bases(site: Site) -> Bases:
    """All of this home."""
    if site.bases is None:
        from dockyard.knowledge.bases import Bases

        site.bases = Bases(site.settings.home_path)
    found: Bases = site.bases
    return found


def bases_of(site: Site, names: Sequence[str]) -> list[Base]:
    """Bases by name, which a stack's own names stand for. Blocks. Raises NotFound with what to do."""
    found = []
    for name in names:
        known = site.stack.knowledge.get(name)
        index = known.index or name if known is not None else name
        try:
            found.append(bases(site).get(index))
        except NotFound as error:
            if known is not None and known.sources:
                sources = " ".join(known.sources)
                error.hint = f"`dockyard knowledge create {index}`, then `dockyard knowledge add {index} {sources}`"
            raise
    return found
