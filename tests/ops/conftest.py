"""The writers of small model files live with the tests of formats."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from dockyard.artifact.store import Store

sys.path.insert(0, str(Path(__file__).parent.parent / "formats"))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "home" / "store")
