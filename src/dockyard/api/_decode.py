"""JSON bodies into structs, with errors that name the field or the byte that is wrong."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Generic, TypeVar

import msgspec

from dockyard.errors import InvalidRequest, UnsupportedParameter

T = TypeVar("T", bound=msgspec.Struct)

_AT = re.compile(r"^(?P<text>.*?)(?: - at `(?P<path>[^`]*)`)?$", re.DOTALL)
_UNKNOWN = re.compile(r"^Object contains unknown field `(?P<name>.*)`$", re.DOTALL)
_STEP = re.compile(r"[^.\[\]]+|\[[^\]]*\]")
_MISSING = re.compile(r"^Object missing required field `(?P<name>.*)`$", re.DOTALL)


class BodyReader(Generic[T]):
    """Decodes bodies of one struct. With ``passing``, fields it does not know are returned beside it, not refused."""

    def __init__(self, kind: type[T], *, passing: bool = False) -> None:
        self._kind = kind
        self._decode = msgspec.json.Decoder(kind).decode
        self._known = frozenset(field.encode_name for field in msgspec.structs.fields(kind))
        self._passing = passing

    def read(self, body: bytes) -> tuple[T, dict[str, Any]]:
        """The struct, and the unknown fields by name. Raises InvalidRequest."""
        try:
            return self._decode(body), {}
        except msgspec.ValidationError as error:
            if not (self._passing and _UNKNOWN.match(str(error))):
                raise explained(error, self._kind) from None
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise malformed(error, body) from None
        return self._split(body)

    def _split(self, body: bytes) -> tuple[T, dict[str, Any]]:
        try:
            fields = msgspec.json.decode(body, type=dict[str, Any])
            unknown = {name: fields.pop(name) for name in [name for name in fields if name not in self._known]}
            found = msgspec.convert(fields, self._kind)
        except msgspec.ValidationError as error:
            raise explained(error, self._kind) from None
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise malformed(error, body) from None
        return found, {name: value for name, value in unknown.items() if value is not None}


def explained(error: msgspec.ValidationError, kind: Any = None, root: str = "$") -> InvalidRequest:
    """A validation failure as an error that names the field, and the words that it may have where ``kind``, the type
    of the body, has a list of them; ``root`` is the path of the body itself."""
    match = _AT.match(str(error))
    text, path = (match["text"], match["path"] or "") if match else (str(error), "")
    param = path.removeprefix(root).lstrip(".")
    if unknown := _UNKNOWN.match(text):
        name = f"{param}.{unknown['name']}" if param else unknown["name"]
        return UnsupportedParameter(f"there is no field {name!r} here", param=name)
    if missing := _MISSING.match(text):
        name = f"{param}.{missing['name']}" if param else missing["name"]
        return InvalidRequest(f"{name!r} is required", param=name)
    words = _words(msgspec.inspect.type_info(kind), _STEP.findall(param)) if text.startswith("Invalid enum") else []
    hint = f"one of {', '.join(words)}" if words else None
    return InvalidRequest(f"{param or 'body'}: {text[:1].lower()}{text[1:]}", param=param or None, hint=hint)


def _words(info: Any, steps: Sequence[str]) -> list[str]:
    """The words that a type allows at a path of field names and ``[...]``; none where it has no list of them."""
    match info:
        case msgspec.inspect.Metadata(type=inner):
            return _words(inner, steps)
        case msgspec.inspect.UnionType(types=types):
            return [word for one in types for word in _words(one, steps)]
        case msgspec.inspect.LiteralType(values=values) if not steps:
            return [str(value) for value in values]
        case msgspec.inspect.StructType(fields=fields) if steps:
            return [word for one in fields if one.encode_name == steps[0] for word in _words(one.type, steps[1:])]
        case msgspec.inspect.CollectionType(item_type=item) if steps and steps[0][0] == "[":
            return _words(item, steps[1:])
        case msgspec.inspect.DictType(value_type=value) if steps and steps[0][0] == "[":
            return _words(value, steps[1:])
    return []


def malformed(error: Exception, body: bytes) -> InvalidRequest:
    """A body that is no JSON at all, with the position where it stops being so."""
    if not body:
        return InvalidRequest("the body is empty", hint="send a JSON object")
    if isinstance(error, UnicodeDecodeError):
        return InvalidRequest("the body is not UTF-8")
    if isinstance(error, RecursionError):
        return InvalidRequest("the body is nested too deeply")
    text = str(error).removeprefix("JSON is malformed: ")
    if "truncated" in text:
        text = f"it ends too early (byte {len(body)})"
    return InvalidRequest(f"the body is not JSON: {text}")
