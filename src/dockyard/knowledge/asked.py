"""What a question asks apart from what it names, and whether a sentence has words for it. Pure functions."""

from __future__ import annotations

import math
import operator
import re
import struct
from collections.abc import Iterable, Sequence

from dockyard.knowledge.claims import STOP, WORD, names, words

Vector = tuple[float, ...]
_GONE = "\0"
_LED = re.compile(rf"(?i:(?:^|\s+)(?:of|in|at|from|to|for|with|by|on))+(?:\s+{_GONE})+")
"""A name with the prepositions that lead to it."""
_LED_LAST = re.compile(rf"{_LED.pattern}(?=\s*(?:[?.!,]|$)|\s+(?:{'|'.join(STOP)})\b)")
"""The same where no noun of its own comes after."""


def without_names(question: str) -> str:
    """The question without its names, so that a sentence that says what is asked is seen to say it; as it is where
    names are most of it, as nouns are in German."""
    return _kept(question, _marked(question))


def unnamed(question: str) -> str:
    """The question without its names, as somebody asks who stands in front of the thing."""
    return _kept(question, _LED_LAST.sub("", _marked(question)))


def without_names_of(question: str, sentence: str) -> str:
    """A sentence without the names that the question has too; as it is where the question is left as it is."""
    if without_names(question) == question:
        return sentence
    named = names(question)
    marked = WORD.sub(lambda match: _GONE if _is_name(match[0], named) else match[0], sentence)
    return _kept(sentence, _LED.sub("", marked))


def _marked(question: str) -> str:
    named = names(question)
    return WORD.sub(lambda match: _GONE if match.start() and _is_name(match[0], named) else match[0], question)


def _kept(text: str, marked: str) -> str:
    kept = re.sub(r"\s+([?.!,])", r"\1", " ".join(marked.replace(_GONE, "").split())).lstrip(" ,")
    return kept if 2 * len(words(kept)) >= len(words(text)) else text


def _is_name(word: str, named: set[str]) -> bool:
    found = set(words(word))
    return word[:1].isupper() and bool(found) and found <= named


def content(text: str) -> list[str]:
    """Words that say something, as they stand, each once."""
    return list(dict.fromkeys(match[0] for match in WORD.finditer(text) if match[0].lower() not in STOP))


def asked_words(question: str, heading: str) -> list[str]:
    """The words of a question that a sentence has to answer to: neither names nor what the heading says already."""
    named, above = names(question), set(words(heading))
    found = [one for one in content(question) if not set(words(one)) <= named]
    return [one for one in found if not set(words(one)) <= above] or found


def unit(vector: bytes) -> Vector:
    """Little-endian float32 as numbers, of length 1."""
    found = struct.unpack(f"<{len(vector) // 4}f", vector)
    length = math.sqrt(sum(map(operator.mul, found, found))) or 1.0
    return tuple(one / length for one in found)


def cover(wanted: Sequence[Vector], held: Iterable[Vector]) -> float:
    """How near the words of a sentence come to those that are asked for: for each of these the nearest of those, and
    the mean of their cosines; 0 where there are no words."""
    some = list(held)
    if not wanted or not some:
        return 0.0
    best = [max(sum(map(operator.mul, one, other)) for other in some) for one in wanted]
    return float(sum(best)) / len(wanted)
