"""``dockyard stack``: what a stack file says, before anything is served from it."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dockyard.cli._options import AsJson

if TYPE_CHECKING:
    from dockyard.settings import Settings
    from dockyard.stack import Stack

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    add_completion=False,
    help="Check a project's stack file, and show what its names stand for.",
)
File = Annotated[Path, typer.Argument(metavar="FILE", help="A stack file, or the folder of a dockyard.yaml.")]


@app.command("check")
def check(file: File = Path(), as_json: AsJson = False) -> int:
    """Say what is wrong with a stack file, or that nothing is; exit code 1 if something is. Nothing is fetched."""
    from dockyard import stack as stacks
    from dockyard.cli._connect import read_settings
    from dockyard.cli._output import show_json

    stack = stacks.load(file)
    wrong = list(_wrong(stack, read_settings()))
    if as_json:
        show_json({"file": str(file), "ok": not wrong, "problems": wrong})
    else:
        for line in wrong:
            print(line)
        if not wrong:
            print(f"{len(stack.routes)} routes, {len(stack.models)} models, {len(stack.prompts)} prompts: all in order")
    return 1 if wrong else 0


@app.command("show")
def show(file: File = Path(), as_json: AsJson = False) -> None:
    """List the names that a stack file serves, and what each stands for."""
    from dockyard import stack as stacks
    from dockyard.cli._output import show_json, show_table

    stack = stacks.load(file)
    if as_json:
        import msgspec

        return show_json(msgspec.to_builtins(stack))
    rows: list[tuple[object, ...]] = []
    aliases = stack.aliases()
    rows += [(name, "model", aliases[name], "", "", "", "") for name in stack.models]
    for name, route in stack.routes.items():
        total = sum(one.weight for one in route.choices())
        for number, one in enumerate(route.choices()):
            share, indexes = f"{one.weight / total:.0%}", ", ".join(route.indexes())
            rows.append(("" if number else name, "route", one.model, one.prompt, share, indexes, route.tools))
    show_table(("name", "kind", "model", "prompt", "share", "knowledge", "tools"), rows)
    return None


def _wrong(stack: Stack, settings: Settings) -> list[str]:
    """What would fail when the stack is served, a sentence each."""
    from dockyard import guards
    from dockyard.artifact.proof.policy import read
    from dockyard.artifact.reference import named
    from dockyard.errors import DockyardError
    from dockyard.knowledge import declared

    found: list[str] = []

    def attempt(at: str, check: Any) -> None:
        try:
            check()
        except DockyardError as error:
            found.append(f"{at}: {error.message}" + (f" ({error.hint})" if error.hint else ""))

    if (policy := stack.policy_path()) is not None:
        attempt("policy", partial(read, policy))
    for source in stack.sources():
        attempt(source, partial(named, source))
    for name, entry in stack.knowledge.items():
        attempt(f"knowledge.{name}", partial(declared.sources, name, entry, stack.folder))
    for name, route in stack.routes.items():
        attempt(f"routes.{name}", partial(guards.for_route, settings, route.guards, "guards"))
    return found
