"""Verbs about the store as a whole."""

from __future__ import annotations

from typing import Annotated

import typer

from dockyard.cli._options import AsJson


def df(as_json: AsJson = False) -> None:
    """Show what takes space on disk, and what `gc` would free."""
    from dockyard.cli._connect import open_store
    from dockyard.cli._output import show_json, show_table, size

    used = open_store().df()
    if as_json:
        return show_json(used)
    rows = [
        ("blobs", used.blob_count, size(used.blobs), size(used.reclaimable)),
        ("unfinished downloads", "-", size(used.incoming), size(used.incoming)),
        ("run directories", "-", size(used.runs), "-"),
        ("quarantine", "-", size(used.quarantine), size(used.quarantine)),
    ]
    show_table(("kind", "count", "size", "reclaimable"), rows)
    quota = f"{size(used.quota)} quota" if used.quota else "no quota"
    print(f"\n{used.artifacts} artifacts, {quota}, {size(used.free)} free on the disk")
    return None


def gc(
    grace: Annotated[float, typer.Option(help="Keep what is younger than so many seconds.")] = 3600.0,
    as_json: AsJson = False,
) -> None:
    """Delete manifests without a name, blobs that nothing refers to, and downloads given up on."""
    from dockyard.cli._connect import open_store
    from dockyard.cli._output import show_json, size

    freed = open_store().gc(grace=grace)
    if as_json:
        return show_json(freed)
    print(f"freed {size(freed.bytes)}: {freed.blobs} blobs, {freed.partials} downloads, {freed.runs} run directories")
    return None


def fsck(
    repair: Annotated[bool, typer.Option("--repair", help="Mend the index; move corrupt blobs to quarantine.")] = False,
    as_json: AsJson = False,
) -> int:
    """Verify the digest of every blob and every name; the exit code is 1 if something is wrong and was not mended."""
    from dockyard.cli._connect import open_store
    from dockyard.cli._output import show_json

    problems = open_store().fsck(repair=repair)
    if as_json:
        show_json(problems)
    else:
        for problem in problems:
            print(f"{problem.fault} {problem.where}: {problem.message}{' (mended)' if problem.repaired else ''}")
        if not problems:
            print("the store is sound")
    return int(any(not problem.repaired for problem in problems))
