"""What a tool gave, as the text that a model reads."""

from __future__ import annotations

from typing import Any

import msgspec

from dockyard.errors import DockyardError
from dockyard.tools.model import Outcome
from dockyard.types import Json


def told(outcome: Outcome, most: int) -> str:
    """An outcome in words, cut to ``most`` characters; pictures and sound are named, not shown."""
    parts = [_part(part) for part in outcome.content if isinstance(part, dict)]
    text = "\n".join(part for part in parts if part)
    if not text and outcome.structured is not None:
        text = msgspec.json.encode(outcome.structured).decode()
    return cut(text, most)


def failed(error: DockyardError) -> str:
    """A failure in words, so that the model can do better."""
    hint = f" ({error.hint})" if error.hint else ""
    return f"Error: {error.message}{hint}"


def cut(text: str, most: int) -> str:
    if len(text) <= most:
        return text
    return f"{text[:most]}\n[cut here: {len(text) - most} more characters]"


def _part(part: dict[str, Any]) -> str:
    kind = part.get("type")
    if kind == "text":
        return str(part.get("text") or "")
    if kind in ("image", "audio"):
        return f"[{kind}, {part.get('mimeType') or 'of an unknown type'}, {_size(part.get('data'))} bytes, not shown]"
    if kind == "resource_link":
        return f"[resource {part.get('uri')}: {part.get('name') or ''}]"
    if kind == "resource":
        inner = part.get("resource")
        held = inner if isinstance(inner, dict) else {}
        if isinstance(held.get("text"), str):
            return f"{held.get('uri') or ''}:\n{held['text']}"
        return f"[resource {held.get('uri')}, {held.get('mimeType') or 'of an unknown type'}, not shown]"
    return msgspec.json.encode(part).decode()


def _size(data: Json) -> int:
    return len(data) * 3 // 4 if isinstance(data, str) else 0
