"""A judge's verdict: asked for in a fixed form, and read, or counted as nonsense."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from dockyard.errors import DockyardError, Forbidden, InvalidRequest, NotFound, Unauthorized
from dockyard.scorers import Item, Means, Options
from dockyard.types import Json

_OBJECT = re.compile(r"\{[^{}]*\}", re.DOTALL)
REASON = 400
"""Characters that a judge may give reasons in."""


class Panel(Options, frozen=True, kw_only=True):
    """Who judges and how. ``judges`` are models of the server, or of the one that ``--judges`` names.

    ``rubric`` says what is good; ``reference`` shows the right answer, where there is one; ``reasons`` lets the judge
    think before it says its verdict; ``samples`` verdicts are asked of each judge, the first greedily.
    """

    judges: Annotated[tuple[str, ...], Meta(min_length=1)]
    rubric: str = ""
    reference: bool = True
    reasons: bool = True
    samples: Annotated[int, Meta(ge=1, le=32)] = 1


LASTING = (NotFound, Unauthorized, Forbidden)
"""What no other item would fare better with: no verdict is missing then, there is no judge."""


class Nonsense(DockyardError):
    """What a judge said is no verdict."""

    status = 502
    code = "upstream_error"


async def verdict(
    means: Means, judge: str, messages: Sequence[Mapping[str, Json]], values: Sequence[Json], panel: Panel, sample: int
) -> Json:
    """One of ``values``. The form is forced by a JSON schema; a server that knows none is trusted to follow the words.

    Raises Nonsense with what was said instead, and what asking raises: LASTING, where there is no such judge.
    """
    properties: dict[str, Any] = {"reason": {"type": "string", "maxLength": REASON}} if panel.reasons else {}
    properties["verdict"] = {"enum": list(values)}
    schema = {"type": "object", "properties": properties, "required": [*properties], "additionalProperties": False}
    form: Json = {"type": "json_schema", "json_schema": {"name": "verdict", "strict": True, "schema": schema}}
    fields: dict[str, Json] = {"max_tokens": 256 if panel.reasons else 24, "seed": sample}
    fields["temperature"] = 0 if sample == 0 else 0.7
    try:
        said = await means.ask(judge, messages, response_format=form, **fields)
    except InvalidRequest as error:
        if error.param is None or "response_format" not in error.param:
            raise
        said = await means.ask(judge, messages, **fields)
    return read(said, values)


def read(said: str, values: Sequence[Json]) -> Json:
    """The verdict in what was said: if that is no JSON, the last object in it that has one. Raises Nonsense."""
    for text in (said, *reversed(_OBJECT.findall(said))):
        try:
            found = msgspec.json.decode(text)
        except msgspec.DecodeError:
            continue
        value = found.get("verdict") if isinstance(found, dict) else None
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if value in values and not isinstance(value, bool):
            return value
    raise Nonsense(f"the judge gave no verdict: {said!r:.200}")


def question(item: Item) -> str:
    """What was asked, as text."""
    if isinstance(item.prompt, str):
        return item.prompt or item.text
    return "\n\n".join(f"{each.get('role', 'user')}: {each.get('content', '')}" for each in item.prompt)


def reference(item: Item, panel: Panel) -> str:
    """A part of the judge's task, or nothing."""
    if not panel.reference or not item.references:
        return ""
    return f"\n\n[Reference answer]\n{item.references[0]}"
