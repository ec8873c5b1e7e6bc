"""``dockyard prompt``: prompts with versions, filled in, asked with, tested and made better."""

from __future__ import annotations

from typing import ClassVar

import typer

from dockyard.cli import CONTEXT, Group, Table

VERBS: Table = {
    "Write prompts": {
        "create": ("prompt_library", "create", "Keep a file as a prompt's next version"),
        "ls": ("prompt_library", "ls", "List prompts, or one prompt's versions"),
        "show": ("prompt_library", "show", "Print a prompt"),
        "diff": ("prompt_library", "diff", "Show what changed between two versions"),
        "tag": ("prompt_library", "tag", "Give a version a further tag"),
        "rollback": ("prompt_library", "rollback", "Make an earlier version the current one"),
        "push": ("prompt_library", "push", "Send a prompt to a registry"),
        "pull": ("prompt_library", "pull", "Fetch a prompt from a registry"),
        "rm": ("prompt_library", "rm", "Remove a prompt, or one version of it"),
    },
    "Use prompts": {
        "render": ("prompt_use", "render", "Print the messages that a prompt becomes"),
        "run": ("prompt_use", "run", "Ask a model with a prompt"),
        "test": ("prompt_use", "check", "Run the tests that stand beside a prompt"),
        "optimize": ("prompt_use", "optimize", "Search for better instructions and examples"),
    },
}


class Verbs(Group):
    """The verbs of ``dockyard prompt``."""

    sections = VERBS
    aliases: ClassVar = {"list": ("prompt_library", "ls", ""), "optimise": ("prompt_use", "optimize", "")}


app = typer.Typer(
    cls=Verbs, no_args_is_help=True, rich_markup_mode=None, add_completion=False, context_settings=CONTEXT
)
app.callback(help="Keep prompts with versions, ask with them, test them and make them better.")(lambda: None)
