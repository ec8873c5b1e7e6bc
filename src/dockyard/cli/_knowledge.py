"""What the verbs of ``dockyard knowledge`` share: the home's bases, and models of a server or of this process."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

if TYPE_CHECKING:
    from dockyard.knowledge.bases import Bases
    from dockyard.knowledge.model import Synced
    from dockyard.knowledge.models import ClientModels
    from dockyard.settings import Settings

T = TypeVar("T")
BaseName = Annotated[str, typer.Argument(metavar="NAME", help="The knowledge base.")]


def bases(settings: Settings) -> Bases:
    from dockyard.knowledge.bases import Bases

    return Bases(settings.home_path)


@contextlib.asynccontextmanager
async def models(settings: Settings, host: str | None) -> AsyncIterator[ClientModels]:
    """The models of the server that was named or runs on this home; else of an app in this process."""
    from dockyard.cli._connect import find_server
    from dockyard.client import AsyncClient
    from dockyard.knowledge.models import ClientModels

    client = find_server(host, settings)
    if client is None:
        from dockyard.api import create_app

        client = AsyncClient(app=create_app(settings, trusted=True))
    async with client:
        yield ClientModels(client)


def with_models(host: str | None, call: Callable[[Settings, ClientModels], Awaitable[T]]) -> T:
    """Run a coroutine that needs models."""
    from dockyard.cli._connect import read_settings

    settings = read_settings()

    async def run() -> T:
        async with models(settings, host) as found:
            return await call(settings, found)

    return asyncio.run(run())


@contextlib.contextmanager
def counting(*, quiet: bool) -> Iterator[Callable[[str, int, int], None]]:
    """Progress of a sync: a bar on a terminal, a line for each stage elsewhere."""
    if quiet:
        yield lambda *_: None
        return
    if not sys.stderr.isatty():
        yield lambda *_: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    names = {"read": "documents", "embed": "embedding", "write": "writing"}
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        tasks: dict[str, Any] = {}

        def told(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = bars.add_task(names.get(stage, stage), total=total or None)
            bars.update(tasks[stage], completed=done, total=total or None)

        yield told


def summary(done: Synced) -> str:
    """What a sync did, in a line."""
    return (
        f"{done.added} added, {done.changed} changed, {done.removed} removed, {done.unchanged} unchanged"
        + (f", {done.kept} kept as they were" if done.kept else "")
        + f"; {done.chunks} passages, {done.embedded} embedded in {done.seconds:.1f} s"
    )


def moment(seconds: float) -> str:
    """A time as a date and hour; "-" for none."""
    import time

    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds)) if seconds else "-"
