"""Whether what a server said has the shape that the protocol gives it; names the field, never shows its content."""

from __future__ import annotations

from functools import cache
from typing import Any, get_args

from mcp_types import methods
from mcp_types.version import LATEST_MODERN_VERSION
from pydantic import BaseModel, TypeAdapter, ValidationError

from dockyard.types import Json

CACHE: dict[str, Json] = {"ttlMs": 0, "cacheScope": "private", "resultType": "complete"}
UNFINISHED = "InputRequiredResult"
_DONE: dict[str, Json] = {"resultType": "complete"}


def flaw(method: str, result: dict[str, Json], version: str = LATEST_MODERN_VERSION) -> str | None:
    """What is wrong with a result, as in ``content.0.text: Field required``, or None."""
    whole = {**(CACHE if method in methods.CACHEABLE_METHODS else _DONE), **result}
    surface = methods.SERVER_RESULTS.get((method, version))
    if surface is None:
        return None
    # Nearly everything fits the shape of "input_required", so what is not called that must fit the other.
    unfinished = result.get("resultType") == "input_required"
    kinds = [kind for kind in get_args(surface) or (surface,) if (kind.__name__ == UNFINISHED) == unfinished]
    if not kinds:
        return "resultType: this is no request that can ask for more input"
    try:
        _validator(kinds[0]).validate_python(whole, by_name=False)
    except ValidationError as error:
        return _first(error)
    except RecursionError:
        return "nested too deep"
    return None


@cache
def _validator(kind: type[BaseModel]) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def flaw_of_item(method: str, key: str, item: dict[str, Json]) -> str | None:
    """What is wrong with one item of a list result, or None."""
    return flaw(method, {key: [item]})


def _first(error: ValidationError) -> str:
    # A union reports every member that did not match; the deepest complaint says most.
    found: Any = max(error.errors(include_input=False, include_url=False), key=lambda one: len(one["loc"]))
    place = ".".join(str(part) for part in found["loc"] if not (isinstance(part, str) and "[" in part))
    return f"{place}: {found['msg']}"[:300]
