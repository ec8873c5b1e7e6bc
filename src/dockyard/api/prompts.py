"""The library of prompts over HTTP: what there is, what one says, what it becomes; and with "manage" new versions."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

import msgspec
from litestar import get, post
from litestar.params import FromPath, FromQuery, JSONBody
from msgspec import Meta

from dockyard.api._further import Routes
from dockyard.api._library import library
from dockyard.api._site import Site
from dockyard.types import Json, Message

Name = Annotated[str, Meta(min_length=1, max_length=512)]
PATH = "/api/dockyard/prompts"


class NewVersion(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """A prompt's text, YAML or JSON, to be kept as its next version; ``tags`` are further names of it."""

    name: Name
    text: str
    tags: list[str] = []


class Rendered(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What a prompt is to be filled in with; ``input`` is what the user says."""

    name: Name
    version: str = ""
    input: str | None = None
    variables: dict[str, Json] = {}


class Back(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Which version a tag goes back to; empty: the one before."""

    name: Name
    to: str = ""
    tag: Annotated[str, Meta(min_length=1, max_length=128)] = "latest"


def routes(site: Site) -> Routes:
    """Found by ``_further``."""
    return Routes(handlers=[*_reading(site), *_changing(site)])


def _reading(site: Site) -> list[Any]:
    tagged: dict[str, Any] = {"guards": [site.require("infer")], "tags": ["Prompts"]}

    @get(PATH, summary="Prompts and their versions", **tagged)
    async def prompts() -> dict[str, Json]:
        return {"prompts": await asyncio.to_thread(listed, library(site))}

    @get(f"{PATH}/{{name:path}}", summary="One prompt: its text, what it says, its versions", **tagged)
    async def prompt(name: FromPath[str], version: FromQuery[str] = "") -> dict[str, Json]:
        return await asyncio.to_thread(described, library(site), name.removeprefix("/"), version)

    @post(f"{PATH}/render", summary="The messages that a prompt becomes", status_code=200, **tagged)
    async def render(data: JSONBody[Rendered]) -> dict[str, Json]:
        return await asyncio.to_thread(rendered, library(site), data)

    return [prompts, prompt, render]


def _changing(site: Site) -> list[Any]:
    tagged: dict[str, Any] = {"guards": [site.require("manage")], "tags": ["Prompts"], "status_code": 200}

    @post(PATH, summary="Keep a text as a prompt's next version", **tagged)
    async def create(data: JSONBody[NewVersion]) -> dict[str, Json]:
        made = await asyncio.to_thread(library(site).create, data.name, data.text, tags=tuple(data.tags))
        return {"name": made.name, "version": made.version, "digest": made.digest}

    @post(f"{PATH}/rollback", summary="Move a prompt's tag to an earlier version", **tagged)
    async def rollback(data: JSONBody[Back]) -> dict[str, Json]:
        was, now = await asyncio.to_thread(library(site).rollback, data.name, data.to, tag=data.tag)
        return {"name": data.name, "tag": data.tag, "was": was.version, "now": now.version}

    return [create, rollback]


def listed(prompts: Any) -> list[dict[str, Json]]:
    """A row for each prompt; one that can't be read says why."""
    from dockyard.errors import DockyardError

    rows: list[dict[str, Json]] = []
    for name in prompts.names():
        try:
            found = prompts.find(name)
        except DockyardError as error:
            rows.append({"name": name, "error": error.message})
            continue
        rows.append(
            {
                "name": name,
                "version": found.version,
                "digest": found.digest,
                "description": found.prompt.description,
                "variables": list(found.prompt.variables),
                "versions": _versions(prompts, name),
            }
        )
    return rows


def described(prompts: Any, name: str, version: str = "") -> dict[str, Json]:
    """All about one prompt."""
    found = prompts.find(name, version)
    return {
        "name": found.name,
        "version": found.version,
        "digest": found.digest,
        "text": found.text,
        "prompt": msgspec.to_builtins(found.prompt),
        "versions": _versions(prompts, name),
    }


def _versions(prompts: Any, name: str) -> list[Json]:
    from dockyard.errors import NotFound

    try:
        return [msgspec.to_builtins(each) for each in prompts.versions(name)]
    except NotFound:
        return []  # a file of the stack has none


def rendered(prompts: Any, asked: Rendered) -> dict[str, Json]:
    """The messages, without examples that are chosen by vectors: those are chosen when a model is asked."""
    from dockyard.prompt.render import composed

    found = prompts.find(asked.name, asked.version)
    said = () if asked.input is None else (Message(role="user", content=asked.input),)
    select = found.prompt.select
    examples = found.prompt.examples if select is None else found.prompt.examples[: select.count]
    messages = composed(found.prompt, asked.variables, said, examples)
    return {"name": found.name, "version": found.version, "messages": [msgspec.to_builtins(one) for one in messages]}
