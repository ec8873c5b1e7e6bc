"""The names that users may build on: all there, each from one home, none loaded before it is used."""

from __future__ import annotations

import subprocess
import sys

import dockyard


def test_every_public_name_exists() -> None:
    for name in dockyard.__all__:
        assert getattr(dockyard, name) is not None
    assert dir(dockyard) == sorted(dockyard.__all__)


def test_an_unknown_name_is_an_attribute_error() -> None:
    assert not hasattr(dockyard, "Ship")


def test_the_import_loads_nothing_else() -> None:
    code = "import sys, dockyard; print([n for n in sys.modules if n.startswith('dockyard.')])"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "[]"
