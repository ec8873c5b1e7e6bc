"""The real image, built and run on a Docker engine of the suite's own."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from .engine import BASE, IMAGE, KNOWING, Engine, context, missing, rootfs, start, stop


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of an engine, not running, that holds both images."""
    why = missing()
    if why:
        pytest.skip(why)
    folder = tmp_path_factory.mktemp("engine")
    base = rootfs()
    engine = start("build", folder)
    try:
        began = time.monotonic()
        engine.docker("import", str(base), BASE)
        source = context(folder / "context")
        words = ("build", "--network", "host", "--build-arg", f"BASE={BASE}")
        engine.docker(*words, "--tag", IMAGE, str(source), timeout=800)
        size, below = (int(engine.docker("image", "inspect", "--format", "{{.Size}}", each)) for each in (IMAGE, BASE))
        took = time.monotonic() - began
        print(f"\nimage: {size >> 20} MiB, {below >> 20} MiB of them the base; built in {took:.0f} s")
        more = ("--build-arg", "EXTRAS=knowledge,encoder", "--tag", KNOWING)
        engine.docker(*words, *more, str(source), timeout=800)
    finally:
        stop(folder)
    yield folder
    shutil.rmtree(folder / "data", ignore_errors=True)


@pytest.fixture(scope="session")
def engine(images: Path) -> Iterator[Engine]:
    """An engine with networks and published ports that has the image."""
    running = start("run", images)
    try:
        yield running
    finally:
        stop(images)
