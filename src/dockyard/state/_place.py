"""Which home, and which process, a row belongs to, where several servers share one database."""

from __future__ import annotations

import os
import uuid
from functools import cache
from pathlib import Path

import psutil


def place_of(home: Path) -> str:
    """The home's own name, made up once and for good."""
    path = home / "place"
    try:
        return path.read_text().strip()
    except FileNotFoundError:
        pass
    home.mkdir(parents=True, exist_ok=True)
    part = home / f"place.{os.getpid()}.part"
    part.write_text(uuid.uuid4().hex)
    try:
        os.link(part, path)
    except FileExistsError:
        pass  # another process was first
    finally:
        part.unlink()
    return path.read_text().strip()


@cache
def this_run() -> str:
    """This process, so that nobody takes a later one of the same number for it."""
    return _run(os.getpid())


def alive(run: str) -> bool:
    """Whether the process of this machine that ``this_run`` named so still runs."""
    number = run.partition(":")[0]
    try:
        return number.isdigit() and _run(int(number)) == run
    except psutil.Error:
        return False


def _run(number: int) -> str:
    return f"{number}:{psutil.Process(number).create_time():.2f}"
