"""The command line: this table says which module knows a verb; that module is imported when the verb is used.

No logic lives here: a verb reads its flags, calls the part that does the work, and prints what came back. Failures are
two lines on stderr, ``error: …`` and ``hint: …``, and an exit code:

    0 done   1 failed   2 wrong usage   3 not found   4 can't be reached   5 refused   6 no room   130 interrupted
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterator, MutableMapping, Sequence
from typing import Any, ClassVar

import typer
from typer.core import TyperGroup

Table = dict[str, dict[str, tuple[str, str, str]]]

SECTIONS: Table = {
    "Use a model": {
        "run": ("run", "run", "Ask a model, or talk with it"),
        "serve": ("serve", "serve", "Serve the store's models over HTTP"),
        "explain": ("explain", "explain", "Say which engine serves a model, and why"),
        "ps": ("loaded", "ps", "List loaded models and their memory"),
        "unload": ("loaded", "unload", "Unload one model, or all"),
        "bench": ("bench", "bench", "Measure a model's speed, and find the best way to load it"),
        "status": ("loaded", "status", "Say whether a server runs, and how it is"),
        "logs": ("loaded", "logs", "Show the server's and its workers' logs"),
        "stop": ("loaded", "stop", "Stop the server after the answers in progress"),
    },
    "Fetch and share": {
        "pull": ("transfer", "pull", "Fetch a model into the store"),
        "push": ("transfer", "push", "Send a model to its registry"),
        "search": ("transfer", "search", "Look for models on hubs"),
        "hub": ("serve", "hub", "Serve the store as a registry, and nothing else"),
        "package": ("package", "package", "Make model files an artifact in the store"),
        "save": ("package", "save", "Write artifacts to a tar archive"),
        "load": ("package", "load", "Read artifacts from a tar archive"),
    },
    "Change a model": {
        "convert": ("refit", "convert", "Write a model in another format, checked to answer the same"),
        "quantize": ("refit", "quantize", "Write a model with fewer bits a weight"),
        "prune": ("refit", "prune", "Take weights, layers, neurons or heads out of a model"),
        "merge": ("refit", "merge", "Make adapters part of their base"),
        "data": ("data", "app", "Make, check and look at data sets"),
        "synthesize": ("synthesize", "synthesize", "Make a data set: a model writes it, or a table is drawn"),
        "tune": ("refit", "tune", "Teach a model by examples"),
        "align": ("refit", "align", "Teach a model which answers are better"),
        "distill": ("refit", "distill", "Teach a small model what a larger one says"),
        "pretrain": ("refit", "pretrain", "Train a fresh transformer"),
        "recipe": ("recipe", "app", "Change a model step by step, and name it if it passes"),
    },
    "Use documents": {
        "knowledge": ("knowledge", "app", "Answer from documents, with citations"),
    },
    "Measure and prove": {
        "eval": ("evaluate", "app", "Measure models as they are served, and compare them honestly"),
        "judge": ("judge", "judge", "Measure a model that judges against people's labels"),
        "arena": ("arena", "app", "Let people judge answers, blind"),
        "report": ("report", "app", "Attach evaluations to a model; its card and bill of materials"),
        "diff": ("diff", "diff", "Show what changed between two models"),
        "gate": ("gate", "gate", "Decide by its reports whether a model gets a name"),
        "sign": ("proof", "sign", "Sign models and what is attached to them"),
        "verify": ("proof", "verify", "Hold a model against a policy"),
    },
    "Use prompts": {
        "prompt": ("prompt", "app", "Keep prompts with versions, ask with them, test them"),
    },
    "Use tools": {
        "mcp": ("mcp", "app", "Give models and clients tool servers (MCP), safely"),
    },
    "Look after the store": {
        "ls": ("model", "ls", "List models in the store"),
        "inspect": ("model", "inspect", "Show a model's facts, parts and layers"),
        "history": ("model", "history", "Show what a model was made from"),
        "tag": ("model", "tag", "Give a model a further name"),
        "rm": ("model", "rm", "Remove models"),
        "pin": ("model", "pin", "Keep a model from clean-up"),
        "unpin": ("model", "unpin", "Let clean-up take a model again"),
        "df": ("store", "df", "Show what takes space on disk"),
        "gc": ("store", "gc", "Delete what nothing refers to"),
        "fsck": ("store", "fsck", "Verify every blob of the store"),
    },
    "Set up": {
        "new": ("new", "new", "Write a small working project to start from"),
        "stack": ("stack", "app", "Check a project's stack file, and show what its names stand for"),
        "key": ("key", "app", "Create, list and remove API keys"),
        "config": ("about", "config", "Show settings and where they came from"),
        "plugins": ("about", "plugins", "List engines, sources and other plug-ins"),
        "version": ("about", "version", "Show the version"),
    },
}
"""For each verb its module in this package, the function or Typer app there, and its help in a line."""

HIDDEN = {"list": ("model", "ls", ""), "show": ("model", "inspect", ""), "remove": ("model", "rm", "")}
"""Other tools' words for the same verbs."""

EPILOG = (
    "Exit codes: 0 done, 1 failed, 2 wrong usage, 3 not found, 4 can't be reached, 5 refused, 6 no room, "
    "130 interrupted. Settings: `dockyard config`; each is also an environment variable, as in DOCKYARD_HOME."
)


def command_of(item: Any, name: str) -> Any:
    """The click command of a verb's function or of a noun's Typer app."""
    if not isinstance(item, typer.Typer):
        function = item
        item = typer.Typer(add_completion=False, rich_markup_mode=None, context_settings=CONTEXT)
        item.command(name)(function)
    return typer.main.get_command(item)


class Commands(MutableMapping[str, Any]):
    """Commands by name, each imported when it is looked up; those of the root, or of a noun's own table."""

    def __init__(self, sections: Table = SECTIONS, hidden: dict[str, tuple[str, str, str]] = HIDDEN) -> None:
        self._places = {name: place for section in sections.values() for name, place in section.items()}
        self._hidden = hidden

    def __getitem__(self, name: str) -> Any:
        if name not in self._places and name not in self._hidden:
            raise KeyError(name)
        module, attribute, _ = self._places.get(name) or self._hidden[name]
        return command_of(getattr(importlib.import_module(f"dockyard.cli.{module}"), attribute), name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)

    def __setitem__(self, name: str, value: Any) -> None:
        raise TypeError(f"{name} belongs in the table of verbs")

    def __delitem__(self, name: str) -> None:
        raise TypeError(f"{name} belongs in the table of verbs")


class Group(TyperGroup):
    """The root command: lists verbs from the table, without importing what they need. So do nouns with own tables."""

    sections: ClassVar[Table] = SECTIONS
    aliases: ClassVar[dict[str, tuple[str, str, str]]] = HIDDEN

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.commands: MutableMapping[str, Any] = Commands(self.sections, self.aliases)

    def list_commands(self, _ctx: Any) -> list[str]:
        return list(self.commands)

    def format_options(self, ctx: Any, formatter: Any) -> None:
        with formatter.section("Options"):
            formatter.write_dl(OPTIONS if ctx.parent is None else OPTIONS[-1:])
        self.format_commands(ctx, formatter)

    def format_commands(self, _ctx: Any, formatter: Any) -> None:
        for title, section in self.sections.items():
            with formatter.section(title):
                formatter.write_dl([(name, text) for name, (_, _, text) in section.items()])


def show_help(command: Any, words: Sequence[str]) -> bool:
    """Print a command's help if the words ask for it, without parsing the others; whether they did.

    The parser would first import what checks values, which takes longer than everything else together.
    """
    if not {"-h", "--help"} & set(words[: words.index("--")] if "--" in words else words):
        return False
    context = typer.Context(command, info_name="dockyard", **CONTEXT)
    for word in words:
        if not hasattr(command, "get_command") or word.startswith("-"):
            break
        found = command.get_command(context, word)
        if found is None:
            return False  # the parser says what is near
        command, context = found, typer.Context(found, info_name=word, parent=context, **CONTEXT)
    print(command.get_help(context))
    return True


OPTIONS = [
    ("--debug", "Show where an error came from; DOCKYARD_DEBUG=1 does so too."),
    ("--version", "Show the version and exit."),
    ("--install-completion", "Install completion for the current shell; --show-completion prints it."),
    ("-h, --help", "Show this message and exit; every command has one."),
]
"""Of the root command; ``run`` reads them, for the same reason."""

CONTEXT: dict[str, Any] = {"help_option_names": ["-h", "--help"]}


def root(*, completion: bool) -> Any:
    """The root command; what installs shell completion is imported on demand."""
    app = typer.Typer(
        cls=Group,
        name="dockyard",
        no_args_is_help=True,
        rich_markup_mode=None,
        context_settings=CONTEXT,
        epilog=EPILOG,
        add_completion=completion,
        pretty_exceptions_enable=False,
    )
    app.callback(help="Run, package, serve and watch generative models on your own machines.")(lambda: None)
    return typer.main.get_command(app)


def call(arguments: Sequence[str]) -> int:
    """Do what the arguments say and return the exit code; errors are printed, not raised."""
    debug, words = bool(os.environ.get("DOCKYARD_DEBUG")), list(arguments)
    while words[:1] == ["--debug"]:
        debug = bool(words.pop(0))
    if words[:1] == ["--version"]:
        from dockyard import __version__

        print(f"dockyard {__version__}")
        return 0
    completion = "_DOCKYARD_COMPLETE" in os.environ or (bool(words) and words[0].endswith("-completion"))
    try:
        command = root(completion=completion)
        code = 0 if show_help(command, words) else command.main(words, prog_name="dockyard", standalone_mode=False)
        sys.stdout.flush()
        return int(code or 0)
    except BrokenPipeError:
        # Whoever read our output has gone; the interpreter must not complain about that at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except (KeyboardInterrupt, typer.Abort):
        return 130
    except Exception as error:  # noqa: BLE001 - the one place that turns any failure into an exit code
        if debug:
            import traceback

            traceback.print_exc()
        from dockyard.cli._failure import report

        return report(error)


def main() -> None:
    """The ``dockyard`` command."""
    sys.exit(call(sys.argv[1:]))
