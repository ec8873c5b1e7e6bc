"""``/api/dockyard/arenas``: people judge answers blind. Managing keys make arenas and read what came of them; any key
may vote."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from litestar import Request, Response, delete, get, post
from litestar.params import FromPath, JSONBody, QueryParameter
from msgspec import Meta

from dockyard.api._further import Routes
from dockyard.api._site import Site
from dockyard.errors import InvalidRequest
from dockyard.ops.arena.service import ArenaService, Draft

BASE = "/api/dockyard/arenas"
Asking = Request[Any, Any, Any]
Rater = Annotated[str, QueryParameter(description="Who judges; a name within the key that asks.")]


class VoteBody(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What a rater says of a task: a side, "tie" or "bad" of a pair; a number of one answer."""

    task: Annotated[str, Meta(max_length=64)]
    says: Literal["left", "right", "tie", "bad"] | int
    rater: Annotated[str, Meta(max_length=120)] = "me"
    consent: Annotated[bool, Meta(description="The vote may become training data.")] = False


def routes(site: Site) -> Routes:
    """What is answered here; nothing where no database is."""
    return Routes(handlers=[*_managing(site), *_voting(site)])


def _service(site: Site) -> ArenaService:
    if site.state is None:
        raise InvalidRequest("this server keeps no database, and so no arenas")
    return ArenaService(site.state)


def _managing(site: Site) -> list[Any]:
    managed: dict[str, Any] = {"guards": [site.require("manage")], "tags": ["Arenas"]}

    @get(BASE, summary="Arenas", **managed)
    async def arenas() -> dict[str, Any]:
        return {"arenas": msgspec.to_builtins(await _service(site).all())}

    @post(BASE, summary="Make an arena of prompts and models' answers", **managed)
    async def create(data: JSONBody[Draft]) -> dict[str, Any]:
        made: dict[str, Any] = msgspec.to_builtins(await _service(site).create(data))
        return made

    @delete(BASE + "/{name:str}", summary="Delete an arena and its votes", status_code=200, **managed)
    async def remove(name: FromPath[str]) -> dict[str, str]:
        await _service(site).remove(name)
        return {"removed": name}

    @get(BASE + "/{name:str}/results", summary="Ranking with intervals, and agreement of raters", **managed)
    async def results(name: FromPath[str]) -> dict[str, Any]:
        found: dict[str, Any] = msgspec.to_builtins(await _service(site).results(name))
        return found

    @get(BASE + "/{name:str}/export", summary="Preference data of votes that may be used so, as JSONL", **managed)
    async def export(name: FromPath[str]) -> Response[bytes]:
        from dockyard.ops.arena.export import lines

        found = await _service(site).export(name)
        headers = {"content-disposition": "attachment", "x-content-type-options": "nosniff"}
        return Response(lines(found), media_type="application/jsonl", headers=headers)

    return [arenas, create, remove, results, export]


def _voting(site: Site) -> list[Any]:
    open_: dict[str, Any] = {"guards": [site.require("infer")], "tags": ["Arenas"]}

    async def rater_of(request: Asking, rater: str) -> str:
        """A rater belongs to the key that speaks for them: no key can vote in another's name."""
        who = await site.principal(dict(request.scope["headers"]))
        return f"{who.name}/{rater}"

    @get(BASE + "/{name:str}/next", summary="What a rater is to judge next; `task` is null at the end", **open_)
    async def following(request: Asking, name: FromPath[str], rater: Rater = "me") -> dict[str, Any]:
        found = await _service(site).next(name, await rater_of(request, rater))
        return {"task": msgspec.to_builtins(found)}

    @post(BASE + "/{name:str}/votes", summary="Say what a rater thinks of a task", **open_)
    async def vote(request: Asking, name: FromPath[str], data: JSONBody[VoteBody]) -> dict[str, Any]:
        rater = await rater_of(request, data.rater)
        await _service(site).vote(name, rater, data.task, data.says, consent=data.consent)
        return {"task": data.task, "kept": True}

    @delete(BASE + "/{name:str}/votes", summary="Take back all that a rater said", status_code=200, **open_)
    async def forget(request: Asking, name: FromPath[str], rater: Rater = "me") -> dict[str, int]:
        return {"removed": await _service(site).forget(name, await rater_of(request, rater))}

    return [following, vote, forget]
