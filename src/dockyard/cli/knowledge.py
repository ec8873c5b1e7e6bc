"""``dockyard knowledge``: a table of verbs like the root's, each imported when it is used."""

from __future__ import annotations

from typing import ClassVar

import typer

from dockyard.cli import CONTEXT, Group, Table

VERBS: Table = {
    "Make": {
        "create": ("knowledge_base", "create", "Make a knowledge base"),
        "add": ("knowledge_base", "add", "Add files, folders, URLs, Git repositories or S3 buckets"),
        "sync": ("knowledge_base", "sync", "Bring an index up to date with its sources"),
        "ls": ("knowledge_base", "ls", "List knowledge bases, or the documents of one"),
        "rm": ("knowledge_base", "rm", "Remove a knowledge base, or a source of one"),
    },
    "Use": {
        "search": ("knowledge_ask", "search", "Find passages"),
        "ask": ("knowledge_ask", "ask", "Answer from the documents, with citations"),
        "eval": ("knowledge_eval", "evaluate", "Measure retrieval and answers on a set of questions"),
    },
    "Share": {
        "push": ("knowledge_share", "push", "Send an index to a registry"),
        "pull": ("knowledge_share", "pull", "Fetch an index and open it here"),
    },
}


class Verbs(Group):
    """The verbs of ``dockyard knowledge``."""

    sections = VERBS
    aliases: ClassVar = {"list": ("knowledge_base", "ls", ""), "remove": ("knowledge_base", "rm", "")}


app = typer.Typer(
    cls=Verbs, no_args_is_help=True, rich_markup_mode=None, add_completion=False, context_settings=CONTEXT
)
app.callback(help="Answer from documents, with citations.")(lambda: None)
