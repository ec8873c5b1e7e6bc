"""A base whose passages are embedded by ``echo``: syncing and searching it takes milliseconds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dockyard.knowledge.bases import Base
from dockyard.knowledge.model import Search, Source, Synced
from dockyard.knowledge.models import ClientModels
from dockyard.knowledge.retrieve import search
from dockyard.knowledge.sources import choose
from dockyard.knowledge.sync import Options, sync
from dockyard.settings import Settings


class Bench:
    """The base, and the folder that is its first source."""

    def __init__(self, base: Base, models: ClientModels, settings: Settings, folder: Path) -> None:
        self.base = base
        self.models = models
        self.settings = settings
        self.folder = folder

    async def sync(self, **options: Any) -> Synced:
        return await sync(self.base, self.models, self.settings, Options(**options))

    async def paths(self, query: str, **options: Any) -> list[str]:
        found = await search(self.base, self.models, query, Search(mode="words", **options))
        return [hit.document.path for hit in found.hits]

    def source(self, text: str, **fields: Any) -> Source:
        """Add a source as somebody names it."""
        kind, place = choose(text)
        with self.base.ledger() as ledger:
            return ledger.add_source(Source(kind=kind, place=place, **fields))

    def whole(self) -> None:
        """The index and the ledger say the same, and nothing comes twice."""
        with self.base.ledger() as ledger:
            documents, snapshot, place, made = ledger.documents(), ledger.snapshot, ledger.place, ledger.recipe
        store = self.base.vectors(made, place)
        rows = list(store.rows(snapshot, [one.number for one in documents]))
        assert store.count(snapshot) == len(rows) == sum(one.chunks for one in documents)
        assert len({row.id for row in rows}) == len(rows)
        assert len({(one.source, one.path) for one in documents}) == len(documents)
