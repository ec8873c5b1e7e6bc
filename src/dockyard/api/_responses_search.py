"""Tools of type ``file_search`` in a Responses request: the answer is grounded in vector stores, and says in what.

The server searches before the model writes, for what the user said last; the model need not ask for it.
"""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec

from dockyard.api._responses_wire import Item
from dockyard.api._site import Site
from dockyard.api._vector_wire import Ranking, hit_told
from dockyard.errors import InvalidRequest, UnsupportedParameter
from dockyard.types import Call, Json, Principal

RESULTS = "file_search_call.results"
PASSAGES = 5
"""Passages that are searched for where the request does not say how many."""
MOST = 50
"""OpenAI's own bound."""


class FileSearch(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """The tool as a request brings it."""

    type: str
    vector_store_ids: list[str]
    max_num_results: int | None = None
    filters: dict[str, Json] | None = None
    ranking_options: Ranking | None = None


def read(tools: list[tuple[int, Item]]) -> FileSearch:
    """The one tool of this type. Raises InvalidRequest with the path of what is wrong."""
    if len(tools) > 1:
        raise UnsupportedParameter(
            "one file_search tool is served", param=f"tools[{tools[1][0]}]", hint="name all vector stores in one"
        )
    number, tool = tools[0]
    try:
        found = msgspec.convert(tool, FileSearch)
    except msgspec.ValidationError as error:
        raise InvalidRequest(f"tools[{number}]: {error}", param=f"tools[{number}]") from None
    if not found.vector_store_ids:
        raise InvalidRequest(f"tools[{number}].vector_store_ids is required", param=f"tools[{number}].vector_store_ids")
    if found.max_num_results is not None and not 1 <= found.max_num_results <= MOST:
        told = f"tools[{number}].max_num_results is from 1 to {MOST}, and {found.max_num_results} is not"
        raise InvalidRequest(told, param=f"tools[{number}].max_num_results")
    return found


def ground(call: Call, tool: FileSearch) -> None:
    """Let the gateway ground this call."""
    from dockyard.gateway.ground import Grounded
    from dockyard.knowledge.model import Search

    ranking = tool.ranking_options or Ranking()
    call.knowledge = tuple(tool.vector_store_ids)
    search = Search(
        limit=tool.max_num_results or PASSAGES,
        filters=tool.filters,
        rerank=ranking.ranker != "none",
        least=ranking.score_threshold,
    )
    call.grounded = Grounded(question="", hits=(), search=search)


async def check(site: Site, principal: Principal, call: Call) -> None:
    """Whether the caller may use these stores. Raises NotFound, InvalidRequest."""
    if isinstance(getattr(call.grounded, "search", None), msgspec.Struct):
        await asyncio.to_thread(_check, site, principal, call.knowledge)


def _check(site: Site, principal: Principal, names: tuple[str, ...]) -> None:
    from dockyard.api.vector_stores import known, touch

    for name in names:
        base, _ = known(site, principal, name, "tools")
        touch(base)


def item_of(call: Call, id: str, *, results: bool) -> Item:
    """What was searched for, and with ``results`` what was found."""
    grounded: Any = call.grounded
    found = None
    if results:
        found = [
            {**{name: value for name, value in hit_told(hit).items() if name != "content"}, "text": hit.text}
            for hit in grounded.hits
        ]
    return {
        "id": id,
        "type": "file_search_call",
        "status": "completed",
        "queries": [grounded.question] if grounded.question else [],
        "results": found,
    }
