"""What ``/v1/responses`` refuses, and where it says the fault is."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from litestar.testing import TestClient

from dockyard.api import create_app
from dockyard.settings import Settings

USER = {"role": "user", "content": "hi"}
FUNCTION = {"type": "function", "name": "f", "parameters": {}}


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient[Any]]:
    """An application without a database: it keeps what it keeps in memory."""
    made = create_app(Settings(home=str(tmp_path_factory.mktemp("home"))), trusted=True)
    with TestClient(made, base_url="http://127.0.0.1:12434") as found:
        yield found


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({}, "input"),
        ({"input": ""}, "input"),
        ({"input": 7}, "input"),
        ({"input": [7]}, "input[0]"),
        ({"input": [{}]}, "input[0].type"),
        ({"input": [{"role": "nobody", "content": "x"}]}, "input[0].role"),
        ({"input": [{"role": "user"}]}, "input[0].content"),
        ({"input": [{"role": "user", "content": [{"type": "odd"}]}]}, "input[0].content[0].type"),
        ({"input": [{"role": "user", "content": [{"type": "input_text"}]}]}, "input[0].content[0].text"),
        ({"input": [{"role": "user", "content": [{"type": "input_image"}]}]}, "input[0].content[0]"),
        ({"input": [{**USER, "id": 3}]}, "input[0].id"),
        ({"input": [{**USER, "status": "odd"}]}, "input[0].status"),
        ({"input": [USER, {"type": "computer_call"}]}, "input[1].type"),
        ({"input": [{"type": "function_call", "name": "f", "arguments": "{}"}]}, "input[0].call_id"),
        ({"input": [{"type": "function_call_output", "call_id": "c"}]}, "input[0].output"),
        ({"input": [{"type": "compaction", "encrypted_content": "AAAA"}]}, "input[0].encrypted_content"),
        ({"input": [{"type": "item_reference", "id": "msg_0"}]}, "input"),
        ({"input": "x", "previous_response_id": "resp_0"}, "previous_response_id"),
        ({"input": "x", "conversation": "conv_0"}, "conversation"),
        ({"input": "x", "conversation": "c", "previous_response_id": "r"}, "previous_response_id"),
        ({"input": "x", "temperature": 3}, "temperature"),
        ({"input": "x", "max_output_tokens": 0}, "max_output_tokens"),
        ({"input": "x", "metadata": {"a": 1}}, "metadata[...]"),
        ({"input": "x", "include": ["odd"]}, "include[0]"),
        ({"input": "x", "background": True, "store": False}, "background"),
        ({"input": "x", "stream_options": {"include_obfuscation": True}}, "stream_options"),
        ({"input": "x", "prompt": {"name": "p"}}, "prompt.name"),
        ({"input": "x", "truncation": "maybe"}, "truncation"),
        ({"input": "x", "text": {"format": {"type": "odd"}}}, "text.format.type"),
        ({"input": "x", "text": {"format": {"type": "json_schema", "name": "n"}}}, "text.format.schema"),
        ({"input": "x", "tools": [{"type": "web_search"}]}, "tools[0].type"),
        ({"input": "x", "tools": [{"type": "mcp", "server_label": "a"}]}, "tools"),
        ({"input": "x", "tools": [{"type": "mcp", "server_label": "a b"}]}, "tools[0].server_label"),
        ({"input": "x", "tools": [{"type": "mcp", "server_label": "a", "odd": 1}]}, "tools[0].odd"),
        ({"input": "x", "tools": [{"type": "mcp", "server_label": "a", "connector_id": "c"}]}, "tools[0].connector_id"),
        ({"input": "x", "tools": [{"type": "mcp", "server_label": "a", "headers": {"a": "b"}}]}, "tools[0].headers"),
        ({"input": [{"type": "mcp_approval_response", "approval_request_id": "a"}]}, "input[0].approve"),
        ({"input": [{"type": "mcp_call", "name": "a"}]}, "input[0].server_label"),
        ({"input": "x", "tools": [{"type": "function"}]}, "tools[0].name"),
        ({"input": "x", "tools": [FUNCTION], "tool_choice": {"type": "function", "name": "g"}}, "tool_choice"),
        ({"input": "x", "tools": [FUNCTION], "tool_choice": "maybe"}, "tool_choice"),
        ({"input": "x", "tool_choice": "required"}, "tool_choice"),
        ({"input": "x", "reasoning": {"effort": "odd"}}, "reasoning.effort"),
        ({"input": "x", "model": 7}, "model"),
    ],
)
def test_the_fault_is_named(app: TestClient[Any], fields: dict[str, Any], param: str) -> None:
    answer = app.post("/v1/responses", json={"model": "echo", **fields})
    assert answer.status_code in (400, 404), answer.text
    assert answer.json()["error"]["param"] == param
    assert answer.json()["error"]["message"]


def test_an_unknown_model_is_not_found(app: TestClient[Any]) -> None:
    answer = app.post("/v1/responses", json={"model": "no-such", "input": "x"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "model_not_found")
    streamed = app.post("/v1/responses", json={"model": "no-such", "input": "x", "stream": True})
    assert streamed.status_code == 404


def test_a_background_failure_is_told(app: TestClient[Any]) -> None:
    begun = app.post("/v1/responses", json={"model": "no-such", "input": "x", "background": True}).json()
    events = app.get(f"/v1/responses/{begun['id']}", params={"stream": "true"}).text
    assert "response.failed" in events
    found = app.get(f"/v1/responses/{begun['id']}").json()
    assert (found["status"], found["error"]["type"]) == ("failed", "model_not_found")
    assert app.post("/v1/responses", json={"model": "echo", "input": "y", "previous_response_id": begun["id"]}).json()


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
def test_only_post_creates(app: TestClient[Any], method: str) -> None:
    assert app.request(method, "/v1/responses").status_code == 405


def test_bad_questions(app: TestClient[Any]) -> None:
    id = app.post("/v1/responses", json={"model": "echo", "input": "x"}).json()["id"]
    for query in ("limit=0", "limit=101", "limit=x", "order=up", "after=msg_0", "include=odd"):
        assert app.get(f"/v1/responses/{id}/input_items?{query}").status_code == 400, query
    for query in ("starting_after=3", "include[]=odd", "include_obfuscation=true"):
        assert app.get(f"/v1/responses/{id}?{query}").status_code == 400, query


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(1 << 40), 1 << 40)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)
WORDS = st.sampled_from(
    ["message", "function_call", "function_call_output", "reasoning", "item_reference", "compaction", "odd"]
)
PARTS = st.fixed_dictionaries(
    {"type": st.sampled_from(["input_text", "output_text", "input_image", "input_file", "refusal"])},
    optional={"text": JSON, "image_url": JSON, "file_id": JSON, "refusal": JSON, "detail": JSON},
)
ITEMS = st.fixed_dictionaries(
    {},
    optional={
        "type": WORDS,
        "role": st.sampled_from(["user", "assistant", "developer", "tool"]),
        "content": JSON | st.lists(PARTS, max_size=2),
        "id": st.text(max_size=5) | st.none(),
        "call_id": JSON,
        "name": JSON,
        "arguments": JSON,
        "output": JSON | st.lists(PARTS, max_size=2),
        "summary": JSON,
        "encrypted_content": JSON,
    },
)


FIELDS = st.sampled_from(["tools", "tool_choice", "text", "reasoning", "metadata", "include", "instructions"])


@settings(max_examples=150, deadline=None)
@given(items=st.lists(ITEMS, min_size=1, max_size=3), more=st.dictionaries(FIELDS, JSON, max_size=2))
def test_whatever_comes_is_answered_or_refused(app: TestClient[Any], items: list[Any], more: dict[str, Any]) -> None:
    answer = app.post("/v1/responses", json={"model": "echo", "input": items, "store": False, **more})
    assert answer.status_code in (200, 400, 404), answer.text


@settings(max_examples=30, deadline=None)
@given(count=st.integers(1, 12), limit=st.integers(1, 5), order=st.sampled_from(["asc", "desc"]))
def test_pages_of_items_join_to_the_whole(app: TestClient[Any], count: int, limit: int, order: str) -> None:
    items = [{"role": "user", "content": f"word{n}"} for n in range(count)]
    id = app.post("/v1/responses", json={"model": "echo", "input": items}).json()["id"]
    seen: list[str] = []
    after: dict[str, str] = {}
    while True:
        page = app.get(f"/v1/responses/{id}/input_items", params={"limit": limit, "order": order, **after}).json()
        assert len(page["data"]) <= limit
        seen += [item["content"][0]["text"] for item in page["data"]]
        if not page["has_more"]:
            break
        assert page["last_id"] == page["data"][-1]["id"]
        after = {"after": page["last_id"]}
    wanted = [f"word{n}" for n in range(count)]
    assert seen == (wanted if order == "asc" else wanted[::-1])
