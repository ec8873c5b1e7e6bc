"""Functions that tests offer as tools."""

from __future__ import annotations

import asyncio
from typing import Annotated, Literal

import msgspec


class Place(msgspec.Struct):
    city: str
    country: str = "NO"


def add(left: int, right: int = 1) -> int:
    """Add two numbers.

    Args:
        left: the first of them
        right (int): the second of them
    """
    return left + right


async def weather(
    place: Place, unit: Literal["C", "F"] = "C", days: Annotated[int, msgspec.Meta(ge=1, le=7)] = 1
) -> dict[str, object]:
    """The weather at a place."""
    await asyncio.sleep(0)
    return {"city": place.city, "unit": unit, "days": days}


def fails(reason: str) -> str:
    raise LookupError(reason)


def anything(*values: int) -> int:
    return sum(values)
