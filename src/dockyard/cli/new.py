"""``dockyard new``: a small working project to start from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dockyard.cli._options import AsJson


def new(
    usecase: Annotated[
        str | None, typer.Argument(metavar="USECASE", help="What to start; without it, the list.")
    ] = None,
    folder: Annotated[
        Path | None, typer.Argument(metavar="DIR", help="A new or empty folder; else one of the use case's name.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write a small project: stack file, Compose file, code, and a test that passes."""
    from dockyard import starters
    from dockyard.cli._output import show_json, show_table

    if usecase is None:
        found = starters.starters()
        if as_json:
            import msgspec

            return show_json([msgspec.to_builtins(one) for one in found])
        return show_table(("usecase", "model", "what it is"), [(one.name, one.model, one.title) for one in found])
    target = folder if folder is not None else Path(usecase)
    files = starters.write(usecase, target)
    about = next(one for one in starters.starters() if one.name == usecase)
    if as_json:
        return show_json({"usecase": usecase, "folder": str(target), "files": [str(file) for file in files]})
    for file in files:
        print(target / file)
    print(f"\n{about.title}. Try it: cd {target} && dockyard pull {about.model} && python -m unittest")
    if about.note:
        print(about.note)
    return None
