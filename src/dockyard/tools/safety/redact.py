"""Finding known secrets in text, however they are written, and taking them out.

A secret is found as it is, reversed, in base64 (any offset, either alphabet), in hexadecimal, escaped for URLs, JSON or
HTML (up to five layers), and, if it is long enough, in any case and with spaces or punctuation between its characters.
What a server encrypts, compresses or says in its own code can't be found by anybody: for that, tools that send ask.
"""

from __future__ import annotations

import base64
import html
import re
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple
from urllib.parse import quote_plus

import msgspec

from dockyard.tools.secrets import LEAST
from dockyard.types import Json

LEAST_LOOSE = 12
"""Letters and digits that a form needs to be looked for in any case and between punctuation."""
LEAST_LINE = 16
"""Characters of a line of a longer secret that is looked for by itself, such as one of a private key."""
LAYERS = 5

_URL = r"(?:%[0-9A-Fa-f]{2})+"
_JSON = r"(?:\\u[0-9A-Fa-f]{4})+|\\U[0-9A-Fa-f]{8}|(?:\\x[0-9A-Fa-f]{2})+|\\[nrtbf\"'/\\]"
_HTML = r"&(?:#[0-9]{1,7}|#[xX][0-9A-Fa-f]{1,6}|[A-Za-z]{2,8});"
_ESCAPED = (
    ("%\\&", re.compile(f"{_URL}|{_JSON}|{_HTML}")),
    ("%", re.compile(_URL)),
    ("\\", re.compile(_JSON)),
    ("&", re.compile(_HTML)),
)
"""All sorts of escapes at once, and each alone, since a secret may have in it what is an escape of another sort."""

_SIMPLE = {"n": "\n", "r": "\r", "t": "\t", "b": "\b", "f": "\f"}
_NOISE = re.compile(r"[\W_]+")
_ARMOUR = re.compile(r"-----[A-Z ]+-----")


class _Secret(NamedTuple):
    value: str
    name: str
    owners: frozenset[str]
    exact: tuple[str, ...]
    loose: tuple[str, ...]


class Hit(NamedTuple):
    """Where a secret stands in a text, and whose it is."""

    start: int
    end: int
    name: str
    owners: frozenset[str]


class Redactor:
    """Known secrets by value; each belongs to the servers that it was given to."""

    def __init__(self) -> None:
        self._secrets: dict[str, _Secret] = {}

    def know(self, name: str, value: str, owner: str | None = None) -> None:
        """Look for this value from now on. ``owner`` is a server that may be sent it."""
        before = self._secrets.get(value)
        owners = (before.owners if before else frozenset()) | ({owner} if owner else frozenset())
        if before is not None:
            self._secrets[value] = before._replace(owners=owners)
        elif len(value) >= LEAST:
            self._secrets[value] = _Secret(value, name, owners, *_forms(value))

    def find(self, text: str) -> list[Hit]:
        """Every secret in a text, in order; hits of one secret don't overlap."""
        if len(text) < LEAST or not self._secrets:
            return []
        hits = list(self._find(text, None, len(text)))
        for marks, escaped in _ESCAPED:
            view, starts = text, list(range(len(text) + 1)) if any(mark in text for mark in marks) else []
            for _ in range(LAYERS):
                if not any(mark in view for mark in marks):
                    break
                decoded, places = _decode(view, escaped)
                if decoded == view:
                    break
                view, starts = decoded, [starts[at] for at in places]
                hits += self._find(view, starts, len(text))
        return sorted(set(hits))

    def _find(self, view: str, starts: list[int] | None, length: int) -> Iterator[Hit]:
        loose: tuple[str, list[int]] | None = None
        folded = _NOISE.sub("", view).lower()
        for secret in self._secrets.values():
            for form in secret.exact:
                for at in _places(view, form):
                    yield self._hit(secret, at, at + len(form), starts, length)
            for form in secret.loose:
                if form in folded:
                    loose = loose or _fold(view)
                    for at in _places(loose[0], form):
                        yield self._hit(secret, loose[1][at], loose[1][at + len(form) - 1] + 1, starts, length)

    @staticmethod
    def _hit(secret: _Secret, start: int, end: int, starts: list[int] | None, length: int) -> Hit:
        if starts is not None:
            start, end = starts[start], starts[end] if end < len(starts) else length
        return Hit(start, end, secret.name, secret.owners)

    def clean(self, text: str) -> str:
        """The text with ``[secret NAME]`` in place of each secret."""
        hits = self.find(text)
        if not hits:
            return text
        parts, at = [], 0
        for hit in hits:
            if hit.start >= at:
                parts += [text[at : hit.start], f"[secret {hit.name}]"]
            at = max(at, hit.end)
        return "".join([*parts, text[at:]])

    def foreign(self, value: Json, server: str) -> str | None:
        """The name of a secret in a JSON value, keys and numbers too, that is not this server's, if there is one."""
        for text in texts(value):
            for hit in self.find(text):
                if server not in hit.owners:
                    return hit.name
        for name, owners in self._spread(value):
            if server not in owners:
                return name
        return None

    def spread(self, value: Json) -> str | None:
        """The name of a secret that is in no text of the value alone, but in several one after the other."""
        return next((name for name, _ in self._spread(value)), None)

    def _spread(self, value: Json) -> Iterator[tuple[str, frozenset[str]]]:
        if not self._secrets:
            return
        by_key: dict[str, list[str]] = {}
        _gather(value, "", by_key)
        wholes = [_NOISE.sub("", "".join(parts)).lower() for parts in by_key.values() if len(parts) > 1]
        for secret in self._secrets.values():
            if any(form in whole for form in secret.loose for whole in wholes):
                yield secret.name, secret.owners


def _gather(value: Json, key: str, found: dict[str, list[str]]) -> None:
    """Texts and numbers by the key that they stand under, and all of them under no key."""
    if isinstance(value, dict):
        for name, one in value.items():
            _gather(one, name, found)
    elif isinstance(value, list):
        for one in value:
            _gather(one, key, found)
    else:
        for text in texts(value):
            found.setdefault("", []).append(text)
            if key:
                found.setdefault(key, []).append(text)


def texts(value: Json, *, keys: bool = True) -> Iterator[str]:
    """Every text and number of a JSON value, in order."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, bool) or value is None:
        return
    elif isinstance(value, int | float):
        yield str(value)
    elif isinstance(value, dict):
        for key, one in value.items():
            if keys:
                yield key
            yield from texts(one, keys=keys)
    else:
        for one in value:
            yield from texts(one, keys=keys)


def _forms(value: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What to look for: exactly, and with case and punctuation ignored."""
    exact: dict[str, None] = {}
    for text in dict.fromkeys([value, *_lines(value)]):
        exact[text] = exact[text[::-1]] = exact[quote_plus(text)] = None
        body = text.encode("utf-8", "surrogatepass")
        exact[body.hex()] = exact[body.hex().upper()] = None
        exact.update(dict.fromkeys(_base64(body)))
    loose = dict.fromkeys(_NOISE.sub("", form).lower() for form in exact)
    return tuple(exact), tuple(form for form in loose if len(form) >= LEAST_LOOSE)


def _lines(value: str) -> Iterable[str]:
    lines = [line.strip() for line in value.splitlines()] if "\n" in value else []
    return [line for line in lines if len(line) >= LEAST_LINE and not _ARMOUR.search(line)]


def _base64(body: bytes) -> Iterator[str]:
    """The characters that stand for nothing but this body, wherever it begins within three bytes."""
    for offset in range(3):
        text = base64.b64encode(bytes(offset) + body).decode()
        first = -(-offset * 8 // 6)
        core = text[first : (offset + len(body)) * 8 // 6]
        yield core
        yield core.replace("+", "-").replace("/", "_")


def _places(text: str, form: str) -> Iterator[int]:
    at = text.find(form)
    while at >= 0:
        yield at
        at = text.find(form, at + 1)


def _fold(view: str) -> tuple[str, list[int]]:
    """The letters and digits of a text in lower case, and where each stands."""
    chars: list[str] = []
    places: list[int] = []
    for at, char in enumerate(view):
        if _NOISE.match(char) is None:
            small = char.lower()
            chars.append(small)
            places += [at] * len(small)
    return "".join(chars), places


def _decode(view: str, escaped: re.Pattern[str]) -> tuple[str, list[int]]:
    """One layer of escapes taken off, and where each character began."""
    parts: list[str] = []
    places: list[int] = []
    at = 0
    for match in escaped.finditer(view):
        parts.append(view[at : match.start()])
        places += range(at, match.start())
        for text, start in _unescaped(match[0], match.start()):
            parts.append(text)
            places += [start] * len(text)
        at = match.end()
    parts.append(view[at:])
    places += range(at, len(view) + 1)
    return "".join(parts), places


def _unescaped(text: str, at: int) -> Iterator[tuple[str, int]]:
    """The characters of one run of escapes, each with the place of its first."""
    if text[0] == "&":
        yield html.unescape(text), at
    elif text[0] == "%" or text[1] == "x":
        width = 3 if text[0] == "%" else 4
        body = bytes.fromhex(text.replace("%", "").replace("\\x", ""))
        for char in body.decode("utf-8", "surrogateescape"):
            yield char, at
            at += width * len(char.encode("utf-8", "surrogateescape"))
    elif text[1] == "u":
        units = bytes.fromhex(text.replace("\\u", ""))
        for char in units.decode("utf-16-be", "surrogatepass"):
            yield char, at
            at += 12 if ord(char) > 0xFFFF else 6
    elif text[1] == "U":
        number = int(text[2:], 16)
        yield chr(number) if number < 0x110000 else text, at
    else:
        yield _SIMPLE.get(text[1], text[1]), at


def mapped(value: Json, change: Callable[[str], str]) -> Json:
    """A JSON value with every text, keys too, put through ``change``, and numbers where that makes them another."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, dict):
        return {change(key): mapped(one, change) for key, one in value.items()}
    if isinstance(value, list):
        return [mapped(one, change) for one in value]
    if isinstance(value, bool) or not isinstance(value, int | float):
        return value
    text = msgspec.json.encode(value).decode()
    changed = change(text)
    return value if changed == text else changed
