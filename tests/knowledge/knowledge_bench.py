"""A base whose passages are embedded by ``echo``: syncing and searching it takes milliseconds."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from pathlib import Path
from typing import Any

from dockyard.client import AsyncClient
from dockyard.errors import EngineError
from dockyard.knowledge.bases import Base
from dockyard.knowledge.claims import words
from dockyard.knowledge.model import Search, Source, Synced
from dockyard.knowledge.models import ClientModels
from dockyard.knowledge.retrieve import search
from dockyard.knowledge.sources import choose
from dockyard.knowledge.sync import Options, sync
from dockyard.settings import Settings
from dockyard.types import Json, Message


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


class ByRule(ClientModels):
    """Embeds by ``echo``, ranks by the share of the query's words, and writes ``said``; None: it fails.

    As a judge it says Yes to sentences that hold ``answers``, else No; ``judged`` are those that it was asked about."""

    said: str | None = ""
    answers = ""

    def __init__(self, client: AsyncClient) -> None:
        super().__init__(client)
        self.judged: list[str] = []

    async def rank(self, model: str, query: str, texts: Sequence[str]) -> list[float]:
        assert model == "judge"
        wanted = set(words(query))
        return [20.0 * len(wanted & set(words(text))) / len(wanted) - 10.0 for text in texts]

    async def write(self, model: str, messages: Sequence[Message], **fields: Json) -> AsyncGenerator[str, None]:
        self.asked = (model, messages, fields)
        if self.said is None:
            raise EngineError("the writer is not there")
        yield self.said

    async def first(self, model: str, messages: Sequence[Message], count: int) -> dict[str, float]:
        assert model == "strict"
        _, sentence, _ = str(messages[-1].content).split("\n")
        self.judged.append(sentence.removeprefix("Sentence: "))
        return {"Yes": 0.0, "No": -20.0} if self.answers in sentence else {"No": 0.0, "Yes": -20.0}


class Desk:
    """A base of the harbour's documents, and who answers."""

    def __init__(self, base: Base, models: ByRule) -> None:
        self.base = base
        self.models = models
