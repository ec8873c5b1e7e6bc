"""Whatever a request says of tools that the server runs is answered, or refused with its place."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from litestar.testing import TestClient

from dockyard.api import create_app
from dockyard.settings import Settings

pytest.importorskip("mcp")


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient[Any]]:
    from loop_serving import profiles

    home = tmp_path_factory.mktemp("refused")
    profiles(home)
    made = create_app(Settings(home=str(home), tools_functions=("loop_functions",)), trusted=True)
    with TestClient(made, base_url="http://127.0.0.1:12434") as found:
        yield found


JSON = st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=6)
DEEP = JSON | st.lists(JSON, max_size=2) | st.dictionaries(st.text(max_size=4), JSON, max_size=2)
KINDS = st.sampled_from(
    [
        "mcp_call",
        "mcp_list_tools",
        "mcp_approval_request",
        "mcp_approval_response",
        "tool_search_call",
        "tool_search_output",
        "code_interpreter_call",
    ]
)
TEXT = st.sampled_from(["sums", "add", "{}", "mcpr_x", "x"])
ITEMS = st.fixed_dictionaries(
    {"type": KINDS},
    optional={
        "id": TEXT,
        "server_label": TEXT | DEEP,
        "name": TEXT | DEEP,
        "arguments": TEXT | DEEP,
        "approval_request_id": TEXT | DEEP,
        "approve": st.booleans() | JSON,
        "reason": DEEP,
        "output": DEEP,
        "error": DEEP,
        "tools": st.lists(DEEP, max_size=2) | JSON,
        "taint": DEEP,
        "code": DEEP,
        "outputs": st.lists(DEEP, max_size=2) | JSON,
        "call_id": DEEP,
        "status": st.sampled_from(["completed", "failed", "odd"]),
    },
)
TOOLS = st.fixed_dictionaries(
    {"type": st.just("mcp"), "server_label": st.sampled_from(["sums", "notes", "nobody"])},
    optional={
        "allowed_tools": DEEP | st.lists(TEXT, max_size=2),
        "require_approval": st.sampled_from(["always", "never"]) | DEEP,
        "defer_loading": st.booleans() | JSON,
        "headers": DEEP,
        "server_description": DEEP,
        "allowed_callers": DEEP,
        "odd": JSON,
    },
)
SUMS = {"type": "mcp", "server_label": "sums", "require_approval": "never"}


@settings(max_examples=120, deadline=None)
@given(items=st.lists(ITEMS, min_size=1, max_size=3))
def test_items(app: TestClient[Any], items: list[Any]) -> None:
    body = {"model": "echo", "input": [{"role": "user", "content": "hi"}, *items], "tools": [SUMS], "store": False}
    answer = app.post("/v1/responses", json=body)
    assert answer.status_code in (200, 400, 404), answer.text


@settings(max_examples=80, deadline=None)
@given(tools=st.lists(TOOLS, min_size=1, max_size=2), choice=st.sampled_from(["auto", "required"]) | DEEP)
def test_tools(app: TestClient[Any], tools: list[Any], choice: Any) -> None:
    answer = app.post("/v1/responses", json={"model": "echo", "input": "hi", "tools": tools, "tool_choice": choice})
    assert answer.status_code in (200, 400, 404), answer.text


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"require_approval": "maybe"}, "tools[0].require_approval"),
        ({"allowed_tools": {"odd": 1}}, "tools[0].allowed_tools.odd"),
        ({"allowed_callers": ["programmatic"]}, "tools[0].allowed_callers"),
        ({"server_url": "https://x.example/mcp", "headers": {"a": "${HOME}"}}, "tools"),
    ],
)
def test_the_place_is_named(app: TestClient[Any], fields: dict[str, Any], param: str) -> None:
    answer = app.post("/v1/responses", json={"model": "echo", "input": "hi", "tools": [{**SUMS, **fields}]})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)
