"""Flags and arguments that several verbs share."""

from __future__ import annotations

from typing import Annotated

import typer

from dockyard.cli._complete import model_names

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Host = Annotated[
    str | None,
    typer.Option(
        "--host",
        metavar="URL",
        help="Server to ask; else $DOCKYARD_HOST if it is a URL, else the one running on this machine.",
    ),
]
Model = Annotated[str, typer.Argument(metavar="MODEL", help="Name, digest or id.", autocompletion=model_names)]
Models = Annotated[
    list[str], typer.Argument(metavar="MODEL", help="Names, digests or ids.", autocompletion=model_names)
]
