"""JSON: whether the answer is valid, and whether it keeps a JSON Schema."""

from __future__ import annotations

import re
from typing import Any, ClassVar

import msgspec

from dockyard.errors import EngineUnavailable, InvalidRequest
from dockyard.scorers import Answer, Item, Mean, Means, Metric, Need, Options, Score
from dockyard.types import Json

_FENCE = re.compile(r"```(?:json)?\s*\n(.*?)```", re.S)


class JsonOptions(Options, frozen=True):
    """``schema``: what it must keep (draft 2020-12). ``fenced``: a fenced block in the answer counts as the answer."""

    schema: dict[str, Json] | None = None
    fenced: bool = False


class JsonAnswer(Mean):
    """1 or 0 for each; an answer that is no JSON keeps no schema."""

    name: ClassVar[str] = "json-answer"
    options = JsonOptions
    needs: frozenset[Need] = frozenset({"text"})

    def __init__(self, options: JsonOptions, means: Means) -> None:  # noqa: ARG002 - the protocol's
        self._fenced = options.fenced
        self._validator = _validator(options.schema) if options.schema is not None else None
        self.metrics: tuple[Metric, ...] = (Metric(name="json_valid", kind="proportion"),)
        if self._validator is not None:
            self.metrics += (Metric(name="json_schema", kind="proportion"),)

    async def score(self, item: Item, answer: Answer) -> Score:  # noqa: ARG002 - the protocol's
        text = answer.text
        if self._fenced and (found := _FENCE.search(text)):
            text = found.group(1)
        values: dict[str, tuple[float, ...]] = {"json_valid": (1.0,)}
        note = ""
        value: Json = None
        try:
            value = msgspec.json.decode(text)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            values, note = {"json_valid": (0.0,)}, str(error)
        if self._validator is not None:
            wrong = None if note else next(iter(self._validator.iter_errors(value)), None)
            values["json_schema"] = (float(not note and wrong is None),)
            note = note or (f"{wrong.json_path}: {wrong.message}" if wrong is not None else "")
        return Score(values=values, note=note)


def _validator(schema: dict[str, Json]) -> Any:
    try:
        from jsonschema import Draft202012Validator, SchemaError
    except ImportError:
        raise EngineUnavailable(
            "a JSON Schema needs jsonschema, which is not installed", hint="pip install 'dockyard[evaluate]'"
        ) from None
    try:
        Draft202012Validator.check_schema(schema)
    except SchemaError as error:
        raise InvalidRequest(f"scorer 'json-answer': the schema is none: {error.message}", param="schema") from error
    return Draft202012Validator(schema)


PLUGIN = JsonAnswer
