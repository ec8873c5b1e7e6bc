"""Where sentences end, well enough to cut and to cite: by rule, for languages that end them with a mark."""

from __future__ import annotations

import re

_ABBREVIATIONS = frozenset(
    {
        "dr", "mr", "mrs", "ms", "prof", "st", "jr", "sr", "vs", "etc", "e.g", "i.e", "cf", "fig", "figs", "no",
        "nos", "vol", "ed", "eds", "al", "approx", "dept", "est", "inc", "ltd", "co", "corp", "ca", "art",
        "sec", "ch", "pp", "bzw", "z.b", "d.h", "usw"
    }
)  # fmt: skip
_END = re.compile(r"(?:[.!?…]+[\"'”’)\]]*(?=\s|$)|[。！？]+[」』”]*|\n[ \t]*\n|\n(?=[-*•|#>] ?|\d+[.)] ))")
_BEFORE = re.compile(r"(?:^|[\s(\[])((?:[A-Za-z]\.)*[A-Za-z]+)$")


def sentences(text: str, start: int = 0, end: int | None = None) -> list[tuple[int, int]]:
    """Spans of sentences between ``start`` and ``end``; blanks around them belong to none."""
    end = len(text) if end is None else end
    found: list[tuple[int, int]] = []
    begin = start
    for match in _END.finditer(text, start, end):
        if _open(text, match, end):
            continue
        _keep(found, text, begin, match.end())
        begin = match.end()
    _keep(found, text, begin, end)
    return found


def _open(text: str, match: re.Match[str], end: int) -> bool:
    """Whether the mark ends no sentence: an abbreviation, an initial, a number in a list, or a small letter follows."""
    if match[0][0] != ".":
        return False
    after = text[match.end() : min(end, match.end() + 40)].lstrip()
    if after[:1].islower():
        return True
    before = _BEFORE.search(text[max(0, match.start() - 12) : match.start()])
    if before is None:
        return text[match.start() - 1 : match.start()].isdigit() and text[: match.start()].rpartition("\n")[2].isdigit()
    word = before[1]
    return word.lower() in _ABBREVIATIONS or (len(word) == 1 and word.isupper())


def _keep(found: list[tuple[int, int]], text: str, begin: int, end: int) -> None:
    piece = text[begin:end]
    left = len(piece) - len(piece.lstrip())
    right = len(piece.rstrip())
    if right > left:
        found.append((begin + left, begin + right))
