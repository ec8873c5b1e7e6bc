"""Structs of the knowledge layer. Offsets are characters of a document's parsed text; times are Unix seconds."""

from __future__ import annotations

import re
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from dockyard.errors import InvalidRequest
from dockyard.types import Json

EVERYONE = "*"
NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
Mode = Literal["hybrid", "vector", "words"]
BlockKind = Literal["heading", "paragraph", "list", "code", "table"]


class Block(msgspec.Struct, frozen=True, array_like=True):
    """A piece of a parsed text that belongs together. ``level`` counts for headings (1 to 6), ``page`` from 1; 0: none.

    Blocks come in order and do not overlap.
    """

    start: int
    end: int
    kind: BlockKind = "paragraph"
    level: int = 0
    page: int = 0


class Parsed(msgspec.Struct, frozen=True, kw_only=True):
    """A document as text, with its structure. ``notes`` say what was left out, for whoever looks after the base."""

    text: str
    blocks: tuple[Block, ...] = ()
    title: str = ""
    pages: int = 0
    notes: tuple[str, ...] = ()


class Span(msgspec.Struct, frozen=True, kw_only=True):
    """A passage to be: ``start`` to ``end`` of the text, in a section from ``above`` to ``below`` under ``heading``."""

    start: int
    end: int
    heading: str = ""
    page: int = 0
    above: int = 0
    below: int = 0


class Cut(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How documents are cut: by which chunker, into pieces of how many characters, which share how many."""

    chunker: str = "structure"
    size: Annotated[int, Meta(ge=100, le=20_000)] = 1000
    overlap: Annotated[int, Meta(ge=0, le=5_000)] = 0

    def __post_init__(self) -> None:
        if self.overlap * 2 > self.size:
            raise ValueError("overlap is at most half of size")


class Recipe(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a base is made; it changes only with all of the index.

    ``embedder`` makes the vectors, of ``dimension`` numbers; ``probe`` is the vector of a known sentence, by which a
    changed model is noticed. ``query_prefix`` and ``passage_prefix`` go before what is embedded. ``reranker`` is "" for
    none. ``store`` names the vector store and ``url`` where it is, if it is no file; ``mark`` tells the collections of
    bases of one name apart, on a server that several homes use.
    """

    name: str
    embedder: str
    dimension: int
    probe: bytes = b""
    reranker: str = ""
    query_prefix: str = ""
    passage_prefix: str = ""
    cut: Cut = Cut()
    store: str = "lancedb"
    url: str = ""
    mark: str = ""
    owner: str = ""
    title: str = ""
    about: dict[str, Json] = {}
    created: float = 0.0


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """Where documents come from: ``kind`` of ``knowledge.sources`` and the ``place``; who may read them.

    ``include`` and ``exclude`` are patterns of paths; none: all. ``attributes`` hold for each document of it. ``named``
    is what a source of one file calls it; ``about`` is for whoever added it.
    """

    id: int = 0
    kind: str
    place: str
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    readers: tuple[str, ...] = (EVERYONE,)
    attributes: dict[str, Json] = {}
    named: str = ""
    about: dict[str, Json] = {}
    synced: float = 0.0
    problem: str = ""


class Document(msgspec.Struct, frozen=True, kw_only=True):
    """One version of a document in the index. ``number`` is its own and never used again; ``digest`` of its bytes.

    ``fetched`` is when we last saw that it is so, ``modified`` what its source says, 0 where it says nothing. ``file``
    is the id of the file that was uploaded, if it was.
    """

    number: int
    source: int
    path: str
    digest: str
    fingerprint: str = ""
    size: int = 0
    modified: float = 0.0
    fetched: float = 0.0
    title: str = ""
    chunks: int = 0
    characters: int = 0
    readers: tuple[str, ...] = (EVERYONE,)
    attributes: dict[str, Json] = {}
    file: str = ""


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """A passage in a vector store. ``words`` is what is embedded and searched by words: heading, newline, text."""

    id: int
    doc: int
    words: str
    heading: str
    start: int
    end: int
    page: int = 0
    above: int = 0
    below: int = 0
    vector: bytes = b""

    @property
    def text(self) -> str:
        return self.words[len(self.heading) + 1 :] if self.heading else self.words


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """A row that a vector store found, and its score: cosine of the vectors, or of the words as the store ranks."""

    row: Row
    score: float


class Only(msgspec.Struct, frozen=True, kw_only=True):
    """Which documents a search may see: those of ``numbers``, or with ``apart`` all others."""

    numbers: tuple[int, ...]
    apart: bool = False


class Hit(msgspec.Struct, frozen=True, kw_only=True):
    """A passage that answers a query. ``score`` is from 0 to 1: the reranker's probability where there is one.

    ``start`` and ``end`` are its span in the document; ``text`` may be wider than the passage that was found if the
    search expands to its section, which goes from ``above`` to ``below``. ``ranks`` say where each list had it, counted
    from 1.
    """

    base: str
    document: Document
    text: str
    heading: str
    start: int
    end: int
    page: int
    score: float
    ranks: dict[str, int] = {}
    vector: bytes = b""
    chunk: int = 0
    above: int = 0
    below: int = 0


class Citation(msgspec.Struct, frozen=True, kw_only=True):
    """Where an answer's claim is said: ``claim`` is the answer from ``at`` to ``until``; ``quote`` the document from
    ``start`` to ``end``; ``support`` from 0 to 1 how well the one carries the other."""

    number: int
    base: str
    document: int
    path: str
    title: str
    claim: str
    at: int
    until: int
    quote: str
    start: int
    end: int
    page: int
    support: float
    modified: float
    fetched: float


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """An answer. ``found`` False: it is not in the documents. ``how`` is "model", "quote" or "none"; ``dropped`` are
    sentences that the model wrote and no passage carries."""

    text: str
    found: bool
    how: str
    citations: tuple[Citation, ...] = ()
    hits: tuple[Hit, ...] = ()
    dropped: tuple[str, ...] = ()
    confidence: float = 0.0
    query: str = ""
    newest: float = 0.0
    oldest: float = 0.0
    held_back: int = 0


class Search(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How to search. ``candidates`` come from each list, or ``limit`` where that is more, before they are fused and
    ranked; ``limit`` are returned.

    ``diversity`` (0 to 1) trades relevance for difference (MMR). ``expand`` widens each hit to its section, at most
    ``widest`` characters. ``least`` drops hits with a lower score. ``filters`` are in OpenAI's shape, over attributes
    and ``path``, ``title``, ``source``, ``modified``. ``rewrite`` lets a model word the query; ``queries`` are further
    wordings. ``reader`` is who asks; None: whoever may read everything.
    """

    limit: Annotated[int, Meta(ge=1, le=200)] = 5
    candidates: Annotated[int, Meta(ge=1, le=1000)] = 30
    mode: Mode = "hybrid"
    rerank: bool = True
    diversity: Annotated[float, Meta(ge=0, le=1)] = 0.0
    expand: bool = False
    widest: Annotated[int, Meta(ge=200, le=50_000)] = 3000
    least: float = 0.0
    filters: dict[str, Json] | None = None
    rewrite: str = ""
    queries: tuple[str, ...] = ()
    reader: str | None = None


class Sighted(msgspec.Struct, frozen=True, kw_only=True):
    """What a source says of a document before its bytes are read: an equal ``fingerprint`` means that it is the same.

    ``named`` is a file name that tells the format, where the path does not; ``key`` is the source's own; ``readers``
    are those of this document, where the source tells.
    """

    path: str
    fingerprint: str = ""
    size: int = 0
    modified: float = 0.0
    named: str = ""
    key: str = ""
    readers: tuple[str, ...] | None = None


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """A document that could not be taken in, and why, in one sentence."""

    source: int
    path: str
    message: str
    hint: str = ""


class Synced(msgspec.Struct, frozen=True, kw_only=True):
    """What a sync did. ``kept`` documents had a problem and stay as they were; of ``empty`` sources the index has
    nothing. Sources that were not asked are not told of."""

    added: int = 0
    changed: int = 0
    removed: int = 0
    unchanged: int = 0
    kept: int = 0
    chunks: int = 0
    embedded: int = 0
    seconds: float = 0.0
    problems: tuple[Problem, ...] = ()
    empty: tuple[str, ...] = ()


def check_name(name: str) -> str:
    """Raises InvalidRequest for what is no name of a base."""
    if not NAME.fullmatch(name):
        raise InvalidRequest(
            f"{name!r:.80} is no name of a knowledge base",
            param="name",
            hint="use lower-case letters, digits, `.`, `_` and `-`, at most 64",
        )
    return name
