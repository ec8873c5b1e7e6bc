"""``dockyard mcp server``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from dockyard.cli._mcp import ProfileName
from dockyard.cli._options import AsJson

if TYPE_CHECKING:
    from dockyard.tools.model import Server

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    add_completion=False,
    help="List, add, remove, inspect, enable and disable tool servers.",
)
Name = Annotated[str, typer.Argument(metavar="SERVER", help="A server's name, or CATALOG/NAME.")]


@app.command("ls")
def ls(
    profile: ProfileName = "default",
    enabled: Annotated[bool, typer.Option("--enabled", help="Only those of the profile.")] = False,
    as_json: AsJson = False,
) -> None:
    """List the servers of all catalogues, and whether the profile has them."""
    from dockyard.cli._mcp import catalogues, profiles, runs
    from dockyard.cli._output import show_json, show_table

    there = {one.server.name: one.server for one in profiles().stored(profile).servers}
    found = [(at, server, server.name in there) for at, server in catalogues().servers()]
    known = {server.name for _, server, _ in found}
    found += [("-", server, True) for name, server in there.items() if name not in known]
    found = [one for one in found if one[2] or not enabled]
    if as_json:
        return show_json(
            [
                {
                    "name": one.name,
                    "kind": one.kind,
                    "catalog": at,
                    "enabled": on,
                    "runs": runs(one),
                    "title": one.title,
                }
                for at, one, on in found
            ]
        )
    rows = [(one.name, one.kind, at, "yes" if on else "no", runs(one)[:50], one.title) for at, one, on in found]
    return show_table(("server", "kind", "catalog", "enabled", "runs", "title"), rows)


@app.command("add", context_settings={"ignore_unknown_options": True})
def add(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What to call it.")],
    command: Annotated[
        list[str] | None,
        typer.Argument(metavar="[-- COMMAND…]", help="What to run, or arguments of the image or package."),
    ] = None,
    url: Annotated[str, typer.Option("--url", help="A remote server.")] = "",
    sse: Annotated[bool, typer.Option("--sse", help="The remote server speaks HTTP+SSE.")] = False,
    image: Annotated[str, typer.Option("--image", help="A container.")] = "",
    package: Annotated[str, typer.Option("--package", help="pypi:NAME==VERSION or npm:NAME@VERSION.")] = "",
    openapi: Annotated[str, typer.Option("--openapi", help="URL or path of an OpenAPI document.")] = "",
    function: Annotated[str, typer.Option("--function", help="A Python function, as MODULE:NAME.")] = "",
    env: Annotated[list[str] | None, typer.Option("--env", "-e", metavar="NAME=VALUE")] = None,
    secret: Annotated[
        list[str] | None,
        typer.Option("--secret", metavar="NAME=VARIABLE", help="A secret, and the variable it goes in."),
    ] = None,
    header: Annotated[list[str] | None, typer.Option("--header", metavar="NAME=VALUE")] = None,
    read: Annotated[list[str] | None, typer.Option("--read", metavar="PATH", help="A host path it may read.")] = None,
    write: Annotated[list[str] | None, typer.Option("--write", metavar="PATH", help="… and write.")] = None,
    host: Annotated[
        list[str] | None, typer.Option("--allow-host", metavar="NAME:PORT", help="A host it may reach; else none.")
    ] = None,
    enable: Annotated[bool, typer.Option("--enable", help="Also enable it in the profile.")] = False,
    replace: Annotated[bool, typer.Option("--replace", help="In the place of one of this name.")] = False,
    profile: ProfileName = "default",
    as_json: AsJson = False,
) -> None:
    """Declare a server of your own.

    Examples: `server add time --package pypi:mcp-server-time==2026.10.19`,
    `server add files --read /srv/docs -- mcp-server-filesystem /srv/docs`.
    """
    from dockyard.cli._connect import read_settings
    from dockyard.cli._mcp import catalogues, profiles, shown
    from dockyard.cli._output import note, show_json

    asked = {"url": url, "image": image, "package": package, "openapi": openapi, "function": function}
    server = _declared(
        name,
        tuple(command or ()),
        {key: value for key, value in asked.items() if value},
        sse=sse,
        tables={"env": env or [], "headers": header or [], "secrets": secret or []},
        paths=(tuple(read or ()), tuple(write or ()), tuple(host or ())),
    )
    catalogues().add(server, replace=replace)
    if enable:
        profiles().enable(profile, server, replace=replace)
    if refused := _refused(server, read_settings()):
        note(f"{server.name} can't run yet: {refused}")
    if as_json:
        return show_json(shown(server))
    print(f"own/{server.name}{f' (enabled in {profile})' if enable else ''}")
    return None


def _declared(
    name: str,
    command: tuple[str, ...],
    what: dict[str, str],
    *,
    sse: bool,
    tables: dict[str, list[str]],
    paths: tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]],
) -> Server:
    from dockyard.errors import InvalidRequest
    from dockyard.tools.model import Sandbox, Secret, Server
    from dockyard.tools.profiles import server_name

    if len(what) + (bool(command) and not what) != 1:
        raise InvalidRequest(
            "say what the server is, once", hint="--url, --image, --package, --openapi, --function, or -- COMMAND"
        )
    kinds = {"url": "remote", "image": "container", "package": "package", "openapi": "openapi", "function": "function"}
    key, value = next(iter(what.items()), ("", ""))
    fields: dict[str, Any] = {"kind": kinds.get(key, "process"), "command": command}
    if key == "function":
        fields["command"] = (value, *command)
    elif key:
        fields["url" if key == "openapi" else key] = value
    secrets = tuple(Secret(name=each, env=variable) for each, variable in _pairs(tables["secrets"], "--secret").items())
    read, write, hosts = paths
    return Server(
        name=server_name(name),
        env=_pairs(tables["env"], "--env"),
        headers=_pairs(tables["headers"], "--header"),
        secrets=secrets,
        transport="sse" if sse else "http",
        sandbox=Sandbox(read=read, write=write, hosts=hosts),
        **fields,
    )


def _pairs(items: list[str], flag: str) -> dict[str, str]:
    from dockyard.errors import InvalidRequest

    found = {}
    for item in items:
        name, mark, value = item.partition("=")
        if not mark or not name:
            raise InvalidRequest(f"{flag} {item!r} is not NAME=VALUE", param=flag)
        found[name] = value
    return found


@app.command("rm")
def rm(names: Annotated[list[str], typer.Argument(metavar="SERVER")]) -> None:
    """Remove servers that were declared here. Profiles keep their snapshots."""
    from dockyard.cli._mcp import catalogues

    for name in names:
        at, _, short = name.rpartition("/")
        catalogues().drop(short, of=at or "own")
        print(f"removed {at or 'own'}/{short}")


@app.command("inspect")
def inspect(name: Name, as_json: AsJson = False) -> None:
    """Show a server's entry, what configuration and secrets it wants, and whether it can run here."""
    from dockyard.cli._connect import read_settings
    from dockyard.cli._mcp import catalogues, shown
    from dockyard.cli._output import show_json
    from dockyard.tools.catalog.settle import wanted

    settings = read_settings()
    at, server = catalogues(settings).find(name)
    told = {**shown(server), "catalog": at, "configuration": wanted(server), "refused": _refused(server, settings)}
    if as_json:
        return show_json(told)
    for key, value in told.items():
        if value not in (None, "", [], {}):
            print(f"{key}: {_plain(value)}")
    return None


def _plain(value: Any) -> str:
    import msgspec

    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def _refused(server: Server, settings: Any) -> str | None:
    """Why the server can't run on this machine, or None."""
    from dockyard.errors import DockyardError
    from dockyard.tools.catalog.settle import settled
    from dockyard.tools.runners import runner

    try:
        return runner(server.kind, settings).refuses(settled(server))
    except DockyardError as error:
        return error.message


@app.command("enable")
def enable(
    names: Annotated[list[str], typer.Argument(metavar="SERVER", help="A server's name, or CATALOG/NAME.")],
    profile: ProfileName = "default",
    replace: Annotated[
        bool, typer.Option("--replace", help="Take today's entry in the place of the snapshot.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Put snapshots of servers' entries into a profile."""
    from dockyard.cli._connect import read_settings
    from dockyard.cli._mcp import catalogues, profiles
    from dockyard.cli._output import note, show_json

    settings = read_settings()
    shelf, kept = catalogues(settings), profiles(settings)
    for name in names:
        _, server = shelf.find(name)
        changed = kept.enable(profile, server, replace=replace)
        one = next(one.server for one in changed.servers if one.server.name == server.name)
        refused = _refused(one, settings)
        if not as_json:
            print(f"enabled {server.name} in {profile}")
        if refused:
            note(f"{server.name} can't run yet: {refused}")
    if as_json:
        show_json([one.server.name for one in kept.stored(profile).servers])


@app.command("disable")
def disable(names: Annotated[list[str], typer.Argument(metavar="SERVER")], profile: ProfileName = "default") -> None:
    """Take servers out of a profile."""
    from dockyard.cli._mcp import profiles

    for name in names:
        profiles().disable(profile, name)
        print(f"disabled {name} in {profile}")
