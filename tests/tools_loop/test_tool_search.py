"""Searching tools: the index, and the two tools that a client gets of a profile that is searched."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dockyard.tools.model import Tool
from dockyard.tools.search import Index, stem, words

pytestmark = pytest.mark.anyio


def tool(server: str, name: str, description: str, **properties: str) -> Tool:
    schema = {"type": "object", "properties": {one: {"description": text} for one, text in properties.items()}}
    raw = {"name": name, "description": description, "inputSchema": schema}
    return Tool(id=f"{server}__{name}", server=server, name=name, raw=raw)


TOOLS = [
    tool("mail", "sendEmail", "Send an email", to="the recipient"),
    tool("mail", "trash_email", "Move an email to the trash"),
    tool("files", "delete_file", "Delete a file from disk"),
    tool("calendar", "create_event", "Create a calendar event with attendees"),
    tool("time", "list_timezones", "List the names of timezones"),
    tool("db", "run_query", "Run SQL", sql="the statement, such as SELECT"),
]


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("emails sending", "mail__sendEmail"),
        ("erase a document", "files__delete_file"),
        ("schedule a meeting", "calendar__create_event"),
        ("time zone", "time__list_timezones"),
        ("statement", "db__run_query"),
    ],
)
def test_other_words_find_it(query: str, found: str) -> None:
    assert [one.id for one in Index(TOOLS).search(query)][:1] == [found]


def test_nothing_in_common_finds_nothing() -> None:
    assert Index(TOOLS).search("quaternion") == []
    assert Index(TOOLS).search("") == []
    assert Index([]).search("email") == []


@given(st.text(max_size=80), st.integers(0, 8))
def test_any_query_is_searched(query: str, count: int) -> None:
    found = Index(TOOLS).search(query, count)
    assert len(found) <= count
    assert found == Index(TOOLS).search(query, count)
    assert len({one.id for one in found}) == len(found)


@given(st.from_regex(r"[a-z]{1,12}", fullmatch=True))
def test_forms_of_a_word_are_one(word: str) -> None:
    assert stem(word)
    assert words(f"{word}Other") == [*words(word), *words("Other")]


def test_the_profile_of_a_client_that_searches(server: Any) -> None:
    """``/p/large/mcp`` by the official client of the protocol."""
    pytest.importorskip("mcp")
    import anyio
    from loop_serving import ANN
    from mcp import Client
    from mcp.client.streamable_http import create_mcp_http_client, streamable_http_client

    async def talk() -> None:
        http = create_mcp_http_client(headers={"Authorization": f"Bearer {ANN}"})
        async with http, Client(streamable_http_client(f"{server.url}/p/large/mcp", http_client=http)) as client:
            listed = await client.list_tools()
            assert [one.name for one in listed.tools] == ["search_tools", "call_tool"]
            found = await client.call_tool("search_tools", {"query": "sum of two numbers"})
            rows = json.loads(found.content[0].text)  # type: ignore[union-attr]
            assert rows[0]["name"] == "sums__add"
            assert set(rows[0]["inputSchema"]["properties"]) == {"a", "b"}
            called = await client.call_tool("call_tool", {"name": "sums__add", "arguments": {"a": 30, "b": 4}})
            assert called.content[0].text == "34"  # type: ignore[union-attr]
            wrong = await client.call_tool("call_tool", {"arguments": {}})
            assert wrong.is_error
            unasked = await client.call_tool("call_tool", {"name": "sums__add", "arguments": {"a": "x", "b": 4}})
            assert unasked.is_error

    anyio.run(talk)
