"""An answer checked while it is written: a sentence leaves when it is whole and a passage carries it."""

from __future__ import annotations

from collections.abc import Sequence

from dockyard.knowledge.answer import DECLINES
from dockyard.knowledge.chunkers._sentences import sentences
from dockyard.knowledge.claims import Support, claims_of, marks_of, rarity, support, touches, words
from dockyard.knowledge.model import Hit
from dockyard.types import Json


class Checker:
    """Takes an answer in pieces. What comes out is text with marks, and ``annotations`` of all that came out.

    With an ``anchor`` sentences wait for the first that rests on it; if none does, nothing comes out."""

    def __init__(self, hits: Sequence[Hit], anchor: Support | None = None) -> None:
        self._hits = hits
        self._anchor = anchor
        self._waiting: list[tuple[str, Support]] = []
        self._weights = rarity([hit.text for hit in hits])
        self._held = ""
        self._size = 0
        self._numbers: dict[int, int] = {}
        self._said: set[str] = set()
        self.annotations: list[Json] = []
        self.dropped = 0

    @property
    def empty(self) -> bool:
        """Whether nothing has come out yet."""
        return not self._size

    def add(self, text: str) -> str:
        """A piece of the answer; what may leave now."""
        self._held += text
        spans = sentences(self._held)
        if len(spans) < 2:
            return ""
        out = "".join(self._sentence(self._held[begin:end]) for begin, end in self._merged(spans)[:-1])
        self._held = self._held[self._merged(spans)[-1][0] :]
        return out

    def end(self) -> str:
        """No more comes: what is left."""
        spans = self._merged(sentences(self._held))
        held, self._held = self._held, ""
        out = "".join(self._sentence(held[begin:end]) for begin, end in spans)
        self.dropped += len(self._waiting)
        self._waiting = []
        return out

    def quote(self, place: int, begin: int, end: int) -> str:
        """A sentence of a hit as the answer."""
        hit = self._hits[place]
        text = " ".join(hit.text[begin - hit.start : end - hit.start].split())
        return self._out(text, Support(place, begin, end, 1.0))

    def _merged(self, spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
        """A mark that stands after a sentence's end belongs to it."""
        found: list[tuple[int, int]] = []
        for begin, end in spans:
            if found and not words(self._held[begin:end].strip("[] ,0123456789")):
                found[-1] = (found[-1][0], end)
            else:
                found.append((begin, end))
        return found

    def _sentence(self, text: str) -> str:
        claims = claims_of(text)
        if not claims:
            return ""
        claim = " ".join(bare for _, _, bare in claims)
        if DECLINES.search(claim) or claim in self._said:
            return ""
        cited = [number - 1 for number in marks_of(text) if 0 < number <= len(self._hits)]
        found = support(claim, self._hits, self._weights, cited)
        if found is None:
            self.dropped += 1
            return ""
        self._said.add(claim)
        self._waiting.append((claim, found))
        if self._anchor is not None and not touches(self._hits, found, self._anchor):
            return ""
        self._anchor = None
        waiting, self._waiting = self._waiting, []
        return "".join(self._out(*one) for one in waiting)

    def _out(self, claim: str, found: Support) -> str:
        self._said.add(claim)
        number = self._numbers.setdefault(found.hit, len(self._numbers) + 1)
        lead = " " if self._size else ""
        text = f"{lead}{claim} [{number}]"
        self._size += len(text)
        self.annotations.append(annotation(self._hits[found.hit], found, number, self._size, claim))
        return text


def annotation(hit: Hit, found: Support, number: int, index: int, claim: str) -> Json:
    """A citation in OpenAI's shape, with what says where in the document it stands."""
    document = hit.document
    return {
        "type": "file_citation",
        "index": index,
        "file_id": document.file or f"{hit.base}/{document.path}",
        "filename": document.path,
        "dockyard": {
            "number": number,
            "claim": claim,
            "quote": hit.text[found.start - hit.start : found.end - hit.start],
            "start": found.start,
            "end": found.end,
            "page": hit.page or None,
            "heading": hit.heading,
            "support": round(found.share, 3),
            "modified": document.modified or None,
            "seen": document.fetched,
        },
    }
