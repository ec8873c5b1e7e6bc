"""Vector stores on the wire: bodies that callers send, and what they are told."""

from __future__ import annotations

import time
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from dockyard.api._responses_wire import Metadata
from dockyard.errors import InvalidRequest, UnsupportedParameter
from dockyard.knowledge.bases import Base
from dockyard.knowledge.ledger import Ledger
from dockyard.knowledge.model import Cut, Document, Hit, Recipe, Source
from dockyard.types import Json

Attributes = Annotated[
    dict[Annotated[str, Meta(max_length=64)], Annotated[str, Meta(max_length=512)] | bool | int | float],
    Meta(max_length=16),
]
FileId = Annotated[str, Meta(min_length=1, max_length=64)]
TOKEN = 4
"""Characters of a token, about: chunks are counted in characters here and in tokens on the wire."""
MOST_FILES = 500


class ExpiresAfter(msgspec.Struct, forbid_unknown_fields=True):
    """When a store that nobody uses expires."""

    anchor: Literal["last_active_at"]
    days: Annotated[int, Meta(ge=1, le=365)]


class Static(msgspec.Struct, forbid_unknown_fields=True):
    max_chunk_size_tokens: Annotated[int, Meta(ge=100, le=4096)] = 800
    chunk_overlap_tokens: Annotated[int, Meta(ge=0, le=2048)] = 400


class Chunking(msgspec.Struct, forbid_unknown_fields=True):
    """``auto``: as this server does; ``static``: pieces of so many tokens."""

    type: Literal["auto", "static"]
    static: Static | None = None


class OwnStore(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What only Dockyard has: which models the store uses, and how documents are cut."""

    embedder: Annotated[str, Meta(max_length=512)] = ""
    reranker: Annotated[str, Meta(max_length=512)] = ""
    chunker: Annotated[str, Meta(max_length=64)] = "structure"


class CreateStore(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """A vector store to make."""

    name: Annotated[str, Meta(max_length=256)] | None = None
    description: Annotated[str, Meta(max_length=2048)] | None = None
    file_ids: Annotated[list[FileId], Meta(max_length=MOST_FILES)] | None = None
    chunking_strategy: Chunking | None = None
    expires_after: ExpiresAfter | None = None
    metadata: Metadata | None = None
    dockyard: OwnStore | None = None


class ChangeStore(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What to change of a vector store."""

    name: Annotated[str, Meta(max_length=256)] | None = None
    expires_after: ExpiresAfter | None = None
    metadata: Metadata | None = None


class AddFile(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """A file to take in; ``readers`` are the keys that may read it, else all."""

    file_id: FileId
    attributes: Attributes | None = None
    chunking_strategy: Chunking | None = None
    readers: Annotated[list[Annotated[str, Meta(max_length=64)]], Meta(min_length=1, max_length=64)] | None = None


class AddFiles(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Files to take in together: either ``file_ids``, or ``files`` with attributes of their own."""

    file_ids: Annotated[list[FileId], Meta(min_length=1, max_length=MOST_FILES)] | None = None
    files: Annotated[list[AddFile], Meta(min_length=1, max_length=MOST_FILES)] | None = None
    attributes: Attributes | None = None
    chunking_strategy: Chunking | None = None


class ChangeFile(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Other attributes of a file."""

    attributes: Attributes | None


class Ranking(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """``ranker`` "none" leaves the fused order, any other is the store's own; ``score_threshold`` drops hits below it.
    Lists are always fused by rank: weights of ``hybrid_search`` are refused."""

    ranker: Literal["auto", "none", "default-2024-11-15", "default_2024_08_21"] = "auto"
    score_threshold: Annotated[float, Meta(ge=0, le=1)] = 0.0
    hybrid_search: None = None


class SearchStore(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What to look for in a vector store; several texts are several wordings of one question."""

    query: Annotated[str, Meta(min_length=1, max_length=4096)] | Annotated[list[str], Meta(min_length=1, max_length=8)]
    filters: dict[str, Json] | None = None
    max_num_results: Annotated[int, Meta(ge=1, le=50)] = 10
    ranking_options: Ranking | None = None
    rewrite_query: bool = False


def cut_of(asked: CreateStore) -> Cut:
    """How the documents of a store are cut. Raises InvalidRequest."""
    own = asked.dockyard or OwnStore()
    strategy = asked.chunking_strategy
    if strategy is None or strategy.type == "auto":
        return Cut(chunker=own.chunker)
    static = strategy.static or Static()
    try:
        return Cut(
            chunker=own.chunker,
            size=static.max_chunk_size_tokens * TOKEN,
            overlap=static.chunk_overlap_tokens * TOKEN,
        )
    except ValueError:
        raise InvalidRequest(
            "chunk_overlap_tokens is at most half of max_chunk_size_tokens",
            param="chunking_strategy.static.chunk_overlap_tokens",
        ) from None


def refuse_rewriting(asked: bool) -> None:
    """No model is named that could word a query anew."""
    if asked:
        raise UnsupportedParameter(
            "a query is searched for as it is", param="rewrite_query", hint="give several wordings as a list"
        )


def refuse_chunking(strategy: Chunking | None) -> None:
    """All files of a store are cut alike: what is compared should be of one kind."""
    if strategy is not None and strategy.type == "static":
        raise UnsupportedParameter(
            "files are cut as their vector store says",
            param="chunking_strategy",
            hint="give it when you make the store",
        )


def strategy_of(cut: Cut) -> dict[str, Any]:
    static = {"max_chunk_size_tokens": cut.size // TOKEN, "chunk_overlap_tokens": cut.overlap // TOKEN}
    return {"type": "static", "static": static}


# what is told


def store_told(base: Base, recipe: Recipe, ledger: Ledger, pending: set[int]) -> dict[str, Any]:
    """A vector store in OpenAI's shape."""
    documents = ledger.documents()
    states = [state_of(one, documents, pending) for one in ledger.sources()]
    counts = {state: states.count(state) for state in ("in_progress", "completed", "failed", "cancelled")}
    after = recipe.about.get("expires_after")
    active = active_at(base)
    expires = int(active + after["days"] * 86_400) if after else None
    gone = expires is not None and expires < time.time()
    return {
        "id": base.name,
        "object": "vector_store",
        "created_at": int(recipe.created),
        "name": recipe.title or base.name,
        "description": recipe.about.get("description"),
        "usage_bytes": sum(one.size for one in documents),
        "file_counts": {**counts, "total": len(states)},
        "status": "expired" if gone else "in_progress" if counts["in_progress"] else "completed",
        "expires_after": after,
        "expires_at": expires,
        "last_active_at": int(active),
        "metadata": recipe.about.get("metadata") or {},
        "dockyard": {"embedder": recipe.embedder, "reranker": recipe.reranker or None, "documents": len(documents)},
    }


def active_at(base: Base) -> float:
    """When a store was last used."""
    marks = [base.folder / "active", base.folder / "ledger.db"]
    return max((mark.stat().st_mtime for mark in marks if mark.exists()), default=0.0)


def state_of(source: Source, documents: list[Document], pending: set[int]) -> str:
    """What became of a file."""
    if source.id in pending:
        return "in_progress"
    if source.about.get("cancelled"):
        return "cancelled"
    if source.problem or (source.synced and not any(one.source == source.id for one in documents)):
        return "failed"
    return "completed" if source.synced else "in_progress"


def file_told(base: Base, recipe: Recipe, source: Source, ledger: Ledger, pending: set[int]) -> dict[str, Any]:
    """A file of a vector store in OpenAI's shape."""
    documents = ledger.documents(source.id)
    state = state_of(source, documents, pending)
    error = None
    if state == "failed":
        found = next((one for one in ledger.problems() if one.source == source.id), None)
        message = found.message if found else source.problem or "it holds no text"
        error = {"code": "unsupported_file" if documents == [] else "server_error", "message": message}
    return {
        "id": file_id(source),
        "object": "vector_store.file",
        "usage_bytes": sum(one.size for one in documents),
        "created_at": int(source.about.get("added") or recipe.created),
        "vector_store_id": base.name,
        "status": state,
        "last_error": error,
        "chunking_strategy": strategy_of(recipe.cut),
        "attributes": source.attributes,
    }


def file_id(source: Source) -> str:
    """The id of the file that a source is; a folder's or a URL's is its own."""
    return str(source.about.get("file_id") or f"source-{source.id}")


def hit_told(hit: Hit) -> dict[str, Any]:
    """A hit as a search tells it."""
    return {
        "file_id": hit.document.file or f"source-{hit.document.source}",
        "filename": hit.document.path,
        "score": hit.score,
        "attributes": hit.document.attributes,
        "content": [{"type": "text", "text": hit.text}],
        "dockyard": {
            "start": hit.start,
            "end": hit.end,
            "page": hit.page or None,
            "heading": hit.heading,
            "modified": hit.document.modified or None,
            "seen": hit.document.fetched,
        },
    }


def page_told(rows: list[dict[str, Any]], *, limit: int, after: str | None, before: str | None) -> dict[str, Any]:
    """A page of a list that is at hand. Raises InvalidRequest for a place that it does not have."""
    ids = [row["id"] for row in rows]
    for name, place in (("after", after), ("before", before)):
        if place is not None and place not in ids:
            raise InvalidRequest(f"the listing has no {place!r:.80}", param=name)
    if after is not None:
        rows = rows[ids.index(after) + 1 :]
    if before is not None:
        rows = [row for row in rows if row["id"] in ids[: ids.index(before)]]
    some = rows[:limit]
    first, last = (some[0]["id"], some[-1]["id"]) if some else (None, None)
    return {"object": "list", "data": some, "first_id": first, "last_id": last, "has_more": len(rows) > limit}
