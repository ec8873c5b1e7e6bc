"""``dockyard mcp catalog``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dockyard.cli._options import AsJson

if TYPE_CHECKING:
    from dockyard.tools.catalog.found import Catalogue

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    add_completion=False,
    help="Add, list, show, remove, import and export catalogues.",
)
Name = Annotated[str, typer.Argument(metavar="NAME", help="A catalogue's name.")]
Source = Annotated[
    str,
    typer.Argument(
        metavar="SOURCE",
        help="A file, an https URL, an artifact (oci://mcp/docker-mcp-catalog:latest), or - for stdin.",
    ),
]


@app.command("add")
def add(
    source: Source,
    name: Annotated[str, typer.Option("--name", metavar="NAME", help="What to call it; else its own name.")] = "",
    refresh: Annotated[bool, typer.Option("--refresh", help="Read it anew if it is there.")] = False,
    as_json: AsJson = False,
) -> None:
    """Read a catalogue and keep it. What can't be read of it is said and left out."""
    from dockyard.cli._mcp import catalogues, note_problems
    from dockyard.cli._output import show_json
    from dockyard.errors import InvalidRequest
    from dockyard.tools.catalog.shelf import OWN

    found = _load(source)
    kept = name or _short(found.name or Path(source).stem or "catalog")
    if kept == OWN:
        raise InvalidRequest(f"the catalogue {OWN!r} is for servers declared here", hint="give another --name")
    catalogues().put(kept, found, new=not refresh)
    if as_json:
        return show_json({"name": kept, "servers": len(found.servers), "problems": found.problems})
    note_problems(found.problems)
    print(f"{kept}: {len(found.servers)} servers")
    return None


@app.command("ls")
def ls(as_json: AsJson = False) -> None:
    """List the catalogues of this home."""
    from dockyard.cli._mcp import catalogues
    from dockyard.cli._output import show_json, show_table

    shelf = catalogues()
    found = [(name, shelf.get(name)) for name in shelf.names()]
    if as_json:
        return show_json(
            [
                {
                    "name": name,
                    "title": one.title,
                    "format": one.format,
                    "servers": len(one.servers),
                    "source": one.source,
                }
                for name, one in found
            ]
        )
    rows = [(name, one.format, len(one.servers), one.source or "-", one.title) for name, one in found]
    return show_table(("name", "format", "servers", "source", "title"), rows)


@app.command("show")
def show(name: Name, as_json: AsJson = False) -> None:
    """List a catalogue's servers."""
    from dockyard.cli._mcp import catalogues, note_problems, runs, shown
    from dockyard.cli._output import show_json, show_table

    found = catalogues().get(name)
    if as_json:
        return show_json(
            {
                "name": name,
                "title": found.title,
                "format": found.format,
                "source": found.source,
                "servers": [shown(server) for server in found.servers],
                "problems": found.problems,
            }
        )
    rows = [(server.name, server.kind, runs(server)[:60], server.title) for server in found.servers]
    show_table(("server", "kind", "runs", "title"), rows)
    note_problems(found.problems)
    return None


@app.command("rm")
def rm(names: Annotated[list[str], typer.Argument(metavar="NAME")]) -> None:
    """Remove catalogues. Profiles keep the snapshots of what they enabled."""
    from dockyard.cli._mcp import catalogues

    for name in names:
        catalogues().remove(name)
        print(f"removed {name}")


@app.command("import")
def import_(
    source: Source,
    into: Annotated[str, typer.Option("--into", metavar="NAME", help="The catalogue to put them into.")] = "own",
    replace: Annotated[bool, typer.Option("--replace", help="Put them in the place of servers so named.")] = False,
    as_json: AsJson = False,
) -> None:
    """Put the servers of a source into a catalogue that there is."""
    from dockyard.cli._mcp import catalogues, note_problems
    from dockyard.cli._output import show_json

    found, shelf = _load(source), catalogues()
    for server in found.servers:
        shelf.add(server, to=into, replace=replace)
    if as_json:
        return show_json({"servers": [server.name for server in found.servers], "problems": found.problems})
    note_problems(found.problems)
    for server in found.servers:
        print(f"{into}/{server.name}")
    return None


@app.command("export")
def export(
    name: Name,
    format: Annotated[
        str, typer.Option("--format", "-f", metavar="FORMAT", help="docker, dockyard, registry or mcp-servers.")
    ] = "dockyard",
    output: Annotated[Path | None, typer.Option("--output", "-o", metavar="PATH", help="Write to a file.")] = None,
    skip: Annotated[bool, typer.Option("--skip", help="Leave out what the format has no words for.")] = False,
    push: Annotated[str, typer.Option("--push", metavar="REF", help="Send it to a registry as an artifact.")] = "",
) -> None:
    """Write a catalogue in any format."""
    from dockyard.cli._mcp import catalogues, note_problems
    from dockyard.tools import catalog

    found = catalogues().get(name)
    if skip:
        found, problems = catalog.only(found, format)
        note_problems(problems)
    text = catalog.write(found, format)
    if push:
        print(f"{push} {_push(text, format, push)}")
    elif output is not None:
        output.write_text(text, encoding="utf-8")
    else:
        print(text, end="")


def _push(text: str, format: str, reference: str) -> str:
    import msgspec

    from dockyard.cli._connect import open_store, read_settings
    from dockyard.tools.catalog import oci
    from dockyard.tools.catalog.reading import document

    data = msgspec.json.encode(document(text).value)
    settings = read_settings()
    kind = oci.CATALOGUE if format == "docker" else oci.OWN_CATALOGUE
    return oci.push(open_store(settings), reference, data, kind, settings)


def _load(source: str) -> Catalogue:
    from dockyard.cli._connect import open_store, read_settings
    from dockyard.tools import catalog

    settings = read_settings()
    return catalog.load(source, settings, open_store(settings))


def _short(text: str) -> str:
    import re

    return re.sub(r"[^a-z0-9_.-]+", "-", text.lower()).strip("-_.")[:64] or "catalog"
