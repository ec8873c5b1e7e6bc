"""``dockyard gate``: whether a model may have a name that counts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dockyard.cli._options import AsJson, Model
from dockyard.cli.proof import Key


def gate(
    model: Model,
    file: Annotated[Path, typer.Option("--file", "-f", metavar="GATE.yaml", help="The rules.")],
    against: Annotated[
        str | None, typer.Option("--against", metavar="NAME", help="What to compare with; else what the gate says.")
    ] = None,
    tag: Annotated[
        str | None, typer.Option("--tag", metavar="TAG", help="Name MODEL gets if it passes: a tag, or a whole name.")
    ] = None,
    trust: Annotated[
        list[Path] | None,
        typer.Option("--trust", metavar="FILE", help="Public key: only reports signed with one count; several times."),
    ] = None,
    sign: Annotated[
        bool, typer.Option("--sign", help="Sign the verdict, with --key or this home's own key; policies ask for that.")
    ] = False,
    key: Key = None,
    as_json: AsJson = False,
) -> int:
    """Decide by its reports whether MODEL passes; the exit code is 5 if not, and the rules that failed are named.

    Rules compare with the parent by intervals of the relative change. The verdict is attached to MODEL.
    """
    from dockyard.artifact.proof.keys import read_public_file
    from dockyard.cli._connect import open_store, read_settings
    from dockyard.cli._output import show_json
    from dockyard.cli.proof import own_key_or_none
    from dockyard.ops.gate import Given, decide, read

    settings = read_settings()
    rules, digest = read(file)
    trusted = tuple(read_public_file(path) for path in trust or ())
    given = Given(against=against, tag=tag, key=own_key_or_none(settings, key, wanted=sign), trusted=trusted)
    found = decide(open_store(settings), model, rules, digest=digest, given=given)
    if as_json:
        show_json(found)
        return 0 if found.passed else 5
    for each in found.outcomes:
        print(f"{'passed' if each.passed else 'FAILED'}  {each.rule}: {each.told}")
    if found.passed:
        print(f"{model} passes gate {found.gate}" + (f" and is now {found.tag}" if found.tag else ""))
        return 0
    kept = "; no name was given" if tag else ""
    print(f"{model} does not pass gate {found.gate}: {', '.join(each.rule for each in found.failed)}{kept}")
    return 5
