"""Stores, and small files that are models by their headers."""

from __future__ import annotations

from pathlib import Path

import pytest

from dockyard.artifact.store import Store
from dockyard.settings import Settings


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "home" / "store")


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=str(tmp_path / "home"), starter="")
