"""A store with the real encoders and the starter model, made once, and homes that share it."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from knowledge_bench import Bench, ByRule, Desk
from knowledge_samples import documents_in

sys.path.insert(0, str(Path(__file__).parent.parent / "api"))


@pytest.fixture(scope="session")
def knowledge_store(encoders: Path, starter_gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home whose store holds ``bge-small-en``, ``reranker-en`` and ``smollm2``."""
    pytest.importorskip("lancedb", reason="the extra `knowledge` is not installed")
    pytest.importorskip("onnxruntime", reason="the extra `encoder` is not installed")
    from dockyard.artifact.reference import parse
    from dockyard.artifact.store import Store
    from dockyard.ops.pack import Sources, package

    home = tmp_path_factory.mktemp("knowledge")
    store = Store(home / "store")
    for folder, name in (("bge_small_en", "ai/bge-small-en:latest"), ("reranker_en", "ai/reranker-en:latest")):
        package(store, Sources(weights=(encoders / folder,)), reference=parse(name), link=True)
    package(store, Sources(weights=(starter_gguf,)), reference=parse("ai/smollm2:latest"), link=True)
    return home


@pytest.fixture
def documents(tmp_path: Path) -> Path:
    """A folder of three documents, one of which only ``mira`` may read."""
    return documents_in(tmp_path / "docs")


@pytest.fixture
async def bench(tmp_path: Path, documents: Path) -> AsyncIterator[Bench]:
    """A base of the folder of documents, not yet synced."""
    pytest.importorskip("lancedb", reason="the extra `knowledge` is not installed")
    from dockyard.api import create_app
    from dockyard.client import AsyncClient
    from dockyard.knowledge.bases import Bases
    from dockyard.knowledge.making import Wishes, recipe
    from dockyard.knowledge.model import Source
    from dockyard.knowledge.models import ClientModels
    from dockyard.settings import Settings

    settings = Settings(home=str(tmp_path / "home"), log_level="error", tools_private=("127.0.0.1",))
    async with AsyncClient(app=create_app(settings, trusted=True)) as client:
        models = ClientModels(client)
        bases = Bases(settings.home_path)
        base = bases.create(await recipe(Wishes(name="harbour", embedder="echo", reranker="none"), models, None))
        with base.ledger() as ledger:
            ledger.add_source(Source(kind="file", place=str(documents)))
        yield Bench(base, models, settings, documents)
        bases.close()


@pytest.fixture
async def desk(tmp_path: Path, documents: Path) -> AsyncIterator[Desk]:
    """The same with a reranker that goes by words, synced."""
    pytest.importorskip("lancedb", reason="the extra `knowledge` is not installed")
    from dockyard.api import create_app
    from dockyard.client import AsyncClient
    from dockyard.knowledge.bases import Bases
    from dockyard.knowledge.making import Wishes, recipe
    from dockyard.knowledge.model import Source
    from dockyard.knowledge.sync import sync
    from dockyard.settings import Settings

    settings = Settings(home=str(tmp_path / "home"), log_level="error")
    async with AsyncClient(app=create_app(settings, trusted=True)) as client:
        models, bases = ByRule(client), Bases(settings.home_path)
        base = bases.create(await recipe(Wishes(name="harbour", embedder="echo", reranker="judge"), models, None))
        with base.ledger() as ledger:
            ledger.add_source(Source(kind="file", place=str(documents)))
        await sync(base, models, settings)
        yield Desk(base, models)
        bases.close()
