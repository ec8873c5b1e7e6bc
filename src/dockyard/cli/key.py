"""``dockyard key``: keys that open a server."""

from __future__ import annotations

import typer

app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, add_completion=False, help="Create, list and remove API keys."
)
