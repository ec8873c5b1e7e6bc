"""A store of its own for each test."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from artifact_samples import Keep, package_into

from dockyard.artifact.store import Store
from dockyard.types import Descriptor


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "home" / "store")


@pytest.fixture
def keep(store: Store) -> Keep:
    """Package files given as ``{path: bytes}`` as a ModelPack in the store, under a name if one is given."""

    def package(files: dict[str, bytes], name: str | None = None, **options: Any) -> Descriptor:
        return package_into(store, files, name, **options)

    return package
