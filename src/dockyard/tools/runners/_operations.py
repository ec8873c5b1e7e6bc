"""Operations of an OpenAPI 3 document as tools. Pure: a document in, definitions and requests out."""

from __future__ import annotations

import re
from typing import Any, NamedTuple
from urllib.parse import quote

import msgspec

from dockyard.errors import InvalidRequest
from dockyard.types import Json

METHODS = ("get", "put", "post", "delete", "patch", "head", "options")
MOST_OPERATIONS = 500
MOST_NODES = 200_000
BODY = "body"
_DROPPED = re.compile(r"_*[^A-Za-z0-9_-]+_*")
_LOCAL = "#/components/schemas/"


class Place(NamedTuple):
    """Where an argument goes, its name there, and how lists and tables are written: "each" in its own pair, "deep" as
    ``name[key]``, "json", or joined by this character.
    """

    where: str
    name: str
    style: str = "each"


class Operation(NamedTuple):
    """``places`` says of each argument where it goes."""

    name: str
    method: str
    path: str
    places: dict[str, Place]
    content: str
    definition: dict[str, Json]


class Asked(NamedTuple):
    method: str
    path: str
    query: list[tuple[str, str]]
    headers: dict[str, str]
    content: str
    body: Json


def operations(document: Json) -> list[Operation]:
    """All operations that can be called with JSON. Raises InvalidRequest for what is no OpenAPI 3 document."""
    if not isinstance(document, dict) or not str(document.get("openapi", "")).startswith("3."):
        raise InvalidRequest("this is not an OpenAPI 3 document", param="url")
    paths = document.get("paths")
    if not isinstance(paths, dict):
        raise InvalidRequest("this OpenAPI document has no paths", param="url")
    found: dict[str, Operation] = {}
    try:
        for path, item in paths.items():
            shared = item.get("parameters", [])
            for method in METHODS:
                if isinstance(item.get(method), dict):
                    operation = _operation(document, path, method, item[method], shared)
                    name = operation.name
                    while name in found:
                        name = f"{name[:60]}_{len(found)}"
                    definition = {**operation.definition, "name": name}
                    found[name] = operation._replace(name=name, definition=definition)
                if len(found) > MOST_OPERATIONS:
                    raise InvalidRequest(
                        f"this OpenAPI document has more than {MOST_OPERATIONS} operations", param="url"
                    )
    except (AttributeError, KeyError, TypeError, RecursionError) as error:
        raise InvalidRequest(f"this OpenAPI document is malformed: {error!r}", param="url") from error
    return list(found.values())


def _operation(document: dict[str, Json], path: str, method: str, told: dict[str, Json], shared: Json) -> Operation:
    name = _DROPPED.sub("_", str(told.get("operationId") or f"{method}_{path}")).strip("_")[:64] or method
    reader = _Reader(document)
    parameters = {}
    for each in [*shared, *told.get("parameters", [])]:
        parameter = reader.follow(each)
        parameters[parameter["in"], parameter["name"]] = parameter
    properties: dict[str, Json] = {}
    required = []
    places = {}
    for (where, inner), parameter in parameters.items():
        if where == "cookie" or (where == "header" and inner.lower() in ("authorization", "accept", "content-type")):
            continue
        key = inner if inner not in properties and inner != BODY else f"{inner}_{where}"
        place, schema = _place(parameter), _schema(parameter, reader)
        if parameter.get("description"):
            schema = {"description": parameter["description"], **schema}
        properties[key], places[key] = schema, place
        if parameter.get("required") or where == "path":
            required.append(key)
    content = ""
    if told.get("requestBody"):
        body = reader.follow(told["requestBody"])
        content, schema = _body(body, reader)
        properties[BODY], places[BODY] = schema, Place("body", "")
        if body.get("required"):
            required.append(BODY)
    schema = {"type": "object", "properties": properties, "required": required, "additionalProperties": False}
    definition: dict[str, Json] = {
        "name": name,
        "description": "\n\n".join(str(told[key]) for key in ("summary", "description") if told.get(key)),
        "inputSchema": {**schema, "$defs": reader.definitions()} if reader.wanted else schema,
        "annotations": {
            "readOnlyHint": method in ("get", "head", "options"),
            "destructiveHint": method in ("delete", "put", "patch"),
            "idempotentHint": method in ("get", "head", "options", "put", "delete"),
            "openWorldHint": True,
        },
    }
    return Operation(name, method.upper(), path, places, content, definition)


def _schema(parameter: dict[str, Json], reader: _Reader) -> Any:
    inner = next(iter((parameter.get("content") or {}).values()), parameter)
    return reader.schema(inner.get("schema") or {"type": "string"})


def _place(parameter: dict[str, Json]) -> Place:
    where, name = parameter["in"], parameter["name"]
    if parameter.get("content"):
        return Place(where, name, "json")
    style = parameter.get("style") or ("form" if where == "query" else "simple")
    if style == "deepObject":
        return Place(where, name, "deep")
    if where == "query" and parameter.get("explode", style == "form"):
        return Place(where, name)
    return Place(where, name, {"spaceDelimited": " ", "pipeDelimited": "|"}.get(style, ","))


def _body(body: dict[str, Json], reader: _Reader) -> tuple[str, dict[str, Json]]:
    offered = body.get("content") or {}
    for kind, each in offered.items():
        if kind.partition(";")[0] == "application/json" or kind.partition(";")[0].endswith("+json"):
            return kind, reader.schema(each.get("schema") or {})
    kind = next(iter(offered), "text/plain")
    if kind == "application/x-www-form-urlencoded":
        return kind, reader.schema(offered[kind].get("schema") or {"type": "object"})
    return kind, {"type": "string", "description": f"The body as {kind}"}


class _Reader:
    """Schemas with their references, which stay within the document; others become "anything" and are never fetched."""

    def __init__(self, document: dict[str, Json]) -> None:
        self._document = document
        self._nodes = 0
        self.wanted: list[str] = []

    def follow(self, node: Json) -> dict[str, Json]:
        for _ in range(10):
            if not isinstance(node, dict) or "$ref" not in node:
                break
            node = self._at(str(node["$ref"]))
        if not isinstance(node, dict):
            raise TypeError("expected an object")
        return node

    def schema(self, node: Json) -> Any:
        self._nodes += 1
        if self._nodes > MOST_NODES:
            raise InvalidRequest("this OpenAPI document is too large", param="url")
        if isinstance(node, list):
            return [self.schema(each) for each in node]
        if not isinstance(node, dict):
            return node
        reference = node.get("$ref")
        if isinstance(reference, str):
            if not reference.startswith(_LOCAL):
                return {}
            name = reference.removeprefix(_LOCAL)
            if name not in self.wanted:
                self.wanted.append(name)
            return {"$ref": f"#/$defs/{name}"}
        made = {
            key: self.schema(value) for key, value in node.items() if key not in ("nullable", "xml", "discriminator")
        }
        if node.get("nullable") is True and isinstance(made.get("type"), str):
            made["type"] = [made["type"], "null"]
        return made

    def definitions(self) -> dict[str, Json]:
        """Every schema that was referred to, and those that they refer to."""
        made: dict[str, Json] = {}
        for name in self.wanted:  # grows while it is read
            try:
                made[name] = self.schema(self._at(_LOCAL + name))
            except KeyError:
                made[name] = {}
        return made

    def _at(self, reference: str) -> Json:
        if not reference.startswith("#/"):
            raise KeyError(f"the reference {reference!r} leaves the document")
        node: Json = self._document
        for word in reference[2:].split("/"):
            node = node[word.replace("~1", "/").replace("~0", "~")]
        return node


def asked(operation: Operation, arguments: dict[str, Json]) -> Asked:
    """The request of a call. Raises InvalidRequest for what is missing, unknown, or no part of a path."""
    unknown = [name for name in arguments if name not in operation.places]
    missing = [name for name in operation.definition["inputSchema"]["required"] if name not in arguments]
    if unknown or missing:
        what = f"unknown argument {unknown[0]!r}" if unknown else f"the argument {missing[0]!r} is missing"
        raise InvalidRequest(f"{operation.name}: {what}")
    path, query, headers, body = operation.path, [], {}, None
    for key, value in arguments.items():
        place = operation.places[key]
        if place.where == "path":
            text = _joined(place, value)
            if text in ("", ".", ".."):
                raise InvalidRequest(f"{operation.name}: {text!r} is no value for {place.name!r}")
            path = path.replace("{" + place.name + "}", quote(text, safe=""))
        elif place.where == "query":
            query += _pairs(place, value)
        elif place.where == "header":
            headers[place.name] = _joined(place, value).replace("\r", " ").replace("\n", " ")
        else:
            body = value
    return Asked(operation.method, path, query, headers, operation.content if body is not None else "", body)


def _pairs(place: Place, value: Json) -> list[tuple[str, str]]:
    if isinstance(value, dict) and place.style in ("each", "deep"):
        deep = place.style == "deep"
        return [(f"{place.name}[{key}]" if deep else key, _text(one)) for key, one in value.items()]
    if isinstance(value, list) and place.style in ("each", "deep"):
        return [(place.name, _text(one)) for one in value]
    return [(place.name, _joined(place, value))]


def _joined(place: Place, value: Json) -> str:
    """A value as one text."""
    if place.style == "json":
        return msgspec.json.encode(value).decode()
    mark = place.style if len(place.style) == 1 else ","
    if isinstance(value, dict):
        return mark.join(_text(part) for pair in value.items() for part in pair)
    return mark.join(map(_text, value)) if isinstance(value, list) else _text(value)


def _text(value: Json) -> str:
    if isinstance(value, str):
        return value
    return "" if value is None else msgspec.json.encode(value).decode()
