"""``dockyard mcp``: a table of nouns like the root's, each imported when it is used."""

from __future__ import annotations

from typing import ClassVar

import typer

from dockyard.cli import CONTEXT, Group, Table

NOUNS: Table = {
    "Choose servers": {
        "catalog": ("mcp_catalog", "app", "Add, list, show, remove, import and export catalogues"),
        "server": ("mcp_server", "app", "List, add, remove, inspect, enable and disable servers"),
        "profile": ("mcp_profile", "app", "Make, change, export, import, push and pull profiles"),
        "lock": ("mcp_lock", "lock", "Write down what servers and tools are, or check it"),
    },
    "Use tools": {
        "tools": ("mcp_tools", "app", "List, inspect, count, enable and disable tools"),
        "call": ("mcp_tools", "call", "Use a tool"),
        "gateway": ("mcp_gateway", "app", "Serve a profile's tools to one client over stdio"),
        "client": ("mcp_client", "app", "Connect Claude, Cursor, VS Code, Zed, Goose, Gemini and Codex"),
    },
    "Stay safe": {
        "secret": ("mcp_secret", "app", "Set, list and remove tools' secrets"),
        "approvals": ("mcp_safety", "approvals", "List, grant and refuse calls that wait for a person"),
        "quarantine": ("mcp_safety", "quarantine", "List and review tools whose definition changed"),
        "audit": ("mcp_safety", "audit", "Show and verify the record of calls"),
    },
}


class Nouns(Group):
    """The nouns of ``dockyard mcp``."""

    sections = NOUNS
    aliases: ClassVar = {"catalogue": ("mcp_catalog", "app", "")}


app = typer.Typer(
    cls=Nouns, no_args_is_help=True, rich_markup_mode=None, add_completion=False, context_settings=CONTEXT
)
app.callback(help="Give models and clients tool servers (MCP), safely.")(lambda: None)
