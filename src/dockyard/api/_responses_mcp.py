"""Tools of type ``mcp`` in a Responses request: which servers they mean, what of these the model gets, who must agree.

A label is a server of the request's profile (``dockyard.profile``, else "default"), a whole profile, or, with
``server_url``, a server somewhere else, for keys that may name such. What the request narrows becomes the session's
own selection of servers, so that the toolbox decides about it as about everything else.
"""

from __future__ import annotations

import contextlib
import glob
import hashlib
from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

import msgspec

from dockyard.api._responses_mcp_events import ToolWriter, listing
from dockyard.api._responses_mcp_wire import Hosted, McpTool
from dockyard.api._responses_wire import Item
from dockyard.errors import Conflict, Forbidden, InvalidRequest, NotFound
from dockyard.gateway.toolloop import Ask, Bounds, Loop, Offer, Offered, Said, Use
from dockyard.settings import Settings
from dockyard.tools.model import Enabled, Profile, Server, Session, Tool
from dockyard.tools.naming import outside
from dockyard.types import Message, Principal, Request

if TYPE_CHECKING:
    from dockyard.tools.toolbox import Toolbox

KEPT_TAINT = frozenset({"untrusted-in", "private-data"})
"""Labels of a tool that say what its answers brought into a conversation."""


class Selected(msgspec.Struct, kw_only=True):
    """What a request gets: a session that may use it, and the tools with their names by label."""

    session: Session
    tools: dict[str, list[Offered]]
    deferred: set[str]
    errors: dict[str, str]


async def select(box: Toolbox, settings: Settings, hosted: Hosted) -> Selected:
    """List the servers' tools, and narrow the session to those that the request allows. Raises NotFound, Forbidden."""
    await box.start()
    session = box.session(hosted.principal, hosted.profile, client="responses")
    base = box.profiles.get(hosted.profile)
    if hosted.whole:
        hosted.tools = [_as_kept(enabled.server.name) for enabled in base.servers]
    groups = {one.server_label: _servers(box, settings, base, one, hosted.principal) for one in hosted.tools}
    label_of = _labels(groups)
    session.given = _profile(base, [one for group in groups.values() for one in group])
    listed = [tool for tool in await box.tools(session) if tool.server in label_of]
    wanted = {one.server_label: one for one in hosted.tools}
    rows: list[tuple[str, str, Tool]] = []
    for tool in listed:
        label = label_of[tool.server]
        name = tool.name if len(groups[label]) == 1 else tool.id
        if wanted[label].allows(tool, name):
            rows.append((label, name, tool))
    narrowed = [
        _narrow(one, [row for row in rows if row[2].server == one.server.name], wanted[label])
        for label, group in groups.items()
        for one in group
    ]
    session.given = _profile(base, narrowed)
    functions = outside([(label, name) for label, name, _ in rows], prefix=True)
    tools: dict[str, list[Offered]] = {label: [] for label in groups}
    for (label, name, tool), function in zip(rows, functions, strict=True):
        tools[label].append(Offered(label=label, name=name, function=function, tool=tool))
    deferred = {label for label, one in wanted.items() if one.defer_loading or _searched(box, base, one)}
    errors = await _errors(box, session.given, label_of, {tool.server for tool in listed})
    return Selected(session=session, tools=tools, deferred=deferred, errors=errors)


def _as_kept(name: str) -> McpTool:
    """A server of a route's profile: who must be asked before it is used is for the profile to say."""
    return McpTool(type="mcp", server_label=name, require_approval="never")


def _servers(
    box: Toolbox, settings: Settings, base: Profile, one: McpTool, principal: Principal
) -> tuple[Enabled, ...]:
    """The servers that an entry means."""
    label = one.server_label
    if one.server_url is not None:
        return (Enabled(server=_elsewhere(settings, one, principal)),)
    for enabled in base.servers:
        if enabled.server.name == label:
            return (enabled,)
    try:
        named: Profile = box.profiles.get(label)
    except (NotFound, InvalidRequest):
        known = ", ".join(enabled.server.name for enabled in base.servers)
        raise NotFound(
            f"there is no tool server {label!r} in profile {base.name!r}, and no profile of that name",
            param="tools",
            hint=f"its servers: {known}" if known else "`dockyard mcp server enable` adds one",
        ) from None
    return named.servers


def _elsewhere(settings: Settings, one: McpTool, principal: Principal) -> Server:
    """A server that the request names by its URL; where it may be is for its runner to say."""
    scope = settings.tools_server_url
    if scope == "never" or scope not in principal.scopes:
        raise Forbidden(
            f"key {principal.name!r} may not name tool servers by URL",
            param="tools",
            hint="use a label of the profile" + ("" if scope == "never" else f", or a key with the scope `{scope}`"),
        )
    headers = dict(one.headers or {})
    if one.authorization:
        headers["Authorization"] = f"Bearer {one.authorization}"
    if any("${" in text for text in (one.server_url or "", *headers, *headers.values())):
        raise InvalidRequest("a request's URL and headers name no variables of the server", param="tools")
    mark = hashlib.sha256((one.server_url or "").encode()).hexdigest()[:8]
    return Server(
        name=f"{one.server_label[:40]}-{mark}",
        kind="remote",
        url=one.server_url or "",
        headers=headers,
        description=one.server_description or "",
        source="request",
    )


def _labels(groups: dict[str, tuple[Enabled, ...]]) -> dict[str, str]:
    found: dict[str, str] = {}
    for label, group in groups.items():
        for one in group:
            if one.server.name in found:
                raise InvalidRequest(f"server {one.server.name!r} is offered twice", param="tools")
            found[one.server.name] = label
    return found


def _narrow(one: Enabled, rows: list[tuple[str, str, Tool]], wanted: McpTool) -> Enabled:
    asks = tuple(glob.escape(tool.name) for _, name, tool in rows if wanted.asks(tool, name))
    tools = tuple(glob.escape(tool.name) for _, _, tool in rows)
    return msgspec.structs.replace(one, tools=tools, approve=(*one.approve, *asks))


def _profile(base: Profile, servers: Iterable[Enabled]) -> Profile:
    """A selection; its name tells it from others, and stays the same for the same."""
    chosen = tuple(servers)
    mark = hashlib.sha256(msgspec.json.encode(chosen)).hexdigest()[:16]
    return Profile(name=f"{base.name}+{mark}", servers=chosen)


def _searched(box: Toolbox, base: Profile, one: McpTool) -> bool:
    if one.server_url is not None or any(enabled.server.name == one.server_label for enabled in base.servers):
        return one.server_url is None and base.search
    return bool(box.profiles.get(one.server_label).search)


async def _errors(box: Toolbox, given: Profile, label_of: dict[str, str], listed: set[str]) -> dict[str, str]:
    """Why servers listed nothing, by label."""
    found: dict[str, str] = {}
    for row in await box.status(given):
        name = str(row["name"])
        if name in listed or name not in label_of:
            continue
        flaws = "; ".join(f"{what}: {why}" for what, why in (row.get("flaws") or {}).items())
        reason = str(row.get("reason") or "") or flaws
        if reason:
            found[label_of[name]] = reason[:500]
    return found


async def answered(
    box: Toolbox,
    settings: Settings,
    hosted: Hosted,
    writer: ToolWriter,
    request: Request,
    ask: Ask,
    spent: Any,
) -> AsyncGenerator[bytes, None]:
    """The events of the answer. ``spent`` is called with the usage of all rounds so far, after each piece.

    What was listed is told with what comes next, so that a model that can't be had fails before anything was said.
    """
    found = await select(box, settings, hosted)
    offer = offer_of(found, hosted, request, settings)
    found.session.taint |= taint_of(hosted.heard, found)
    writer.taint = found.session.taint
    resumed = agreed(box, hosted, found)
    request, first = _chosen(_introduced(request, hosted), hosted, offer)
    bounds = Bounds.of(settings, hosted.most)
    loop = Loop(box, found.session, offer, request, ask, bounds, asks=True, resumed=resumed, first=first)
    held = _listed(writer, found, hosted)
    async with aclosing(loop.run()) as events:
        async for event in events:
            data = writer.put(event)
            spent(loop.usage)
            if data or isinstance(event, Said):
                yield held + data
                held = b""
    if held:
        yield held


def offer_of(found: Selected, hosted: Hosted, request: Request, settings: Settings) -> Offer:
    """The tools as the model gets them."""
    own = {tool["function"]["name"] for tool in request.extra.get("tools") or ()}
    direct = [one for label, tools in found.tools.items() if label not in found.deferred for one in tools]
    deferred = [one for label, tools in found.tools.items() if label in found.deferred for one in tools]
    code = None
    if hosted.code:
        from dockyard.gateway._toolloop_code import Code

        code = Code(settings)
    offer = Offer(direct, deferred, taken=own, code=code)
    outputs = [item for item in hosted.heard if item["type"] == "tool_search_output"]
    offer.load(str(one.get("name")) for item in outputs for one in item["tools"])
    return offer


def taint_of(heard: Iterable[Item], found: Selected) -> set[str]:
    """What earlier calls brought into this conversation: a tool that is not offered now may have brought anything."""
    labels = {(one.label, one.name): one.tool.labels for tools in found.tools.values() for one in tools}
    taint: set[str] = set()
    for item in heard:
        if item["type"] == "mcp_call":
            taint |= labels.get((item["server_label"], item["name"]), KEPT_TAINT) & KEPT_TAINT
            taint |= {str(one) for one in item.get("taint") or ()}
        elif item["type"] == "code_interpreter_call":
            taint |= KEPT_TAINT
    return taint


def agreed(box: Toolbox, hosted: Hosted, found: Selected) -> list[Use]:
    """The calls that a person agreed to in this request; refusals are noted. Raises InvalidRequest, NotFound."""
    requests = {item["id"]: item for item in hosted.heard if item["type"] == "mcp_approval_request"}
    uses: list[Use] = []
    for item in hosted.new:
        if item["type"] != "mcp_approval_response":
            continue
        wanted = item["approval_request_id"]
        asked = requests.get(wanted)
        if asked is None:
            raise NotFound(
                f"this conversation has no approval request {wanted!r:.80}",
                param="input",
                hint="go on from the response that asked, with `previous_response_id`",
            )
        approval = wanted.removeprefix("mcpr_")
        if not item["approve"]:
            box.safety.grant(approval, hosted.principal, False)
            continue
        tools = found.tools.get(asked["server_label"], [])
        offered = next((one for one in tools if one.name == asked["name"]), None)
        if offered is None:
            raise InvalidRequest(
                f"tool {asked['name']!r:.80} of {asked['server_label']!r:.80} was agreed to and is not there",
                param="tools",
                hint="send the same `tools` again",
            )
        # Who asks again after an answer was lost has agreed already; that it is used once is seen to elsewhere.
        with contextlib.suppress(Conflict):
            box.safety.grant(approval, hosted.principal, True)
        uses.append(
            Use(
                id=item["id"],
                function=offered.function,
                arguments=asked["arguments"],
                offered=offered,
                approval=approval,
            )
        )
    return uses


def _listed(writer: ToolWriter, found: Selected, hosted: Hosted) -> bytes:
    """The tools of each server, unless the conversation has them already."""
    before = {item["server_label"]: item for item in hosted.heard if item["type"] == "mcp_list_tools"}
    events = b""
    for label, tools in found.tools.items():
        error, known = found.errors.get(label, ""), before.get(label)
        if known is None or error or known["tools"] != [listing(one) for one in tools]:
            events += writer.listed(label, tools, error)
    return events


def _introduced(request: Request, hosted: Hosted) -> Request:
    """What the client says of its servers, for the model."""
    lines = [
        f"Tools named {one.server_label}__*: {one.server_description}" for one in hosted.tools if one.server_description
    ]
    if not lines:
        return request
    text, messages = "\n".join(lines), list(request.messages or ())
    if messages and messages[0].role == "system" and isinstance(messages[0].content, str):
        messages[0] = msgspec.structs.replace(messages[0], content=f"{messages[0].content}\n\n{text}")
    else:
        messages.insert(0, Message(role="system", content=text))
    return msgspec.structs.replace(request, messages=tuple(messages))


def _chosen(request: Request, hosted: Hosted, offer: Offer) -> tuple[Request, set[str]]:
    """The request with the client's choice among the tools of servers, and those that count at first; none: all.

    Raises InvalidRequest.
    """
    choice = hosted.choice
    if choice is None:
        return request, set()
    extra = dict(request.extra)
    if isinstance(choice, str):
        extra["tool_choice"] = choice
        return msgspec.structs.replace(request, extra=extra), set()
    entries = [choice] if choice.get("type") == "mcp" else [one for one in choice["tools"] if one.get("type") == "mcp"]
    functions: set[str] = set()
    for entry in entries:
        label, name = entry.get("server_label"), entry.get("name")
        matching = offer.by_label(str(label), name)
        if not matching:
            raise InvalidRequest(
                f"tool_choice: server {label!r:.80} has no tool {name!r:.80}"
                if name
                else f"tool_choice: server {label!r:.80} offers no tools",
                param="tool_choice",
            )
        functions |= {one.function for one in matching}
    first: set[str] = set()
    if choice.get("type") != "mcp":
        offer.only(functions)
        extra["tool_choice"] = choice.get("mode", "auto")
    else:
        offer.load(functions)
        first = functions
        extra["tool_choice"] = "required"
        if len(functions) == 1:
            extra["tool_choice"] = {"type": "function", "function": {"name": next(iter(functions))}}
    return msgspec.structs.replace(request, extra=extra), first
