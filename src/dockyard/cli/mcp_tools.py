"""``dockyard mcp tools`` and ``dockyard mcp call``: through a running server, or in this process."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from dockyard.cli._mcp import Locked, LockFile, ProfileName
from dockyard.cli._options import AsJson, Host

if TYPE_CHECKING:
    from dockyard.client import AsyncClient

T = TypeVar("T")

app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, add_completion=False, help="List, inspect, count and choose tools."
)
Tool = Annotated[str, typer.Argument(metavar="TOOL", help="A tool as `tools ls` names it.")]
MOST_SHOWN = 100


@app.command("ls")
def ls(
    profile: ProfileName = "default",
    server: Annotated[str, typer.Option("--server", metavar="NAME", help="Only this server's.")] = "",
    host: Host = None,
    as_json: AsJson = False,
) -> None:
    """List the tools that a profile lets through; servers are started for it. Says which could not be asked."""
    from dockyard.cli._output import note, show_json, show_table

    tools, states = _listed(profile, host)
    found = [tool for tool in tools if server in ("", tool["server"])]
    if as_json:
        return show_json(found)
    rows = [
        (tool["id"], tool["server"], ", ".join(tool["labels"]) or "-", _short(tool["description"])) for tool in found
    ]
    show_table(("tool", "server", "can", "description"), rows)
    for state in states:
        for what, reason in (state.get("flaws") or {}).items():
            note(f"{state['name']}: {what}: {reason}")
    return None


@app.command("inspect")
def inspect(tool: Tool, profile: ProfileName = "default", host: Host = None, as_json: AsJson = False) -> None:
    """Show a tool's description, schema, labels and fingerprint."""
    import difflib

    from dockyard.cli._output import show_json
    from dockyard.errors import NotFound

    tools, _ = _listed(profile, host)
    found = next((each for each in tools if each["id"] == tool), None)
    if found is None:
        near = difflib.get_close_matches(tool, [each["id"] for each in tools], n=1)
        raise NotFound(f"profile {profile!r} has no tool {tool!r}", hint=f"did you mean {near[0]!r}?" if near else None)
    if as_json:
        return show_json(found)
    print(f"{found['id']} ({found['server']})\n{found['description']}\n")
    print(f"labels: {', '.join(found['labels']) or 'none'}\nfingerprint: {found['fingerprint']}\narguments:")
    return show_json(found["schema"])


@app.command("count")
def count(profile: ProfileName = "default", host: Host = None, as_json: AsJson = False) -> None:
    """Count the tools that a profile lets through, by server."""
    from collections import Counter

    from dockyard.cli._output import show_json

    tools, _ = _listed(profile, host)
    by_server = Counter(tool["server"] for tool in tools)
    if as_json:
        return show_json({"tools": len(tools), "servers": by_server})
    print(len(tools))
    return None


@app.command("enable")
def enable(
    tools: Annotated[list[str], typer.Argument(metavar="SERVER.TOOL", help="SERVER.* is all of a server's.")],
    profile: ProfileName = "default",
) -> None:
    """Let tools through."""
    _choose(profile, enable=tools)
    print(f"enabled {', '.join(tools)} in {profile}")


@app.command("disable")
def disable(
    tools: Annotated[list[str], typer.Argument(metavar="SERVER.TOOL", help="SERVER.* is all of a server's.")],
    profile: ProfileName = "default",
) -> None:
    """Keep tools back."""
    _choose(profile, disable=tools)
    print(f"disabled {', '.join(tools)} in {profile}")


def _choose(profile: str, *, enable: list[str] | None = None, disable: list[str] | None = None) -> None:
    from dockyard.cli._mcp import profiles, safety
    from dockyard.tools.choosing import choose

    guard = safety()
    profiles().edit(
        profile,
        lambda old: choose(
            old,
            enable=enable or [],
            disable=disable or [],
            ask=[],
            no_ask=[],
            known=lambda server: list(guard.fingerprints(server)),
        ),
    )


def call(
    tool: Tool,
    arguments: Annotated[
        list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Arguments; a value is JSON, or text.")
    ] = None,
    json_arguments: Annotated[str, typer.Option("--arguments", metavar="JSON", help="All arguments at once.")] = "",
    profile: ProfileName = "default",
    approval: Annotated[str, typer.Option("--approval", metavar="ID", help="An approval that was granted.")] = "",
    locked: Locked = False,
    lock_file: LockFile = "mcp.lock.json",
    host: Host = None,
    as_json: AsJson = False,
) -> int:
    """Use a tool, through a running server or in this process. The exit code is 1 if the tool says that it failed."""
    from dockyard.cli._connect import read_settings
    from dockyard.cli._mcp import toolbox
    from dockyard.cli._output import show_json
    from dockyard.errors import InvalidRequest
    from dockyard.tools.model import ApprovalNeeded

    given = _arguments(arguments or [], json_arguments)
    settings = read_settings()
    if locked and host:
        raise InvalidRequest("--locked is checked in this process, so --host can't be", param="--locked")

    async def here() -> dict[str, Any]:
        async with toolbox(settings, profile, Path(lock_file) if locked else None) as (box, session):
            await box.tools(session)
            outcome = await box.call(session, tool, given, approval=approval or None)
        told = {"content": outcome.content, "is_error": outcome.is_error}
        return told if outcome.structured is None else {**told, "structured": outcome.structured}

    async def there(client: AsyncClient) -> dict[str, Any]:
        body = {"tool": tool, "arguments": given, "profile": profile, **({"approval": approval} if approval else {})}
        return dict(await client.call("POST", "/api/dockyard/mcp/call", body))

    try:
        outcome = _ask(host, there, here, here_only=locked)
    except ApprovalNeeded as error:
        which = getattr(error, "approval", None)
        if which is not None:
            error.hint = f"`dockyard mcp approvals grant {which.id}`, then call again with --approval {which.id}"
        raise
    if as_json:
        show_json(outcome)
    else:
        _print(outcome)
    return int(bool(outcome.get("is_error")))


def _arguments(pairs: list[str], whole: str) -> dict[str, Any]:
    import msgspec

    from dockyard.cli._mcp import value_of
    from dockyard.errors import InvalidRequest

    found: dict[str, Any] = {}
    if whole:
        try:
            found = msgspec.json.decode(whole, type=dict[str, Any])
        except msgspec.DecodeError as error:
            raise InvalidRequest(f"--arguments is no JSON object: {error}", param="--arguments") from error
    for pair in pairs:
        key, mark, value = pair.partition("=")
        if not mark or not key:
            raise InvalidRequest(f"{pair!r} is not KEY=VALUE", param="arguments")
        found[key] = value_of(value)
    return found


def _print(outcome: dict[str, Any]) -> None:
    import msgspec

    for part in outcome.get("content") or []:
        if part.get("type") == "text":
            print(part.get("text", ""))
        elif "data" in part:
            print(f"[{part.get('type')} {part.get('mimeType', '')}, {len(part['data']) * 3 // 4} bytes; see --json]")
        else:
            print(msgspec.json.encode(part).decode())
    if not outcome.get("content") and "structured" in outcome:
        print(msgspec.json.encode(outcome["structured"]).decode())


def _listed(profile: str, host: str | None) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Tools as plain JSON, and how a running server's tool servers are; in this process the log says that."""
    from dockyard.cli._connect import read_settings
    from dockyard.cli._mcp import toolbox

    settings = read_settings()

    async def here() -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        from dockyard.api.mcp import described

        async with toolbox(settings, profile) as (box, session):
            return [described(tool) for tool in await box.tools(session)], []

    async def there(client: AsyncClient) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        tools = await client.call("GET", f"/api/dockyard/mcp/tools?profile={profile}")
        states = await client.call("GET", f"/api/dockyard/mcp/servers?profile={profile}")
        return list(tools["tools"]), list(states["servers"])

    return _ask(host, there, here)


def _ask(
    host: str | None,
    there: Callable[[AsyncClient], Awaitable[T]],
    here: Callable[[], Awaitable[T]],
    *,
    here_only: bool = False,
) -> T:
    """Ask the server that was named or runs on this home; without one, do it in this process."""
    import asyncio

    from dockyard.cli._connect import find_server, read_settings

    client = None if here_only else find_server(host, read_settings())

    async def exchange() -> T:
        if client is None:
            return await here()
        async with client:
            return await there(client)

    return asyncio.run(exchange())


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= MOST_SHOWN else line[: MOST_SHOWN - 1] + "…"
