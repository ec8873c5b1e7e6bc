"""``/docs`` and ``/openapi.json``: the HTTP API described by itself, readable without a network.

Routes of the framework describe themselves; those that go around it for speed are described here from the same structs
that decode their bodies.
"""

from __future__ import annotations

import html
from typing import Any

import msgspec
from litestar import MediaType, Request, Response, get
from litestar.handlers import HTTPRouteHandler
from litestar.openapi import OpenAPIConfig
from litestar.openapi.plugins import OpenAPIRenderPlugin

from dockyard import __version__
from dockyard.api._further import Described
from dockyard.api.openai_chat import ChatRequest
from dockyard.api.openai_completions import CompletionRequest

HOT = {
    "/v1/chat/completions": Described(
        body=ChatRequest, summary="Answer a conversation; with `stream` as server-sent events", tag="OpenAI"
    ),
    "/v1/completions": Described(
        body=CompletionRequest, summary="Continue a raw prompt; with `stream` as server-sent events", tag="OpenAI"
    ),
}
STYLE = """
:root{color-scheme:light dark;font:15px/1.5 system-ui,sans-serif}body{max-width:62rem;margin:2rem auto;padding:0 1rem}
details{border:1px solid #8884;border-radius:6px;margin:.4rem 0;padding:.3rem .7rem}summary{cursor:pointer}
code,b.m{font-family:ui-monospace,monospace}b.m{display:inline-block;width:5rem}table{border-collapse:collapse;width:100%}
td,th{border-bottom:1px solid #8883;padding:.2rem .5rem;text-align:left;vertical-align:top}h2{margin-top:2rem}
pre{overflow-x:auto;background:#8881;padding:.5rem;border-radius:6px}
"""
POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; frame-ancestors 'none'"


class _Page(OpenAPIRenderPlugin):
    """Serves our page where the framework would load one from elsewhere."""

    def __init__(self) -> None:
        super().__init__(path="/", media_type=MediaType.HTML)

    def render(self, request: Request[Any, Any, Any], openapi_schema: dict[str, Any]) -> bytes:
        return page(complete(openapi_schema, request.app)).encode()


def config(*, hidden: bool = False) -> OpenAPIConfig:
    """``hidden``: only described, for an application whose description is shown by another."""
    return OpenAPIConfig(
        title="Dockyard",
        version=__version__,
        description="Generative models on your own machines. OpenAI clients work with the base URL of this server.",
        path="/docs/further" if hidden else "/docs",
        render_plugins=[_Page()],
        use_handler_docstrings=False,
    )


def handlers() -> list[HTTPRouteHandler]:
    """The machine-readable description."""

    @get("/openapi.json", include_in_schema=False, sync_to_thread=False)
    def openapi(request: Request[Any, Any, Any]) -> Response[bytes]:
        found = complete(request.app.openapi_schema.to_schema(), request.app)
        return Response(msgspec.json.encode(found), media_type="application/json")

    return [openapi]


def complete(described: dict[str, Any], app: object = None) -> dict[str, Any]:
    """The framework's description with the hot routes and, where ``app`` has them by now, the other dialects added."""
    hot, paths, known = dict(HOT), dict(described.get("paths", {})), dict(described.get("components", {}))
    schemas = dict(known.get("schemas", {}))
    if (others := getattr(app, "others", None)) is not None:
        further = others[0].openapi_schema.to_schema()
        paths.update(further.get("paths", {}))
        schemas.update(further.get("components", {}).get("schemas", {}))
        hot.update(others[1].described)
    paths = {path: _with_errors(methods) for path, methods in paths.items()}
    bodies, components = msgspec.json.schema_components(
        tuple(one.body for one in hot.values()), ref_template="#/components/schemas/{name}"
    )
    for (path, one), body in zip(hot.items(), bodies, strict=True):
        paths[path] = {**paths.get(path, {}), "post": _described(path, one, body)}
    return {
        **described,
        "paths": dict(sorted(paths.items())),
        "components": {**known, "schemas": {**schemas, **components}},
    }


def _with_errors(methods: dict[str, Any]) -> dict[str, Any]:
    """A path's operations with errors as they are told here; the framework describes its own."""
    found = {}
    for method, operation in methods.items():
        if isinstance(operation, dict) and "responses" in operation:
            answers = {status: one for status, one in operation["responses"].items() if status != "400"}
            operation = {**operation, "responses": {"default": {"description": "An error"}, **answers}}
        found[method] = operation
    return found


def _described(path: str, one: Described, body: dict[str, Any]) -> dict[str, Any]:
    answers = {"application/json": {"schema": {"type": "object"}}, one.stream: {}}
    return {
        "tags": [one.tag],
        "summary": one.summary,
        "operationId": path.strip("/").replace("/", "_"),
        "requestBody": {"required": True, "content": {"application/json": {"schema": body}}},
        "responses": {
            "200": {"description": "The answer", "content": answers},
            "default": {"description": f"An error in the shape of {one.tag}", "content": {"application/json": {}}},
        },
    }


def page(described: dict[str, Any]) -> str:
    """The description as one page that needs nothing from elsewhere."""
    groups: dict[str, list[str]] = {}
    for path, methods in described["paths"].items():
        for method, operation in methods.items():
            if isinstance(operation, dict) and "responses" in operation:
                tag = (operation.get("tags") or ["Other"])[0]
                groups.setdefault(tag, []).append(_operation(described, method, path, operation))
    first = ["OpenAI", "Operation"]
    order = sorted(groups, key=lambda tag: (first.index(tag) if tag in first else len(first), tag))
    body = "".join(f"<h2>{html.escape(tag)}</h2>{''.join(groups[tag])}" for tag in order)
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Dockyard API</title>'
        f'<meta name="viewport" content="width=device-width"><meta http-equiv="content-security-policy" '
        f'content="{POLICY}"><style>{STYLE}</style></head><body><h1>Dockyard {__version__}</h1>'
        f"<p>{html.escape(described['info'].get('description') or '')} "
        f'Machine-readable: <a href="/openapi.json">/openapi.json</a>.</p>{body}</body></html>'
    )


def _operation(described: dict[str, Any], method: str, path: str, operation: dict[str, Any]) -> str:
    rows = [
        _row(one["name"], one.get("schema", {}), one.get("required", False), one["in"], described)
        for one in operation.get("parameters", ())
    ]
    for content in operation.get("requestBody", {}).get("content", {}).values():
        schema = _resolved(described, content.get("schema", {}))
        required = schema.get("required", ())
        rows += [
            _row(name, field, name in required, "body", described)
            for name, field in schema.get("properties", {}).items()
        ]
    table = f"<table><tr><th>field</th><th>in</th><th>type</th><th></th></tr>{''.join(rows)}</table>" if rows else ""
    summary = html.escape(operation.get("summary") or "")
    shown = html.escape(path)
    return (
        f'<details><summary><b class="m">{method.upper()}</b> <code>{shown}</code> {summary}</summary>{table}</details>'
    )


def _row(name: str, schema: dict[str, Any], required: bool, where: str, described: dict[str, Any]) -> str:
    about = html.escape(str(schema.get("description", "")))
    star = " *" if required else ""
    kind = html.escape(_kind(schema, described))
    return f"<tr><td><code>{html.escape(name)}</code>{star}</td><td>{where}</td><td>{kind}</td><td>{about}</td></tr>"


def _resolved(described: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    for option in schema.get("oneOf", schema.get("anyOf", ())):
        if "$ref" in option:
            schema = option
    if "$ref" in schema:
        found = described.get("components", {}).get("schemas", {}).get(schema["$ref"].rpartition("/")[2], {})
        return dict(found)
    return schema


def _kind(schema: dict[str, Any], described: dict[str, Any]) -> str:
    """A schema in a few words: "number 0–2", "string | list of string"."""
    if options := schema.get("anyOf") or schema.get("oneOf"):
        return " | ".join(dict.fromkeys(_kind(option, described) for option in options))
    if "$ref" in schema:
        return str(schema["$ref"]).rpartition("/")[2]
    if "enum" in schema:
        return " | ".join(map(str, schema["enum"]))
    if schema.get("type") == "array":
        return f"list of {_kind(schema.get('items', {}), described)}"
    text = str(schema.get("type", "any"))
    low, high = schema.get("minimum"), schema.get("maximum")
    return (
        f"{text} {low if low is not None else ''}–{high if high is not None else ''}" if {low, high} != {None} else text
    )
