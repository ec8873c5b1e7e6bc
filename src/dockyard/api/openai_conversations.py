"""``/v1/conversations``: lists of items that responses go on with, and add to, by name."""

from __future__ import annotations

import secrets
from typing import Annotated, Any, Literal

import msgspec
from litestar import Request, delete, get, post
from litestar.params import FromPath, FromQuery, JSONBody, QueryParameter
from msgspec import Meta

from dockyard.api._further import Routes
from dockyard.api._kept import caller, page_of
from dockyard.api._responses_input import named
from dockyard.api._responses_wire import Item, Metadata
from dockyard.api._site import Site
from dockyard.api.openai_responses import check_include
from dockyard.errors import InvalidRequest
from dockyard.state.conversations import Conversation

Asking = Request[Any, Any, Any]
Limit = Annotated[int, QueryParameter(ge=1, le=100)]
Items = Annotated[list[Item], Meta(max_length=20)]


class ConversationBody(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """A conversation to begin."""

    items: Items | None = None
    metadata: Metadata | None = None


class DescriptionBody(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What a conversation is to be known by from now on."""

    metadata: Metadata | None


class ItemsBody(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What to add."""

    items: Annotated[list[Item], Meta(min_length=1, max_length=20)]


def routes(site: Site) -> Routes:
    """What the dialect answers."""
    return Routes(handlers=[*_whole(site), *_items(site)])


def _whole(site: Site) -> list[Any]:
    tagged: dict[str, Any] = {"guards": [site.require("infer")], "tags": ["OpenAI"], "status_code": 200}

    @post("/v1/conversations", summary="Begin a conversation", **tagged)
    async def create(request: Asking, data: JSONBody[ConversationBody]) -> dict[str, Any]:
        tables, who = await caller(site, request)
        made = Conversation(id=f"conv_{secrets.token_hex(16)}", key=who.name, metadata=data.metadata or {})
        items = _named(data.items or [], made.id)
        await tables.conversations.add(made)
        await tables.conversations.append(made.id, who.name, items)
        return _told(made)

    @get("/v1/conversations/{conversation_id:str}", summary="What a conversation is known by", **tagged)
    async def retrieve(request: Asking, conversation_id: FromPath[str]) -> dict[str, Any]:
        tables, who = await caller(site, request)
        return _told(await tables.conversations.get(conversation_id, who.name))

    @post("/v1/conversations/{conversation_id:str}", summary="Replace what a conversation is known by", **tagged)
    async def update(
        request: Asking, conversation_id: FromPath[str], data: JSONBody[DescriptionBody]
    ) -> dict[str, Any]:
        tables, who = await caller(site, request)
        return _told(await tables.conversations.describe(conversation_id, who.name, data.metadata or {}))

    @delete("/v1/conversations/{conversation_id:str}", summary="Forget a conversation", **tagged)
    async def remove(request: Asking, conversation_id: FromPath[str]) -> dict[str, Any]:
        tables, who = await caller(site, request)
        await tables.conversations.delete(conversation_id, who.name)
        return {"id": conversation_id, "object": "conversation.deleted", "deleted": True}

    return [create, retrieve, update, remove]


def _items(site: Site) -> list[Any]:
    tagged: dict[str, Any] = {"guards": [site.require("infer")], "tags": ["OpenAI"], "status_code": 200}
    path = "/v1/conversations/{conversation_id:str}/items"

    @post(path, summary="Add items", **tagged)
    async def add(request: Asking, conversation_id: FromPath[str], data: JSONBody[ItemsBody]) -> dict[str, Any]:
        check_include(request)
        tables, who = await caller(site, request)
        items = _named(data.items, conversation_id)
        await tables.conversations.append(conversation_id, who.name, items)
        return page_of(items, more=False)

    @get(path, summary="What was said", **tagged)
    async def items(
        request: Asking,
        conversation_id: FromPath[str],
        limit: Limit = 20,
        order: FromQuery[Literal["asc", "desc"]] = "desc",
        after: FromQuery[str | None] = None,
    ) -> dict[str, Any]:
        check_include(request)
        tables, who = await caller(site, request)
        page = await tables.conversations.page(
            conversation_id, who.name, limit=limit, after=after, newest_first=order == "desc"
        )
        return page_of(page.rows, more=page.more)

    @get(path + "/{item_id:str}", summary="One item", **tagged)
    async def item(request: Asking, conversation_id: FromPath[str], item_id: FromPath[str]) -> dict[str, Any]:
        check_include(request)
        tables, who = await caller(site, request)
        return await tables.conversations.item(conversation_id, who.name, item_id)

    @delete(path + "/{item_id:str}", summary="Remove one item", **tagged)
    async def drop(request: Asking, conversation_id: FromPath[str], item_id: FromPath[str]) -> dict[str, Any]:
        tables, who = await caller(site, request)
        return _told(await tables.conversations.remove(conversation_id, who.name, item_id))

    return [add, items, item, drop]


def _named(items: list[Item], conversation: str) -> list[Item]:
    found = named(items, lambda prefix: f"{prefix}_{conversation.rpartition('_')[2]}{secrets.token_hex(6)}")
    for place, item in enumerate(found):
        if item["type"] == "item_reference":
            raise InvalidRequest(
                f"items[{place}]: a reference is no item of a conversation", param=f"items[{place}].type"
            )
    return found


def _told(one: Conversation) -> dict[str, Any]:
    return {"id": one.id, "object": "conversation", "created_at": int(one.created), "metadata": one.metadata}
