"""Functions that tests offer as tools."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

CALLS = Path(os.environ.get("LOOP_CALLS", os.devnull))


def _note(text: str) -> None:
    with CALLS.open("a") as sink:
        sink.write(text + "\n")


def now(zone: str) -> str:
    """The time in a zone.

    Args:
        zone: such as Europe/Paris
    """
    _note(f"now {zone}")
    return f"noon in {zone}"


def add(a: int, b: int) -> str:
    """The sum of two numbers."""
    _note(f"add {a} {b}")
    return str(a + b)


def save(text: str) -> str:
    """Keep a text."""
    _note(f"save {text}")
    return f"kept {text}"


def drop(name: str) -> str:
    """Remove a kept text."""
    _note(f"drop {name}")
    return f"dropped {name}"


def broken(text: str) -> str:
    """Fails."""
    raise ValueError(f"no such text as {text}")


async def slow(text: str) -> str:
    """Takes an hour."""
    _note(f"slow {text}")
    try:
        await asyncio.sleep(3600)
    except asyncio.CancelledError:
        _note("slow ended")
        raise
    return text


def long(count: int) -> str:
    """A text of so many characters."""
    return "x" * count
