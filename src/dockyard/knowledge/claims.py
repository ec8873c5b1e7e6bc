"""Whether a passage carries a claim, and where: every citation is checked against the text that it cites.

A claim is carried by the sentences of a passage that hold its words. Words count by how rare they are among the
passages; numbers and names count as such: a claim with a number or a name that is not in the text is not carried,
however many other words are. This is strict on purpose: a true claim in quite other words is dropped, a false one that
changes a figure is not let through.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence

import msgspec

from dockyard.knowledge.chunkers._sentences import sentences
from dockyard.knowledge.model import Hit

CARRIED = 0.6
"""Least share of a claim's weight that the quoted sentences must hold."""
WINDOW = 3
"""Sentences that may carry a claim together."""
WORD = re.compile(r"[^\W_]+(?:['’.,:/-][^\W_]+)*", re.UNICODE)
_NUMBER = re.compile(r"\d")
_MARK = re.compile(r"\s*\[\d+(?:\s*,\s*\d+)*\]")
STOP = frozenset(
    {
        "a", "an", "and", "are", "as", "at", "be", "been", "but", "by", "can", "could", "did", "do", "does",
        "for", "from", "had", "has", "have", "he", "her", "his", "how", "i", "if", "in", "into", "is", "it",
        "its", "may", "more", "most", "no", "not", "of", "on", "or", "our", "she", "should", "so", "such",
        "than", "that", "the", "their", "them", "then", "there", "these", "they", "this", "to", "was", "we",
        "were", "what", "when", "where", "which", "who", "will", "with", "would", "you", "your", "all", "also",
        "any", "about", "after", "before", "between", "both", "each", "only", "other", "over", "same", "some",
        "under", "very", "yes", "please", "according", "passage", "passages", "document", "documents", "based",
        "provided", "answer", "question", "text"
    }
)  # fmt: skip
_SUFFIXES = (
    "ations",
    "ation",
    "ingly",
    "edly",
    "ments",
    "ment",
    "ness",
    "ings",
    "ing",
    "ied",
    "ies",
    "ed",
    "es",
    "ly",
    "s",
)
_NUMBERS = {
    "zero": "0", "one": "1", "two": "2", "three": "3", "four": "4", "five": "5", "six": "6", "seven": "7",
    "eight": "8", "nine": "9", "ten": "10", "eleven": "11", "twelve": "12", "thirteen": "13", "fourteen": "14",
    "fifteen": "15", "sixteen": "16", "seventeen": "17", "eighteen": "18", "nineteen": "19", "twenty": "20",
}  # fmt: skip


class Support(msgspec.Struct, frozen=True):
    """A hit that carries a claim: its place among the hits, the span in the document, and how much of the claim."""

    hit: int
    start: int
    end: int
    share: float


def claims_of(text: str) -> list[tuple[int, int, str]]:
    """The sentences of an answer with their spans, without marks of citations; what has no words is none."""
    found = []
    for begin, end in sentences(text):
        bare = _MARK.sub("", text[begin:end]).strip()
        if words(bare):
            found.append((begin, end, bare))
    return found


def marks_of(text: str) -> list[int]:
    """The numbers in brackets, as a model cites."""
    return [int(number) for mark in re.findall(r"\[([\d,\s]+)\]", text) for number in re.findall(r"\d+", mark)]


def words(text: str) -> list[str]:
    """Content words in a common form: small, without endings, numbers without separators."""
    found = []
    for match in WORD.finditer(text):
        word = match[0].lower().replace("’", "'").removesuffix("'s")
        if _NUMBER.search(word):
            found.append(word.replace(",", "").rstrip("."))
        elif word in _NUMBERS:
            found.append(_NUMBERS[word])
        elif word not in STOP:
            found += [stem(part) for part in re.split(r"[-/.,:']", word) if part and part not in STOP]
    return found


def stem(word: str) -> str:
    """A word without its ending, so that forms of one word are the same; coarse, and the same for both sides."""
    for suffix in _SUFFIXES:
        if word.endswith(suffix) and len(word) - len(suffix) >= 3:
            word = word[: -len(suffix)]
            break
    return word.removesuffix("e") if len(word) > 3 else word


def names(text: str) -> set[str]:
    """Words that must be in the text for a claim to hold: numbers, and names inside a sentence."""
    found = {word for word in words(text) if _NUMBER.search(word)}
    for match in WORD.finditer(text):
        inside = match.start() > 0 and text[: match.start()].rstrip()[-1:] not in ("", ".", "!", "?", ":", '"', "“")
        if inside and match[0][:1].isupper() and match[0].lower() not in STOP:
            found.update(words(match[0]))
    return found


def about(question: str, hits: Sequence[Hit]) -> list[Hit]:
    """The hits that hold every name which the question does, in their text, headings, title or path.

    A reranker is sure of the right fact about the wrong thing: the fee of another harbour scores as high as this one's.
    """
    wanted = {word for word in names(question) if not _NUMBER.search(word)}
    if not wanted:
        return list(hits)
    kept = []
    for hit in hits:
        held = words(f"{hit.text}\n{hit.heading}\n{hit.document.title}\n{hit.document.path.replace('/', ' ')}")
        if wanted <= set(held):
            kept.append(hit)
    return kept


def rarity(texts: Sequence[str]) -> dict[str, float]:
    """How much each word tells: log((n + 1) / (texts with it + 0.5)), at least 0.2."""
    counts: dict[str, int] = {}
    for text in texts:
        for word in set(words(text)):
            counts[word] = counts.get(word, 0) + 1
    total = len(texts) + 1
    return {word: max(0.2, math.log(total / (count + 0.5))) for word, count in counts.items()}


def support(claim: str, hits: Sequence[Hit], weights: Mapping[str, float], first: Sequence[int] = ()) -> Support | None:
    """The best span that carries a claim; None if none does. ``first`` are hits that the claim itself cites, which
    win where another is as good."""
    wanted, musts = set(words(claim)), names(claim)
    if not wanted:
        return None
    unknown = max(weights.values(), default=1.0)
    whole = sum(weights.get(word, unknown) for word in wanted)
    best: tuple[tuple[float, bool, int], Support] | None = None
    for place, hit in enumerate(hits):
        for begin, end, held in _windows(hit):
            if not musts <= held:
                continue
            share = sum(weights.get(word, unknown) for word in wanted & held) / whole
            rank = (round(share, 2), place in first, begin - end)
            if share >= CARRIED and (best is None or rank > best[0]):
                best = (rank, Support(place, hit.start + begin, hit.start + end, share))
    return best[1] if best else None


def touches(hits: Sequence[Hit], one: Support, other: Support) -> bool:
    """Whether two spans have something in common."""
    same = (
        hits[one.hit].document.number == hits[other.hit].document.number and hits[one.hit].base == hits[other.hit].base
    )
    return same and one.start < other.end and other.start < one.end


def _windows(hit: Hit) -> list[tuple[int, int, set[str]]]:
    """Runs of up to ``WINDOW`` sentences, with the words that they and the heading above hold."""
    spans = sentences(hit.text)
    above = set(words(hit.heading))
    each = [set(words(hit.text[begin:end])) for begin, end in spans]
    found = []
    for size in range(1, WINDOW + 1):
        for place in range(len(spans) - size + 1):
            held = set().union(*each[place : place + size]) | above
            found.append((spans[place][0], spans[place + size - 1][1], held))
    return found
