"""Text that people don't see and models read: control sequences, zero-width and direction characters, tags."""

from __future__ import annotations

import re

_ESCAPES = re.compile(
    "\x1b\\][^\x07\x1b\x9c]{0,4096}(?:\x07|\x1b\\\\|\x9c)?"  # titles, links, the clipboard
    "|\x1b[P^_X][^\x1b\x9c]{0,4096}(?:\x1b\\\\|\x9c)?"
    "|(?:\x1b\\[|\x9b)[0-?]*[ -/]*[@-~]?"  # colours, cursor
    "|\x1b[ -/]*[0-~]?"
)
_CONTROLS = "\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f"
# Soft hyphen, Mongolian and Hangul fillers, zero-width space, embeddings, overrides and isolates, joiners of words,
# the byte order mark, interlinear marks, tags. Joiners, marks of direction and variation selectors have honest uses.
_ZERO = (
    "\u00ad\u034f\u115f\u1160\u17b4\u17b5\u180e\u200b\u2028-\u202e\u2060-\u206f\u3164\ufeff\uffa0"
    "\ufff9-\ufffb\U0001d173-\U0001d17a\U000e0000-\U000e007f"
)
_JOINED = re.compile("(?<![^\x00-\u036f])[\u200c-\u200f]|[\u200c-\u200f](?![^\x00-\u036f])|[\u200c-\u200f]{2,}")
_SELECTORS = re.compile("[\ufe00-\ufe0f\U000e0100-\U000e01ef]{2,}")
_HIDDEN = re.compile(f"[{_CONTROLS}{_ZERO}]")
_FLAG = re.compile("\U0001f3f4[\U000e0030-\U000e0039\U000e0061-\U000e007a]{2,6}\U000e007f")
"""The flags of England, Scotland and Wales are spelled in tags."""

_SEEN = re.compile(f"[{_CONTROLS}{_ZERO}\u200c-\u200f\ufe00-\ufe0e\U000e0100-\U000e01ef\ud800-\udfff]")
_PLAIN = re.compile(f"[{_CONTROLS}]")


def strip(text: str) -> str:
    """The text without what can't be seen. Carriage returns, tabs, new lines and the joiners of scripts and emoji
    stay."""
    if text.isascii():
        if _PLAIN.search(text) is None:
            return text
        return _PLAIN.sub("", _ESCAPES.sub("", text))
    flags = _FLAG.findall(text)
    if flags:
        return strip_between(text)
    clean = _ESCAPES.sub("", text)
    clean = _HIDDEN.sub("", clean)
    return _JOINED.sub("", _SELECTORS.sub("", clean))


def strip_between(text: str) -> str:
    """``strip`` for a text with flags that are spelled in tags: these stay."""
    parts, at = [], 0
    for flag in _FLAG.finditer(text):
        parts += [strip(text[at : flag.start()]), flag[0]]
        at = flag.end()
    return "".join([*parts, strip(text[at:])])


def hides(text: str) -> bool:
    """Whether there is anything that ``strip`` takes away."""
    return strip(text) != text


def visible(text: str) -> str:
    """The text with every character that can't be seen as an escape."""
    return _SEEN.sub(lambda match: match[0].encode("unicode_escape").decode(), text)
