"""``dockyard mcp client``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dockyard.cli._mcp import ProfileName
from dockyard.cli._options import AsJson

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    add_completion=False,
    help="Connect clients to the gateway: Claude Desktop and Code, Cursor, VS Code, Zed, Goose, Gemini and Codex.",
)
Client = Annotated[str, typer.Argument(metavar="CLIENT", help="A client as `client ls` names it.")]
Global = Annotated[bool, typer.Option("--global", "-g", help="The user's own file, instead of this project's.")]
Project = Annotated[
    Path | None, typer.Option("--project", metavar="PATH", help="The project's folder; else the current one.")
]


@app.command("ls")
def ls(globally: Global = False, project: Project = None, as_json: AsJson = False) -> None:
    """List clients, their files, and the profiles that they are connected to."""
    from dockyard.cli._output import note, show_json, show_table
    from dockyard.errors import InvalidRequest
    from dockyard.tools.clients import connection, known, place

    found = []
    for name, client in known().items():
        try:
            found.append(connection(name, place(name, None if globally or not client.project else project or Path())))
        except InvalidRequest as error:
            note(f"{client.title}: {error.message}")
    if as_json:
        return show_json(found)
    rows = [
        (one.client, one.title, ", ".join(one.entries.values()) or "-", "yes" if one.exists else "no", one.path)
        for one in found
    ]
    show_table(("client", "name", "profiles", "file", "path"), rows)
    for one in found:
        if one.problem:
            note(f"{one.title}: {one.problem}")
    return None


@app.command("connect")
def connect(
    client: Client,
    profile: ProfileName = "default",
    globally: Global = False,
    project: Project = None,
    as_json: AsJson = False,
) -> None:
    """Write an entry into a client's file that starts the gateway; everything else in it stays. Keeps a backup."""
    from dockyard.cli._mcp import profiles
    from dockyard.cli._output import note, show_json
    from dockyard.tools import clients

    profiles().stored(profile)
    path = clients.place(client, None if globally else project or Path())
    clients.connect(client, profile, path)
    if as_json:
        return show_json(clients.connection(client, path))
    print(path)
    note(f"{clients.client(client).title} gets the tools of profile {profile!r} when it is started anew")
    return None


@app.command("disconnect")
def disconnect(
    client: Client,
    profile: ProfileName = "default",
    globally: Global = False,
    project: Project = None,
    as_json: AsJson = False,
) -> int:
    """Take the entry out of a client's file; the exit code is 3 if there was none."""
    from dockyard.cli._output import show_json
    from dockyard.errors import NotFound
    from dockyard.tools import clients

    path = clients.place(client, None if globally else project or Path())
    if not clients.disconnect(client, profile, path):
        raise NotFound(f"{path} has no entry of profile {profile!r}", hint="`dockyard mcp client ls` lists them")
    if as_json:
        show_json(clients.connection(client, path))
    else:
        print(path)
    return 0
