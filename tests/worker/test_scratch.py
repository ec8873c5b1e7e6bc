"""Temporary files of workers go, however their owners went."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

from dockyard.engines.scratch import PREFIX, Scratch, sweep


def test_what_nobody_holds_is_swept_and_what_is_held_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    held = Scratch()
    left, young, foreign = (tmp_path / name for name in (f"{PREFIX}left", f"{PREFIX}young", "other-left"))
    for folder in (left, young, foreign):
        folder.mkdir()
        (folder / "file").touch()
    for folder in (left, foreign, Path(held.path)):
        os.utime(folder, (0, 0))
    sweep()
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([Path(held.path).name, young.name, foreign.name])
    held.remove()
    held.remove()
    assert not Path(held.path).exists()
