"""``dockyard eval``: a table of verbs like the root's, each imported when it is used."""

from __future__ import annotations

from typing import ClassVar

import typer

from dockyard.cli import CONTEXT, Group, Table

VERBS: Table = {
    "Measure": {
        "run": ("evaluate_run", "run", "Put a suite to models as they are served"),
        "harness": ("evaluate_run", "harness", "Run tasks of lm-evaluation-harness on a served model"),
    },
    "Read": {
        "ls": ("evaluate_read", "ls", "List runs, and those that were stopped"),
        "show": ("evaluate_read", "show", "Show a run's figures and items"),
        "compare": ("evaluate_read", "compare", "Compare two runs of a suite, item by item"),
        "export": ("evaluate_read", "export", "Write a run as a log of inspect-ai"),
        "scorers": ("evaluate_read", "scorers", "List scorers and their options"),
    },
    "Share": {
        "push": ("evaluate_run", "push", "Make a suite an artifact, and send it to a registry"),
    },
}


class Verbs(Group):
    """The verbs of ``dockyard eval``."""

    sections = VERBS
    aliases: ClassVar = {"list": ("evaluate_read", "ls", "")}


app = typer.Typer(
    cls=Verbs, no_args_is_help=True, rich_markup_mode=None, add_completion=False, context_settings=CONTEXT
)
app.callback(help="Measure models as they are served, and compare them honestly.")(lambda: None)
