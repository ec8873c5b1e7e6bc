"""Search over 300 tools instead of listing them: what a request pays, and whether the right tool is found.

``search_tools.txt`` has 300 tools of 25 servers like those that people use. ``search_questions.txt`` has, for a tool
that is meant, a task in a person's words, and what a model asks ``search_tools`` for when it gets that task; models
seldom hand on the task as it is, but what a search makes of it is said too. The questions held out are about tools
drawn at random from those that the others are not about, were written when the search was ready, and bar it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec

from benchmarks._bars import Row
from dockyard.tools.model import Tool
from dockyard.tools.search import FOUND, Index, meta_tools
from dockyard.types import Json

HERE = Path(__file__).parent
CHARACTERS = 4
"""To a token, about; both sides are counted alike, so that the share does not depend on it."""


def tools() -> list[Tool]:
    """The 300 tools, with input schemas."""
    found: list[Tool] = []
    server = ""
    for line in (HERE / "search_tools.txt").read_text().splitlines():
        if line.startswith("#"):
            server = line.removeprefix("# ")
            continue
        name, description, parameters = (part.strip() for part in line.split("|"))
        raw: dict[str, Json] = {"name": name, "description": description, "inputSchema": _schema(parameters)}
        found.append(Tool(id=f"{server}__{name}", server=server, name=name, raw=raw))
    return found


def _schema(parameters: str) -> dict[str, Json]:
    properties: dict[str, Json] = {}
    for one in filter(None, (part.strip() for part in parameters.split(","))):
        name, _, kind = one.partition(":")
        properties[name] = {"type": kind or "string"}
        if kind == "array":
            properties[name]["items"] = {"type": "string"}
    return {"type": "object", "properties": properties, "required": list(properties)[:1]}


def questions() -> dict[str, list[tuple[str, str, str]]]:
    """Tool, task and what a model asks for, in two parts: seen, held out."""
    found: dict[str, list[tuple[str, str, str]]] = {}
    for line in (HERE / "search_questions.txt").read_text().splitlines():
        if line.startswith("#"):
            part = found.setdefault("held out" if "held out" in line else "seen", [])
            continue
        tool, task, query = (word.strip() for word in line.split("|"))
        part.append((tool.replace(".", "__"), task, query))
    return found


def misses(index: Index, asked: list[tuple[str, str]]) -> list[str]:
    """The tasks whose tool is not among the first five."""
    return [f"{task} ({tool})" for tool, task in asked if tool not in [one.id for one in index.search(task, FOUND)]]


def rows() -> Iterator[Row]:
    offered = tools()
    full = _tokens([{**tool.raw, "name": tool.id} for tool in offered])
    short = _tokens(meta_tools(len(offered)))
    yield Row(
        f"tools/list of {len(offered)} tools with search on, of the full list",
        f"{short / full:.1%} (about {short} of {full} tokens)",
        "<= 5 %",
        short <= 0.05 * full,
    )
    index = Index(offered)
    for half, some in questions().items():
        for words, pairs in (
            ("a model's queries", [(tool, query) for tool, _, query in some]),
            ("a person's words", [(tool, task) for tool, task, _ in some]),
        ):
            missed = misses(index, pairs)
            share = 1 - len(missed) / len(pairs)
            barred = (half, words) == ("held out", "a model's queries")
            told = f"{share:.1%} of {len(pairs)}" + (f"; missed: {'; '.join(missed)}" if missed else "")
            what = f"the right tool in the top {FOUND}: {words}, {half}"
            yield Row(what, told, ">= 90 %" if barred else "-", share >= 0.9 if barred else None)


def _tokens(listed: list[dict[str, Json]]) -> int:
    return len(msgspec.json.encode(listed)) // CHARACTERS
