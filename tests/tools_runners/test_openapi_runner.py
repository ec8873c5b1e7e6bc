"""An HTTP API behind its OpenAPI document: operations become tools, and calls become the requests that it describes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dockyard.errors import DockyardError, InvalidRequest
from dockyard.tools.model import Secret, Server
from dockyard.tools.runners._operations import asked, operations

from .talk import listening, talking

pytest.importorskip("mcp", reason="needs the extra mcp")
pytestmark = pytest.mark.anyio

LOOPBACK = ["127.0.0.1"]
DOCUMENT: dict[str, Any] = {
    "openapi": "3.0.3",
    "info": {"title": "Shop", "version": "1"},
    "servers": [{"url": "/v{major}", "variables": {"major": {"default": "2"}}}],
    "paths": {
        "/orders/{id}": {
            "parameters": [{"name": "id", "in": "path", "required": True, "schema": {"type": "string"}}],
            "get": {
                "operationId": "get order",
                "summary": "One order",
                "parameters": [
                    {"$ref": "#/components/parameters/Fields"},
                    {"name": "X-Trace", "in": "header", "schema": {"type": "string"}},
                ],
            },
            "delete": {"operationId": "drop"},
        },
        "/orders": {
            "post": {
                "requestBody": {
                    "required": True,
                    "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Order"}}},
                }
            }
        },
    },
    "components": {
        "parameters": {
            "Fields": {"name": "fields", "in": "query", "schema": {"type": "array", "items": {"type": "string"}}}
        },
        "schemas": {
            "Order": {
                "type": "object",
                "properties": {
                    "note": {"type": "string", "nullable": True},
                    "parts": {"type": "array", "items": {"$ref": "#/components/schemas/Order"}},
                    "away": {"$ref": "https://elsewhere.example/schema.json"},
                },
            }
        },
    },
}


def shop(seen: list[dict[str, Any]], document: dict[str, Any] = DOCUMENT) -> Any:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        body = (await receive()).get("body", b"")
        status, headers, answer = 200, [(b"content-type", b"application/json")], json.dumps({"ok": True}).encode()
        if scope["path"] == "/openapi.json":
            answer = json.dumps(document).encode()
        else:
            told = {name.decode(): value.decode() for name, value in scope["headers"]}
            path = scope["raw_path"].decode()
            seen.append({"method": scope["method"], "path": path, "query": scope["query_string"].decode(), **told})
            seen[-1]["body"] = body.decode()
            if scope["method"] == "DELETE":
                status, answer = 409, b'{"detail": "shipped"}'
            if "moved" in path:
                status, headers = 302, [(b"location", b"http://169.254.169.254/")]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": answer})

    return app


def test_operations_become_definitions() -> None:
    found = {each.name: each.definition for each in operations(DOCUMENT)}
    assert sorted(found) == ["drop", "get_order", "post_orders"]
    assert found["get_order"]["description"] == "One order"
    assert found["get_order"]["inputSchema"]["required"] == ["id"]
    assert found["get_order"]["inputSchema"]["properties"]["fields"]["type"] == "array"
    assert found["get_order"]["annotations"]["readOnlyHint"] is True
    assert found["drop"]["annotations"]["destructiveHint"] is True
    order = found["post_orders"]["inputSchema"]
    assert order["properties"]["body"] == {"$ref": "#/$defs/Order"}
    assert order["$defs"]["Order"]["properties"] == {
        "note": {"type": ["string", "null"]},
        "parts": {"type": "array", "items": {"$ref": "#/$defs/Order"}},
        "away": {},
    }


async def test_calls_are_the_requests_that_it_describes() -> None:
    seen: list[dict[str, Any]] = []
    async with listening(shop(seen)) as port:
        server = Server(
            name="shop", kind="openapi", url=f"http://127.0.0.1:{port}/openapi.json",
            secrets=(Secret(name="key", header="X-Key"),),
        )  # fmt: skip
        async with talking(server, {"key": "k-123456"}, tools_private=LOOPBACK) as talk:
            assert len(await talk.tools()) == 3
            arguments = {"id": "a/../b c", "fields": ["x", "y"], "X-Trace": "1"}
            assert json.loads(await talk.good("get_order", **arguments)) == {"ok": True}
            await talk.good("post_orders", body={"note": None})
            assert await talk.bad("drop", id="1") == 'status 409: {"detail": "shipped"}'
            assert (await talk.bad("get_order", id="moved")).startswith("status 302")
            assert "'id' is missing" in await talk.bad("get_order")
            assert "unknown argument 'more'" in await talk.bad("drop", id="1", more=1)
            assert "no value for 'id'" in await talk.bad("drop", id="..")
    get, post = seen[:2]
    assert (get["method"], get["path"], get["query"]) == ("GET", "/v2/orders/a%2F..%2Fb%20c", "fields=x&fields=y")
    assert (get["x-trace"], get["x-key"]) == ("1", "k-123456")
    assert (post["method"], post["path"], post["body"]) == ("POST", "/v2/orders", '{"note":null}')
    assert post["content-type"] == "application/json"
    assert len(seen) == 4


async def test_a_document_does_not_send_credentials_elsewhere(tmp_path: Path) -> None:
    elsewhere = {**DOCUMENT, "servers": [{"url": "https://elsewhere.example/api"}]}
    async with listening(shop([], elsewhere)) as port:
        url = f"http://127.0.0.1:{port}/openapi.json"
        server = Server(name="shop", kind="openapi", url=url, secrets=(Secret(name="key", header="X-Key"),))
        with pytest.raises(InvalidRequest, match=r"credentials, to https://elsewhere\.example"):
            async with talking(server, {"key": "k"}, tools_private=LOOPBACK):
                pass
    path = tmp_path / "api.yaml"
    path.write_text(json.dumps(DOCUMENT))
    with pytest.raises(InvalidRequest, match="does not say where the API is"):
        async with talking(Server(name="shop", kind="openapi", url=str(path))):
            pass
    seen: list[dict[str, Any]] = []
    async with listening(shop(seen)) as port:
        config = {"base_url": f"http://127.0.0.1:{port}/mine/"}
        server = Server(name="shop", kind="openapi", url=str(path), config=config)
        async with talking(server, tools_private=LOOPBACK) as talk:
            await talk.good("get_order", id="7")
        with pytest.raises(DockyardError, match="not on the public internet"):
            async with talking(server):
                pass
    assert [each["path"] for each in seen] == ["/mine/orders/7"]


@pytest.mark.parametrize(
    "text", ["{", "[]", "swagger: '2.0'", "openapi: 3.1.0\npaths: 3", "openapi: 3.1.0\npaths: {/a: 1}"]
)
async def test_what_is_no_document_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "api").write_text(text)
    with pytest.raises(InvalidRequest):
        async with talking(Server(name="x", kind="openapi", url=str(tmp_path / "api"))):
            pass


@pytest.mark.parametrize(
    ("told", "value", "query"),
    [
        ({}, ["a", "b"], [("q", "a"), ("q", "b")]),
        ({"explode": False}, ["a", "b"], [("q", "a,b")]),
        ({"style": "pipeDelimited"}, [1, 2], [("q", "1|2")]),
        ({"style": "spaceDelimited"}, ["a", "b"], [("q", "a b")]),
        ({"style": "pipeDelimited", "explode": True}, [1, 2], [("q", "1"), ("q", "2")]),
        ({}, {"x": 1, "y": True}, [("x", "1"), ("y", "true")]),
        ({"explode": False}, {"x": 1}, [("q", "x,1")]),
        ({"style": "deepObject"}, {"x": {"y": 1}}, [("q[x]", '{"y":1}')]),
        ({"content": {"application/json": {"schema": {"type": "object"}}}}, {"x": None}, [("q", '{"x":null}')]),
        ({}, 1.5, [("q", "1.5")]),
    ],
)
def test_lists_and_tables_are_written_as_the_document_says(told: Any, value: Any, query: list[tuple[str, str]]) -> None:
    parameters = [{"name": "q", "in": "query", **told}, {"name": "X-Q", "in": "header"}]
    document = {"openapi": "3.1.0", "paths": {"/a": {"get": {"operationId": "a", "parameters": parameters}}}}
    (operation,) = operations(document)
    found = asked(operation, {"q": value, "X-Q": ["a", {"b": 1}]})
    assert found.query == query
    assert found.headers == {"X-Q": 'a,{"b":1}'}
    if "content" in told:
        assert operation.definition["inputSchema"]["properties"]["q"]["type"] == "object"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["get", "parameters", "in", "name", "schema", "$ref", "requestBody", "content", "/a"]),
            inner,
        )
    ),
    max_leaves=20,
)


@given(JSON)
def test_any_document_gives_definitions_or_a_reason(paths: Any) -> None:
    try:
        found = operations({"openapi": "3.1.0", "paths": paths})
    except InvalidRequest:
        return
    assert all(each.definition["inputSchema"]["type"] == "object" for each in found)


@given(st.text())
def test_a_value_stays_in_its_place_of_the_path(value: str) -> None:
    drop = next(each for each in operations(DOCUMENT) if each.name == "drop")
    try:
        path = asked(drop, {"id": value}).path
    except InvalidRequest:
        return
    assert path.count("/") == 2
    assert not set(path) & set("?#\\ ")
