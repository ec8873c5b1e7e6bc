"""A small model in a store, and keys."""

from __future__ import annotations

from pathlib import Path

import pytest
from proof_shelf import Shelf

from dockyard.artifact.proof import keys
from dockyard.artifact.proof.keys import PrivateKey


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(tmp_path)


@pytest.fixture
def key(tmp_path: Path) -> PrivateKey:
    return keys.make(tmp_path / "release.pem")
