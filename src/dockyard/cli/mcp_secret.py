"""``dockyard mcp secret``: secrets of tool servers, encrypted in the home; no verb prints one."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dockyard.cli._options import AsJson

if TYPE_CHECKING:
    from dockyard.tools.secrets import SecretStore

app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, add_completion=False, help="Set, list and remove tools' secrets."
)


@app.command("set")
def set_(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The name that a server's entry declares.")],
    file: Annotated[Path | None, typer.Option("--file", metavar="PATH", help="Read the value from a file.")] = None,
) -> None:
    """Keep a secret. Its value is asked for, or read from standard input; never from the command line."""
    from dockyard.cli._output import note
    from dockyard.tools.secrets import LEAST

    value = _value(name, file)
    _store().set(name, value)
    print(f"set {name}")
    if len(value) < LEAST:
        note(f"warning: with less than {LEAST} characters it can't be told from ordinary text, and is not redacted")


@app.command("ls")
def ls(as_json: AsJson = False) -> None:
    """List the names of secrets."""
    from dockyard.cli._output import show_json, show_table

    names = _store().list()
    if as_json:
        return show_json([{"name": name} for name in names])
    return show_table(("name",), [(name,) for name in names])


@app.command("rm")
def rm(names: Annotated[list[str], typer.Argument(metavar="NAME")]) -> None:
    """Remove secrets."""
    store = _store()
    for name in names:
        store.remove(name)
        print(f"removed {name}")


def _store() -> SecretStore:
    from dockyard.cli._connect import read_settings
    from dockyard.tools.secrets import SecretStore

    return SecretStore(read_settings().home_path)


def _value(name: str, file: Path | None) -> str:
    from dockyard.errors import InvalidRequest

    try:
        if file is not None:
            return file.read_text().removesuffix("\n")
        if sys.stdin.isatty():
            return str(typer.prompt(f"Value of {name}", hide_input=True, err=True))
        return sys.stdin.read().removesuffix("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"the value of {name!r} can't be read: {type(error).__name__}", param="file") from error
