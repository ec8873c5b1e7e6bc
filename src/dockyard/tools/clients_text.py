"""One entry put into a JSON, TOML or YAML text, or taken out, with everything else left as it is written.

Pure. ``put`` does the usual layouts; its caller parses the result and compares it with what was meant.
"""

from __future__ import annotations

import re
import tomllib
from typing import Any

import msgspec

from dockyard.errors import InvalidRequest


def parse(format: str, text: str, where: str) -> dict[str, Any]:
    """The text's table; an empty text is an empty one. Raises InvalidRequest with the line."""
    from dockyard.tools.catalog.reading import document

    if format == "toml":
        try:
            return tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise InvalidRequest(f"{where} is not TOML: {error}", param=where) from error
    bare = re.sub(r"(?m)^\s*(#|//).*$", "", text).strip()
    if not bare:
        return {}
    read = document(text, where)
    if read.twice:
        told = read.twice[0]
        raise InvalidRequest(f"{where}: {told}", param=where)
    if not isinstance(read.value, dict):
        raise InvalidRequest(f"{where} holds no table", param=where)
    return read.value


def put(format: str, text: str, path: tuple[str, ...], value: dict[str, Any] | None) -> str:
    """The text with ``value`` at ``path``, two keys deep; None takes it away."""
    table, key = path
    if format == "json":
        return _json(text, table, key, value)
    return _toml(text, table, key, value) if format == "toml" else _yaml(text, table, key, value)


def without_empty(format: str, text: str, table: str) -> str:
    """The text without a table that nothing is in, not even a comment."""
    if format == "json":
        start = _after_space(text, 0)
        root = _object(text, start) if text[start : start + 1] == "{" else None
        holder = root.member(table) if root is not None else None
        if root is None or holder is None or text[holder.value : holder.end].split() not in (["{}"], ["{", "}"]):
            return text
        return _cut(text, root, holder)
    return re.sub(rf"(?m)^{re.escape(table)}\s*: *\{{\s*\}} *\n?", "", text) if format == "yaml" else text


# JSON, with comments and trailing commas

_SPACE = re.compile(r"(?:\s|//[^\n]*|/\*.*?\*/)*", re.DOTALL)
_STRING = re.compile(r'"(?:[^"\\\n]|\\.)*"')
_PLAIN = re.compile(r"[^\s,:{}\[\]\"/]+")


class _Member(msgspec.Struct, frozen=True):
    """A key and its value in an object: where the key begins, and where the value begins and ends."""

    name: str
    start: int
    value: int
    end: int


class _Object(msgspec.Struct, frozen=True):
    """An object: where it opens and closes, and its members."""

    start: int
    end: int
    members: tuple[_Member, ...]

    def member(self, name: str) -> _Member | None:
        return next((one for one in self.members if one.name == name), None)


def _json(text: str, table: str, key: str, value: dict[str, Any] | None) -> str:
    if not text.strip():
        text = "{}\n"
    start = _after_space(text, 0)
    if text[start : start + 1] != "{":
        return text.rstrip() + "\n{}\n" if value is None else _json("{}\n", table, key, value)
    root = _object(text, start)
    holder = root.member(table)
    if holder is None:
        return text if value is None else _insert(text, root, table, {key: value}, 1)
    if text[holder.value : holder.value + 1] != "{":
        return text
    inner = _object(text, holder.value)
    old = inner.member(key)
    if value is None:
        return text if old is None else _cut(text, inner, old)
    if old is not None:
        return text[: old.value] + _dumped(value, _indent(text, root), 2) + text[old.end :]
    return _insert(text, inner, key, value, 2)


def _after_space(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    return found.end() if found else at


def _object(text: str, start: int) -> _Object:
    members: list[_Member] = []
    at = _after_space(text, start + 1)
    while text[at : at + 1] not in ("}", ""):
        name = _STRING.match(text, at)
        if name is None:
            break
        value = _after_space(text, _after_space(text, name.end()) + 1)
        end = _end(text, value)
        members.append(_Member(str(msgspec.json.decode(name[0])), at, value, end))
        at = _after_space(text, end)
        if text[at : at + 1] == ",":
            at = _after_space(text, at + 1)
    return _Object(start, at, tuple(members))


def _end(text: str, at: int) -> int:
    """Where the value that begins here ends."""
    string = _STRING.match(text, at)
    if string is not None:
        return string.end()
    if text[at : at + 1] not in ("{", "["):
        plain = _PLAIN.match(text, at)
        return plain.end() if plain else at
    depth = 0
    while at < len(text):
        at = _after_space(text, at)
        string = _STRING.match(text, at)
        if string is not None:
            at = string.end()
            continue
        depth += {"{": 1, "[": 1, "}": -1, "]": -1}.get(text[at : at + 1], 0)
        at += 1
        if depth == 0:
            break
    return at


def _indent(text: str, root: _Object) -> str:
    """What one level is indented by."""
    if root.members:
        line = text.rfind("\n", 0, root.members[0].start) + 1
        white = text[line : root.members[0].start]
        if line > root.start and white and not white.strip():
            return white
    return "  "


def _dumped(value: Any, indent: str, level: int) -> str:
    lines = msgspec.json.format(msgspec.json.encode(value), indent=1).decode().split("\n")
    fitted = [indent * (len(line) - len(line.lstrip(" "))) + line.lstrip(" ") for line in lines]
    return ("\n" + indent * level).join(fitted)


def _insert(text: str, into: _Object, key: str, value: Any, level: int) -> str:
    indent = _indent(text, _object(text, _after_space(text, 0)))
    told = f"{msgspec.json.encode(key).decode()}: {_dumped(value, indent, level)}"
    if not into.members:
        body = text[into.start + 1 : into.end].rstrip()
        return f"{text[: into.start + 1]}{body}\n{indent * level}{told}\n{indent * (level - 1)}{text[into.end :]}"
    last = into.members[-1]
    rest = text[last.end :]
    comma = _after_space(text, last.end)
    if text[comma : comma + 1] == ",":
        return f"{text[: comma + 1]}\n{indent * level}{told},{text[comma + 1 :]}"
    return f"{text[: last.end]},\n{indent * level}{told}{rest}"


def _cut(text: str, inner: _Object, old: _Member) -> str:
    """Without a member and its comma; comments stay."""
    line = text.rfind("\n", 0, old.start)
    start = line if line > inner.start and not text[line + 1 : old.start].strip() else old.start
    after, at = _after_comma(text, old.end), inner.members.index(old)
    if after > old.end or at == 0:
        return text[:start] + text[after:]
    comma = _after_space(text, inner.members[at - 1].end)
    return text[:comma] + text[comma + 1 : start] + text[after:]


def _after_comma(text: str, at: int) -> int:
    comma = _after_space(text, at)
    return comma + 1 if text[comma : comma + 1] == "," else at


# TOML


def _toml(text: str, table: str, key: str, value: dict[str, Any] | None) -> str:
    name = key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else msgspec.json.encode(key).decode()
    head = re.compile(rf'^\s*\[\s*{re.escape(table)}\s*\.\s*(?:{re.escape(name)}|"{re.escape(key)}")\s*(?:\.[^\]]*)?\]')
    kept: list[str] = []
    held: list[str] = []
    inside = False
    for line in text.splitlines(keepends=True):
        if re.match(r"^\s*\[", line):
            inside = bool(head.match(line))
        if inside and (not line.strip() or line.lstrip().startswith("#")):
            held.append(line)  # a comment above the next table is that table's
            continue
        if not inside:
            kept += [one for one in held if one.strip()]
            held = []
            kept.append(line)
        else:
            held = []
    found = "".join([*kept, *[one for one in held if one.strip()]])
    if value is None:
        return found if not found.strip() else found.rstrip("\n") + "\n"
    rows = [f"[{table}.{name}]", *(f"{each} = {_toml_value(one)}" for each, one in value.items())]
    before = found.rstrip("\n")
    return (before + "\n\n" if before.strip() else "") + "\n".join(rows) + "\n"


def _toml_value(value: Any) -> str:
    if isinstance(value, dict):
        inner = ", ".join(f"{msgspec.json.encode(key).decode()} = {_toml_value(one)}" for key, one in value.items())
        return f"{{ {inner} }}"
    if isinstance(value, list):
        return f"[{', '.join(_toml_value(one) for one in value)}]"
    # A JSON string is a TOML basic string: both escape the same characters in the same ways, but for DEL.
    return msgspec.json.encode(value).decode().replace("\x7f", "\\u007f")


# YAML


def _yaml(text: str, table: str, key: str, value: dict[str, Any] | None) -> str:
    from dockyard.tools.catalog.reading import dump_yaml

    lines = text.splitlines(keepends=True)
    if lines and not lines[-1].endswith("\n"):
        lines[-1] += "\n"
    top = next((at for at, line in enumerate(lines) if re.match(rf"{re.escape(table)}\s*:", line)), None)
    if top is None:
        return text if value is None else "".join(lines) + dump_yaml({table: {key: value}})
    end = next((at for at in range(top + 1, len(lines)) if re.match(r"[^\s#]", lines[at])), len(lines))
    children = [at for at in range(top + 1, end) if re.match(r"\s+[^\s#]", lines[at])]
    width = len(lines[children[0]]) - len(lines[children[0]].lstrip()) if children else 2
    start = next((at for at in children if re.match(rf"\s{{{width}}}(['\"]?){re.escape(key)}\1\s*:", lines[at])), None)
    empty = re.fullmatch(rf"({re.escape(table)}\s*:)\s*(\{{\s*\}}|null|~)?\s*(#.*)?\n", lines[top])
    if start is not None:
        stop = next((at for at in children if at > start and _depth(lines[at]) <= width), None)
        if stop is None:
            stop = max(at for at in children if at >= start) + 1
        while stop > start + 1 and not lines[stop - 1].lstrip(" \t")[:1].strip("#\n"):
            stop -= 1  # comments above the next key are that key's
        del lines[start:stop]
        children = [at for at in children if at < start or at >= stop]
    if value is None:
        if start is not None and not children and empty:
            lines[top] = re.sub(r":\s*", ": {} ", lines[top], count=1).rstrip(" \n") + "\n"
        return "".join(lines)
    told = "".join(" " * width + line for line in dump_yaml({key: value}).splitlines(keepends=True))
    if empty and not children:
        lines[top] = f"{empty[1]}{' ' + empty[3] if empty[3] else ''}\n"
    lines.insert(top + 1 if start is None else start, told)
    return "".join(lines)


def _depth(line: str) -> int:
    return len(line) - len(line.lstrip())
