"""What the verbs of ``dockyard mcp`` share: the home's catalogues and profiles, and a toolbox in this process."""

from __future__ import annotations

import contextlib
import getpass
from collections.abc import AsyncIterator, Iterable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dockyard.cli._connect import open_store, read_settings

if TYPE_CHECKING:
    from pathlib import Path

    from dockyard.settings import Settings
    from dockyard.tools.catalog.found import Problem
    from dockyard.tools.catalog.shelf import Catalogues
    from dockyard.tools.model import Server
    from dockyard.tools.profiles import Profiles
    from dockyard.tools.safety import Safety
    from dockyard.tools.toolbox import Toolbox
    from dockyard.types import Principal

ProfileName = Annotated[str, typer.Option("--profile", "-p", metavar="NAME", help="The profile to use.")]
Locked = Annotated[
    bool, typer.Option("--locked", help="Refuse if servers or tools are others than mcp.lock.json says.")
]
PATIENCE_SECONDS = 900.0
"""A person at a terminal would rather wait for a package or an image to be fetched than be told half a list."""
LockFile = Annotated[str, typer.Option("--lock-file", metavar="PATH", help="The lock's file.")]


def catalogues(settings: Settings | None = None) -> Catalogues:
    from dockyard.tools.catalog.shelf import Catalogues

    return Catalogues((settings or read_settings()).home_path)


def profiles(settings: Settings | None = None, *, store: bool = False) -> Profiles:
    from dockyard.tools.profiles import Profiles

    settings = settings or read_settings()
    return Profiles(settings.home_path, open_store(settings) if store else None)


def safety(settings: Settings | None = None) -> Safety:
    from dockyard.tools.safety import Safety

    return Safety(settings or read_settings())


def person() -> Principal:
    """Whoever sits at this terminal: their home, so they may do everything in it."""
    from dockyard.types import Principal

    try:
        name = getpass.getuser()
    except (KeyError, OSError):
        name = "local"
    return Principal(name=name, scopes=frozenset({"infer", "manage"}))


@contextlib.asynccontextmanager
async def toolbox(
    settings: Settings, profile: str, lock: Path | None = None, *, patience: float = PATIENCE_SECONDS
) -> AsyncIterator[tuple[Toolbox, Any]]:
    """A toolbox in this process with a session of ``profile``; with ``lock``, only if all is as it was locked.

    ``patience`` is how many seconds a list waits for a server that starts.
    """
    from dockyard.tools.lock import check, pinned
    from dockyard.tools.pool import Limits
    from dockyard.tools.profiles import Profiles
    from dockyard.tools.safety import Safety
    from dockyard.tools.toolbox import Toolbox

    guard = Safety(settings)
    kept = Profiles(settings.home_path)
    box = Toolbox(settings, safety=guard, profiles=kept, limits=Limits(list_seconds=patience))
    try:
        await box.start()
        session = box.session(person(), profile, "command line")
        if lock is not None:
            run = kept.get(profile)
            session.given = pinned(run, await check(box, run, settings, lock))
        yield box, session
    finally:
        await box.close()


def note_problems(problems: Iterable[Problem]) -> None:
    from dockyard.cli._output import note

    for problem in problems:
        note(f"left out: {problem}")


def shown(server: Server) -> dict[str, Any]:
    """A server without what it was read from, to print."""
    import msgspec

    found: dict[str, Any] = msgspec.to_builtins(msgspec.structs.replace(server, extra={}))
    return found


def runs(server: Server) -> str:
    """In a few words, what is run."""
    return server.image or server.package or server.url or " ".join(server.command)


def value_of(text: str) -> Any:
    """``key=VALUE``: JSON if it is, else text."""
    import msgspec

    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError:
        return text
