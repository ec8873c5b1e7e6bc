"""The server half: what a client of the gateway talks to, for one profile, in both protocol eras."""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, TypeVar, get_args

import mcp_types as types
from mcp.server.caching import CacheHint
from mcp.server.lowlevel.server import NotificationOptions, Server
from mcp.server.subscriptions import (
    InMemorySubscriptionBus,
    ListenHandler,
    PromptsListChanged,
    ResourcesListChanged,
    ResourceUpdated,
    ToolsListChanged,
)
from mcp.shared.exceptions import MCPError
from mcp.shared.message import ServerMessageMetadata
from mcp_types.methods import CacheableMethod
from mcp_types.version import MODERN_PROTOCOL_VERSIONS
from pydantic import BaseModel, ConfigDict, ValidationError

from dockyard.errors import DockyardError, InvalidRequest, NotFound
from dockyard.tools.bridge import Asking
from dockyard.tools.directory import Kind
from dockyard.tools.model import Profile, Session
from dockyard.tools.sdk import Refusal, me
from dockyard.tools.sdk_calls import client_of, declared_by
from dockyard.tools.sdk_failures import failed, failure
from dockyard.tools.sdk_fields import say, whole
from dockyard.tools.search import CALL_TOOL, SEARCH_TOOLS, Finder, answer, meant, meta_tools
from dockyard.tools.toolbox import Toolbox
from dockyard.tools.watching import Change
from dockyard.types import Json, Principal

log = logging.getLogger(__name__)

PAGE = 200
MOST_SESSIONS = 1000
MOST_LISTENERS = 1024
RESERVED = "io.modelcontextprotocol/"
LEVELS: tuple[str, ...] = get_args(types.LoggingLevel)
QUESTIONS: dict[str, Any] = {
    "elicitation/create": types.ElicitRequest,
    "sampling/createMessage": types.CreateMessageRequest,
    "roots/list": types.ListRootsRequest,
}
META = (SEARCH_TOOLS, CALL_TOOL)
BEGINNINGS = ("initialize", "server/discover")

Item = TypeVar("Item")


class Answered(BaseModel):
    """A client's answer as it came."""

    model_config = ConfigDict(extra="allow")


class Conversation:
    """What is known of a client between its requests. A legacy one has a connection, a modern one is known by name."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.level: str | None = None
        self.subscribed: set[str] = set()
        self.pump: asyncio.Task[None] | None = None


class Gate(Server[Any]):
    """The package's server, announcing that lists may change in the legacy era too."""

    def create_initialization_options(self, notification_options: Any = None, *others: Any, **named: Any) -> Any:
        every = NotificationOptions(prompts_changed=True, resources_changed=True, tools_changed=True)
        return super().create_initialization_options(notification_options or every, *others, **named)


class Front:
    """``server`` answers for the profile; ``principal`` says who sent a request of the package.

    ``given`` is used in the place of the profile of that name, as when it was compared with a lock.
    """

    def __init__(
        self,
        toolbox: Toolbox,
        profile: str,
        principal: Callable[[Any], Principal],
        given: Profile | None = None,
    ) -> None:
        self._toolbox = toolbox
        self._profile = profile
        self._given = given
        self._principal = principal
        self._modern: OrderedDict[tuple[str, str], Conversation] = OrderedDict()
        self._schemas: dict[str, Json] = {}
        self._finder = Finder()
        self._listeners = 0
        about = me()
        self.server = Gate(
            "dockyard",
            version=about["version"],
            title="Dockyard",
            cache_hints=dict.fromkeys(get_args(CacheableMethod), CacheHint()),
            get_tool_input_schema=self._schemas.get,
            on_list_tools=self._list_tools,  # type: ignore[arg-type]
            on_call_tool=self.call,  # type: ignore[arg-type]
            on_list_prompts=self._list_prompts,  # type: ignore[arg-type]
            on_get_prompt=self._relay,  # type: ignore[arg-type]
            on_list_resources=self._list_resources,  # type: ignore[arg-type]
            on_list_resource_templates=self._list_templates,  # type: ignore[arg-type]
            on_read_resource=self._relay,  # type: ignore[arg-type]
            on_subscribe_resource=self._subscribe,
            on_unsubscribe_resource=self._unsubscribe,
            on_subscriptions_listen=self._listen,
            on_completion=self._relay,  # type: ignore[arg-type]
        )
        self.server.middleware += [self._guide, whole]
        # Named in the constructor, these warn that a later era does without them.
        self.server.add_request_handler("logging/setLevel", types.SetLevelRequestParams, self._set_level)
        self.server.add_notification_handler("notifications/initialized", types.NotificationParams, self._initialized)
        self.server.add_notification_handler(
            "notifications/roots/list_changed", types.NotificationParams, self._roots_changed
        )

    async def _guide(self, ctx: Any, call_next: Any) -> Any:
        """Tells a client that begins what the servers behind say of themselves."""
        result = await call_next(ctx)
        if ctx.method not in BEGINNINGS or not isinstance(result, dict):
            return result
        session = self._session(self._principal(ctx), ctx)
        text = await self._toolbox.instructions(session)
        return {**result, "instructions": text} if text else result

    def schema(self, name: str) -> Json:
        """Of a tool that was listed, by the name that clients use."""
        return self._schemas.get(name)

    def _conversation(self, context: Any) -> Conversation:
        principal = self._principal(context)
        if context.protocol_version not in MODERN_PROTOCOL_VERSIONS:
            # The package shows a connection's own state to no handler yet.
            state = context.session._connection.state
            if "dockyard" not in state:
                state["dockyard"] = Conversation(self._session(principal, context))
            found: Conversation = state["dockyard"]
            return found
        key = (principal.name, client_of(context))
        conversation = self._modern.pop(key, None) or Conversation(self._session(principal, context))
        self._modern[key] = conversation
        if len(self._modern) > MOST_SESSIONS:
            self._modern.popitem(last=False)
        return conversation

    def _session(self, principal: Principal, context: Any) -> Session:
        try:
            session = self._toolbox.session(principal, self._profile, client_of(context))
        except DockyardError as error:
            raise failure(error) from None
        session.given = self._given
        return session

    async def _list_tools(self, context: Any, params: Any) -> dict[str, Json]:
        tools = await self._list(context, "tools")
        for name, entry in tools.items():
            self._schemas[name] = entry.tool.schema
        if self._searched(context):
            return _page("tools", meta_tools(len(tools)), "name", params)
        return _page("tools", [entry.raw for entry in tools.values()], "name", params)

    async def _list_prompts(self, context: Any, params: Any) -> dict[str, Json]:
        found = await self._list(context, "prompts")
        return _page("prompts", [entry.raw for entry in found.values()], "name", params)

    async def _list_resources(self, context: Any, params: Any) -> dict[str, Json]:
        found = await self._list(context, "resources")
        return _page("resources", [entry.raw for entry in found.values()], "uri", params)

    async def _list_templates(self, context: Any, params: Any) -> dict[str, Json]:
        found = await self._list(context, "templates")
        return _page("resourceTemplates", [entry.raw for entry in found.values()], "uriTemplate", params)

    async def _list(self, context: Any, kind: Kind) -> dict[str, Any]:
        try:
            found: dict[str, Any] = await self._toolbox.listed(self._conversation(context).session, kind)
        except DockyardError as error:
            raise failure(error) from None
        return found

    async def call(self, context: Any, _params: Any) -> dict[str, Json]:
        """Failures of a tool are results, so that a model can read them; an unknown tool is an error of the client."""
        params = dict(context.params or {})
        try:
            if params.get("name") in META and self._searched(context):
                return await self._meta(context, params)
            return await self._exchange(context, params)
        except (NotFound, Refusal) as error:
            raise failure(error) from None
        except DockyardError as error:
            if isinstance(error, InvalidRequest) and error.param == "requestState":
                raise failure(error) from None
            return failed(error)

    def _searched(self, context: Any) -> bool:
        """Whether this client gets ``search_tools`` and ``call_tool`` instead of the whole list."""
        return self._toolbox.profile(self._conversation(context).session).search

    async def _meta(self, context: Any, params: dict[str, Json]) -> dict[str, Json]:
        arguments = params.get("arguments") or {}
        if params["name"] == CALL_TOOL:
            name, given = meant(arguments)
            return await self._exchange(context, {**params, "name": name, "arguments": given})
        tools = await self._toolbox.tools(self._conversation(context).session)
        found = answer(self._finder.find(tools, str(arguments.get("query") or "")))
        return {"content": found.content, "resultType": "complete"}

    async def _relay(self, context: Any, _params: Any) -> dict[str, Json]:
        try:
            return await self._exchange(context, dict(context.params or {}))
        except DockyardError as error:
            modern = context.protocol_version in MODERN_PROTOCOL_VERSIONS
            raise failure(error, params=context.params, modern=modern) from None

    async def _exchange(self, context: Any, params: dict[str, Json]) -> dict[str, Json]:
        conversation = self._conversation(context)
        asking = self._asking(context, conversation, params)
        meta = {name: value for name, value in (params.pop("_meta", None) or {}).items() if not _ours(name)}
        if meta:
            params["_meta"] = meta
        result = await self._toolbox.exchange(conversation.session, context.method, params, asking)
        told = {name: value for name, value in (result.get("_meta") or {}).items() if not name.startswith(RESERVED)}
        result = {"resultType": "complete", **{name: value for name, value in result.items() if name != "_meta"}}
        return say({**result, "_meta": told} if told else result)

    def _asking(self, context: Any, conversation: Conversation, params: dict[str, Json]) -> Asking:
        modern = context.protocol_version in MODERN_PROTOCOL_VERSIONS
        capabilities = declared_by(context)
        level = (context.meta or {}).get(types.LOG_LEVEL_META_KEY) if modern else conversation.level
        least = level if level in LEVELS else None
        asking = Asking(
            # Questions of a modern client's calls are told apart by the call, those of a legacy one's by the client.
            key=f"{id(context)}" if modern and capabilities else conversation.session.id,
            relays=modern,
            capabilities=capabilities,
            # A legacy client that named no level gets what its servers think right; modern ones want one named.
            level=least or (None if modern else "info"),
            responses=params.pop("inputResponses", None),
            state=params.pop("requestState", None),
        )
        if not modern:
            asking.ask = lambda method, question: self._ask(context, method, question)
        if (context.meta or {}).get("progress_token") is not None:
            asking.on_progress = context.session.report_progress
        if not modern or level is not None:
            asking.on_log = lambda entry: self._log(context, least, entry)
        return asking

    async def _ask(self, context: Any, method: str, question: Json) -> Json:
        """Send a server's question on to a legacy client, on the stream of the request that it is about."""
        try:
            request = QUESTIONS[method].model_validate({"method": method, "params": question}, by_name=False)
            answer = await context.session.send_request(
                request, Answered, metadata=ServerMessageMetadata(related_request_id=context.request_id)
            )
        except ValidationError as error:
            raise Refusal(
                f"{method!r}: question or answer has an invalid shape ({error.error_count()} faults)"
            ) from None
        except MCPError as error:
            raise Refusal(error.message, rpc=error.code, data=error.data) from None
        return answer.model_dump(by_alias=True, mode="json")

    async def _log(self, context: Any, least: str | None, entry: dict[str, Json]) -> None:
        level = entry.get("level")
        if level not in LEVELS or (least is not None and LEVELS.index(level) < LEVELS.index(least)):
            return
        try:
            note = types.LoggingMessageNotification.model_validate(
                {"method": "notifications/message", "params": entry}, by_name=False
            )
        except ValidationError:
            return
        await context.session.send_notification(note, related_request_id=context.request_id)

    async def _set_level(self, context: Any, params: types.SetLevelRequestParams) -> types.EmptyResult:
        conversation = self._conversation(context)
        conversation.level = params.level
        try:
            await self._toolbox.level(conversation.session, params.level)
        except DockyardError as error:
            log.debug("a server does not take the log level: %s", error.message)
        return types.EmptyResult()

    async def _subscribe(self, context: Any, params: types.SubscribeRequestParams) -> types.EmptyResult:
        conversation = self._conversation(context)
        uri = str(params.uri)
        if uri not in conversation.subscribed:
            try:
                await self._toolbox.subscribe(conversation.session, uri)
            except DockyardError as error:
                raise failure(error, params=context.params) from None
            conversation.subscribed.add(uri)
        return types.EmptyResult()

    async def _unsubscribe(self, context: Any, params: types.UnsubscribeRequestParams) -> types.EmptyResult:
        conversation = self._conversation(context)
        if str(params.uri) in conversation.subscribed:
            conversation.subscribed.discard(str(params.uri))
            await self._toolbox.unsubscribe(conversation.session, str(params.uri))
        return types.EmptyResult()

    async def _initialized(self, context: Any, _params: Any) -> None:
        """A legacy client is there: it hears of changes from now on, as long as it is connected."""
        conversation = self._conversation(context)
        if conversation.pump is None:
            conversation.pump = asyncio.create_task(self._tell(context.session, conversation))
            context.session._connection.exit_stack.push_async_callback(self._leave, conversation)

    async def _leave(self, conversation: Conversation) -> None:
        if conversation.pump is not None:
            conversation.pump.cancel()
        for uri in conversation.subscribed:
            await self._toolbox.unsubscribe(conversation.session, uri)

    async def _tell(self, session: Any, conversation: Conversation) -> None:
        tell = {
            "tools": session.send_tool_list_changed,
            "prompts": session.send_prompt_list_changed,
            "resources": session.send_resource_list_changed,
        }
        async for change in self._toolbox.changes(conversation.session):
            if change.what != "resource":
                await tell[change.what]()
            elif change.uri in conversation.subscribed:
                await session.send_resource_updated(change.uri)

    async def _roots_changed(self, context: Any, _params: Any) -> None:
        await self._toolbox.roots_changed(self._conversation(context).session)

    async def _listen(
        self, context: Any, params: types.SubscriptionsListenRequestParams
    ) -> types.SubscriptionsListenResult:
        """A modern client's stream of changes."""
        if self._listeners >= MOST_LISTENERS:
            raise MCPError(types.INTERNAL_ERROR, "too many clients listen")
        session = self._conversation(context).session
        bus = InMemorySubscriptionBus()
        pump = asyncio.create_task(self._feed(session, bus))
        subscribed: list[str] = []
        self._listeners += 1
        try:
            await asyncio.sleep(0)
            for uri in params.notifications.resource_subscriptions or ():
                try:
                    await self._toolbox.subscribe(session, str(uri))
                    subscribed.append(str(uri))
                except DockyardError as error:
                    log.debug("not subscribed: %s", error.message)
            return await ListenHandler(bus)(context, params)
        finally:
            self._listeners -= 1
            pump.cancel()
            for uri in subscribed:
                await self._toolbox.unsubscribe(session, uri)

    async def _feed(self, session: Session, bus: InMemorySubscriptionBus) -> None:
        async for change in self._toolbox.changes(session):
            await bus.publish(_event(change))


def _event(change: Change) -> Any:
    if change.what == "resource":
        return ResourceUpdated(change.uri)
    return {"tools": ToolsListChanged, "prompts": PromptsListChanged, "resources": ResourcesListChanged}[change.what]()


def _ours(name: str) -> bool:
    """Whether an entry of a request's ``_meta`` is between client and gateway, and not for the server behind."""
    return name.startswith(RESERVED) or name == "progressToken"


def _page(key: str, items: list[dict[str, Json]], name: str, params: Any) -> dict[str, Json]:
    """One page of a list; a cursor is the name of the last item before it."""
    cursor = getattr(params, "cursor", None)
    begin = 0
    if cursor is not None:
        places = [place for place, item in enumerate(items) if item[name] == cursor]
        if not places:
            raise MCPError(types.INVALID_PARAMS, "the cursor is unknown: list again from the start")
        begin = places[0] + 1
    found: dict[str, Json] = {key: items[begin : begin + PAGE], "resultType": "complete"}
    if begin + PAGE < len(items):
        found["nextCursor"] = items[begin + PAGE - 1][name]
    return found
