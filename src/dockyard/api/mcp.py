"""MCP for any client: ``/mcp`` and, for another profile than the default, ``/p/{profile}/mcp``; tools as plain JSON.

Streamable HTTP of both protocol eras is the ``mcp`` package's; who calls is known by their Dockyard key. A legacy
session belongs to the key that began it, and to its profile.
"""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

import msgspec
from litestar import Request, get, post
from litestar.params import FromQuery, JSONBody
from litestar.types import HTTPScope, Receive, Send
from msgspec import Meta

from dockyard.api import _mcp_calls
from dockyard.api._further import Routes
from dockyard.api._library import library
from dockyard.api._site import Site
from dockyard.api._toolbox import toolbox
from dockyard.api._wire import Headers, Hot, read_body, send_error
from dockyard.errors import DockyardError, NotFound
from dockyard.types import Json, Principal

DEFAULT = "default"
MOST_DOORS = 256
BODY_BYTES = 4 << 20
"""Of one message of a client."""
WHO = "dockyard.principal"


class CallBody(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """The body of ``/api/dockyard/mcp/call``."""

    tool: Annotated[str, Meta(min_length=1, max_length=512)]
    arguments: dict[str, Json] = {}
    profile: Annotated[str, Meta(min_length=1, max_length=200)] = DEFAULT
    approval: Annotated[str | None, Meta(description="The id of an approval that was granted.")] = None
    conversation: Annotated[
        str, Meta(max_length=200, description="Calls of one conversation: what came in earlier is remembered of it.")
    ] = ""


def routes(site: Site) -> Routes:
    """Found by ``_further``."""
    doors = Doors(site)
    site.ends.append(doors.close)
    hot: dict[str, Hot] = {"/mcp": doors.default, "/mcp/": doors.default}
    return Routes(handlers=plain(site), hot=hot, below={"/p/": doors.of_profile})


class Door:
    """The clients of one profile."""

    def __init__(self, front: Any) -> None:
        from mcp.server.streamable_http_manager import StreamableHTTPSessionManager

        self.front = front
        self._manager = StreamableHTTPSessionManager(front.server)
        self._open = asyncio.Event()
        self._end = asyncio.Event()
        self._keeper = asyncio.create_task(self._keep())

    async def _keep(self) -> None:
        """The manager must be entered and left by one task."""
        try:
            async with self._manager.run():
                self._open.set()
                await self._end.wait()
        finally:
            self._open.set()

    async def handle(self, scope: Any, receive: Any, send: Any) -> None:
        await self._open.wait()
        await self._manager.handle_request(scope, receive, send)

    async def close(self) -> None:
        self._end.set()
        await asyncio.gather(self._keeper, return_exceptions=True)


class Doors:
    """Makes a profile's door when its first client knocks."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._doors: dict[str, Door] = {}
        self._making = asyncio.Lock()

    async def of_profile(self, scope: HTTPScope, headers: Headers, receive: Receive, send: Send) -> None:
        profile, _, rest = scope["path"].removeprefix("/p/").strip("/").partition("/")
        if rest != "mcp":
            await send_error(send, NotFound(f"there is nothing at {scope['path']!r}", hint="/p/{profile}/mcp"))
            return
        await self.answer(profile, scope, headers, receive, send)

    async def default(self, scope: HTTPScope, headers: Headers, receive: Receive, send: Send) -> None:
        await self.answer(DEFAULT, scope, headers, receive, send)

    async def answer(self, profile: str, scope: HTTPScope, headers: Headers, receive: Receive, send: Send) -> None:
        task = asyncio.current_task()
        assert task is not None
        watchdog = self._site.watchdog
        body: bytes | None = None
        try:
            who = await self._site.principal(headers, "infer")
            door = await self._door(profile)
            if scope.get("method") == "POST":
                body = await read_body(receive, headers, BODY_BYTES, watchdog, task)
        except DockyardError as error:
            await send_error(send, error)
            return
        watchdog.open.add(task)
        try:
            await self._pass_on(door, scope, headers, body, who, receive, send)
        except asyncio.CancelledError:
            if not self._site.watchdog.ending:
                raise
            task.uncancel()
        finally:
            self._site.watchdog.open.discard(task)

    async def _pass_on(
        self,
        door: Door,
        scope: HTTPScope,
        headers: Headers,
        body: bytes | None,
        who: Principal,
        receive: Receive,
        send: Send,
    ) -> None:
        from dockyard.tools import sdk_calls

        if body is not None and sdk_calls.is_for_us(headers):
            message = sdk_calls.read(body, list(scope["headers"]), door.front.schema)
            if message is not None:
                named: Any = {**scope, WHO: who}
                await _mcp_calls.call(door.front, message, named, receive, send, self._site.watchdog)
                return
        await door.handle(_named(scope, who), receive if body is None else _again(body, receive), send)

    async def _door(self, profile: str) -> Door:
        found = self._doors.get(profile)
        if found is not None:
            return found
        async with self._making:
            if profile not in self._doors:
                tools = toolbox(self._site)
                await tools.start()
                await asyncio.to_thread(tools.profiles.get, profile)
                if len(self._doors) >= MOST_DOORS:
                    raise NotFound(f"more than {MOST_DOORS} profiles are in use", param="profile")
                front = await asyncio.to_thread(_front, tools, profile, library(self._site))
                self._doors[profile] = Door(front)
            return self._doors[profile]

    async def close(self) -> None:
        for door in self._doors.values():
            await door.close()


def _again(body: bytes, receive: Receive) -> Receive:
    """What was read is given once more."""
    left = [body]

    async def replay() -> Any:
        return {"type": "http.request", "body": left.pop(), "more_body": False} if left else await receive()

    return replay


def _front(tools: Any, profile: str, prompts: Any) -> Any:
    from dockyard.api._mcp_prompts import PromptFront

    def principal(context: Any) -> Principal:
        found: Principal = context.request.scope[WHO]
        return found

    return PromptFront(prompts, tools, profile, principal)


def _named(scope: Any, who: Principal) -> Any:
    """The scope as the package reads it: it ties a session to the user who began it."""
    from mcp.server.auth.middleware.bearer_auth import AuthenticatedUser
    from mcp.server.auth.provider import AccessToken

    user = AuthenticatedUser(AccessToken(token="", client_id=who.name, scopes=sorted(who.scopes)))
    return {**scope, "user": user, WHO: who}


def plain(site: Site) -> list[Any]:
    """Tools without MCP, for the command line and for scripts."""
    guards = [site.require("infer")]

    async def session(request: Request[Any, Any, Any], profile: str, handle: str = "") -> tuple[Any, Any]:
        who = await site.principal(dict(request.scope["headers"]), "infer")
        tools = toolbox(site)
        await tools.start()
        return tools, tools.session(who, profile, "api", handle=handle)

    @get("/api/dockyard/mcp/servers", guards=guards, tags=["MCP"], summary="Tool servers and how they are")
    async def servers(profile: FromQuery[str] = DEFAULT) -> dict[str, Json]:
        return {"servers": await toolbox(site).status(profile)}

    @get("/api/dockyard/mcp/tools", guards=guards, tags=["MCP"], summary="The tools of a profile")
    async def tools(request: Request[Any, Any, Any], profile: FromQuery[str] = DEFAULT) -> dict[str, Json]:
        box, talk = await session(request, profile)
        return {"tools": [described(tool) for tool in await box.tools(talk)]}

    @post("/api/dockyard/mcp/call", guards=guards, tags=["MCP"], summary="Use a tool", status_code=200)
    async def call(request: Request[Any, Any, Any], data: JSONBody[CallBody]) -> dict[str, Json]:
        box, talk = await session(request, data.profile, data.conversation)
        outcome = await box.call(talk, data.tool, data.arguments, approval=data.approval)
        told: dict[str, Json] = {"content": outcome.content, "is_error": outcome.is_error}
        if outcome.structured is not None:
            told["structured"] = outcome.structured
        return told

    return [servers, tools, call]


def described(tool: Any) -> dict[str, Json]:
    """A tool as plain JSON."""
    return {
        "id": tool.id,
        "server": tool.server,
        "name": tool.name,
        "description": tool.description,
        "schema": tool.schema,
        "labels": sorted(tool.labels),
        "fingerprint": tool.fingerprint,
    }
