"""``dockyard mcp profile``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dockyard.cli._options import AsJson

if TYPE_CHECKING:
    from dockyard.tools.model import Profile

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    add_completion=False,
    help="Make, change, export, import, push and pull profiles: which servers and tools a client gets.",
)
Name = Annotated[str, typer.Argument(metavar="NAME", help="A profile's name.")]
Replace = Annotated[bool, typer.Option("--replace", help="In the place of a profile of this name.")]
Format = Annotated[str, typer.Option("--format", "-f", metavar="FORMAT", help="dockyard, or docker.")]


@app.command("create")
def create(
    name: Name,
    server: Annotated[
        list[str] | None, typer.Option("--server", "-s", metavar="SERVER", help="A server to enable; may be repeated.")
    ] = None,
    description: Annotated[str, typer.Option("--description", "-d")] = "",
    search: Annotated[bool, typer.Option("--search", help="Offer a search of tools instead of their list.")] = False,
    prefix: Annotated[bool, typer.Option("--prefix/--no-prefix", help="Call tools SERVER__TOOL.")] = True,
    as_json: AsJson = False,
) -> None:
    """Make a profile."""
    from dockyard.cli._mcp import catalogues, profiles
    from dockyard.cli._output import show_json
    from dockyard.tools.model import Enabled, Profile

    shelf = catalogues()
    servers = tuple(Enabled(server=shelf.find(each)[1]) for each in server or ())
    made = Profile(name=name, description=description, servers=servers, search=search, prefix=prefix)
    profiles().put(made, new=True)
    if as_json:
        return show_json(_shown(made))
    print(f"created {name}")
    return None


@app.command("ls")
def ls(as_json: AsJson = False) -> None:
    """List profiles."""
    from dockyard.cli._mcp import profiles
    from dockyard.cli._output import note, show_json, show_table

    kept = profiles()
    found = kept.list()
    if as_json:
        return show_json([_shown(one) for one in found])
    rows = [(one.name, len(one.servers), "search" if one.search else "list", one.description) for one in found]
    show_table(("profile", "servers", "tools", "description"), rows)
    for name, reason in kept.broken().items():
        note(f"{name} can't be read: {reason}")
    return None


@app.command("show")
def show(name: Name, as_json: AsJson = False) -> None:
    """Show a profile's servers, what is let through of each, and what configuration is missing."""
    from dockyard.cli._mcp import profiles, runs
    from dockyard.cli._output import show_json, show_table
    from dockyard.tools.catalog.settle import missing

    profile = profiles().stored(name)
    if as_json:
        return show_json(_shown(profile))
    rows = [
        (
            one.server.name,
            one.server.kind,
            "all" if one.tools is None else ", ".join(one.tools) or "none",
            ", ".join(one.approve) or "-",
            ", ".join(missing(one.server)) or "-",
            runs(one.server)[:50],
        )
        for one in profile.servers
    ]
    return show_table(("server", "kind", "tools", "asks for", "missing", "runs"), rows)


def _shown(profile: Profile) -> dict[str, object]:
    from dockyard.cli._mcp import shown
    from dockyard.tools.catalog.settle import missing

    servers = [
        {"server": shown(one.server), "tools": one.tools, "approve": one.approve, "missing": missing(one.server)}
        for one in profile.servers
    ]
    return {
        "name": profile.name,
        "description": profile.description,
        "search": profile.search,
        "prefix": profile.prefix,
        "servers": servers,
    }


@app.command("edit")
def edit(
    name: Name,
    description: Annotated[str | None, typer.Option("--description", "-d")] = None,
    search: Annotated[bool | None, typer.Option("--search/--no-search", help="Offer a search of tools.")] = None,
    prefix: Annotated[bool | None, typer.Option("--prefix/--no-prefix", help="Call tools SERVER__TOOL.")] = None,
    as_json: AsJson = False,
) -> None:
    """Change how a profile shows its tools."""
    import msgspec

    from dockyard.cli._mcp import profiles
    from dockyard.cli._output import show_json

    given = {"description": description, "search": search, "prefix": prefix}
    fields = {key: value for key, value in given.items() if value is not None}
    changed = profiles().edit(name, lambda old: msgspec.structs.replace(old, **fields))
    if as_json:
        return show_json(_shown(changed))
    print(f"changed {name}")
    return None


@app.command("rm")
def rm(names: Annotated[list[str], typer.Argument(metavar="NAME")]) -> None:
    """Remove profiles."""
    from dockyard.cli._mcp import profiles

    for name in names:
        profiles().remove(name)
        print(f"removed {name}")


@app.command("tools")
def tools(
    name: Name,
    enable: Annotated[list[str] | None, typer.Option("--enable", metavar="SERVER.TOOL", help="Let through.")] = None,
    disable: Annotated[list[str] | None, typer.Option("--disable", metavar="SERVER.TOOL", help="Keep back.")] = None,
    ask: Annotated[
        list[str] | None, typer.Option("--ask", metavar="SERVER.TOOL", help="Ask a person before each use.")
    ] = None,
    no_ask: Annotated[list[str] | None, typer.Option("--no-ask", metavar="SERVER.TOOL", help="Do not ask.")] = None,
    as_json: AsJson = False,
) -> None:
    """Let tools through, keep them back, or have a person asked; SERVER.* is all of a server's. Shows what is so."""
    from dockyard.cli._mcp import profiles, safety
    from dockyard.cli._output import show_json, show_table
    from dockyard.tools.choosing import choose

    asked = {"enable": enable or [], "disable": disable or [], "ask": ask or [], "no_ask": no_ask or []}
    kept = profiles()
    if any(asked.values()):
        guard = safety()
        kept.edit(name, lambda old: choose(old, **asked, known=lambda server: list(guard.fingerprints(server))))
    found = [
        {"server": one.server.name, "tools": one.tools, "approve": one.approve} for one in kept.stored(name).servers
    ]
    if as_json:
        return show_json(found)
    rows = [
        (one.server.name, "all" if one.tools is None else ", ".join(one.tools) or "none", ", ".join(one.approve) or "-")
        for one in kept.stored(name).servers
    ]
    return show_table(("server", "tools", "asks for"), rows)


@app.command("config")
def config(
    name: Name,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="SERVER.KEY=VALUE", help="A value: JSON, or text.")
    ] = None,
    get: Annotated[list[str] | None, typer.Option("--get", metavar="SERVER.KEY", help="Print only this.")] = None,
    remove: Annotated[list[str] | None, typer.Option("--del", metavar="SERVER.KEY", help="Take it away.")] = None,
    as_json: AsJson = False,
) -> None:
    """Set, show and take away servers' configuration; secrets belong in `dockyard mcp secret`."""
    from dockyard.cli._mcp import profiles, value_of
    from dockyard.cli._output import show_json
    from dockyard.errors import InvalidRequest
    from dockyard.tools.choosing import configure, look_up

    kept = profiles()
    values = {}
    for item in set_ or ():
        key, mark, text = item.partition("=")
        if not mark:
            raise InvalidRequest(f"--set {item!r} is not SERVER.KEY=VALUE", param="--set")
        values[key] = value_of(text)
    if values or remove:
        kept.edit(name, lambda old: configure(old, values, remove or []))
    profile = kept.stored(name)
    if get:
        found = {key: look_up(profile, key) for key in get}
        if as_json or len(found) > 1:
            return show_json(found)
        (value,) = found.values()
        return print(value) if isinstance(value, str) else show_json(value)
    return show_json({one.server.name: one.server.config for one in profile.servers if one.server.config or as_json})


@app.command("export")
def export(
    name: Name,
    format: Format = "dockyard",
    output: Annotated[Path | None, typer.Option("--output", "-o", metavar="PATH", help="Write to a file.")] = None,
) -> None:
    """Write a profile as our JSON or Docker's YAML. Secrets are not in it; configuration is."""
    from dockyard.cli._mcp import profiles

    text = profiles().export(name, format)
    if output is not None:
        output.write_text(text, encoding="utf-8")
    else:
        print(text, end="")


@app.command("import")
def import_(
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="A file, an https URL, or - for stdin.")],
    name: Annotated[str, typer.Option("--name", metavar="NAME", help="What to call it; else its own name.")] = "",
    replace: Replace = False,
    as_json: AsJson = False,
) -> None:
    """Keep a profile that `export` or Docker wrote."""
    from dockyard.cli._connect import read_settings
    from dockyard.cli._mcp import profiles
    from dockyard.cli._output import show_json
    from dockyard.tools.catalog.sources import fetch

    settings = read_settings()
    text, _ = fetch(source, settings, None)
    made = profiles(settings).load(text, name=name, replace=replace)
    if as_json:
        return show_json(_shown(made))
    print(f"imported {made.name}: {len(made.servers)} servers")
    return None


@app.command("push")
def push(
    name: Name,
    reference: Annotated[str, typer.Argument(metavar="REF", help="REGISTRY/REPOSITORY[:TAG].")],
    format: Format = "dockyard",
    as_json: AsJson = False,
) -> None:
    """Send a profile to a registry as an artifact. Secrets are not in it; configuration is."""
    from dockyard.cli._connect import read_settings
    from dockyard.cli._mcp import profiles
    from dockyard.cli._output import show_json
    from dockyard.cli._progress import progress

    settings = read_settings()
    with progress(quiet=as_json) as show:
        digest = profiles(settings, store=True).push(name, reference, settings, format=format, on_progress=show)
    if as_json:
        return show_json({"reference": reference, "digest": digest})
    print(f"{reference} {digest}")
    return None


@app.command("pull")
def pull(
    reference: Annotated[str, typer.Argument(metavar="REF", help="REGISTRY/REPOSITORY[:TAG].")],
    name: Annotated[str, typer.Option("--name", metavar="NAME", help="What to call it; else its own name.")] = "",
    replace: Replace = False,
    as_json: AsJson = False,
) -> None:
    """Fetch a profile, ours or Docker's, and keep it."""
    from dockyard.cli._connect import read_settings
    from dockyard.cli._mcp import profiles
    from dockyard.cli._output import show_json
    from dockyard.cli._progress import progress

    settings = read_settings()
    with progress(quiet=as_json) as show:
        kept = profiles(settings, store=True)
        made = kept.pull(reference, settings, name=name, replace=replace, on_progress=show)
    if as_json:
        return show_json(_shown(made))
    print(f"pulled {made.name}: {len(made.servers)} servers")
    return None
