"""A prompt of the library as a request names it: OpenAI's ``prompt`` of Responses, and ours of chats."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from dockyard.errors import UnsupportedParameter
from dockyard.stack import PromptUse
from dockyard.types import Json


class PromptCall(msgspec.Struct, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """``id`` is a prompt's name (empty: that of the route), ``version`` a version or tag of it, ``variables`` what its
    variables stand for."""

    id: Annotated[str, Meta(max_length=512)] = ""
    version: Annotated[str, Meta(max_length=128)] | None = None
    variables: dict[str, Json] | None = None

    def use(self) -> PromptUse:
        """Raises UnsupportedParameter for variables that are no text where OpenAI's clients send parts."""
        found = {name: _plain(name, value) for name, value in (self.variables or {}).items()}
        return PromptUse(name=self.id, version=self.version or "", variables=found)


def _plain(name: str, value: Json) -> Json:
    if not isinstance(value, dict) or not str(value.get("type", "")).startswith("input_"):
        return value
    if value["type"] != "input_text" or not isinstance(value.get("text"), str):
        raise UnsupportedParameter(f"variable {name!r}: only text can stand for it", param=f"prompt.variables.{name}")
    return value["text"]
