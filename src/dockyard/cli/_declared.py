"""The indexes that a stack file declares, made or brought up to date before it is served."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dockyard.settings import Settings
    from dockyard.stack import Stack


def refresh(stack: Stack, settings: Settings) -> None:
    """Fetch the models that find passages, then sync, a line for each index. An index that can't be brought up to date
    is served as it was."""
    import asyncio

    from dockyard.api import create_app
    from dockyard.cli._connect import fetch_missing, open_store
    from dockyard.cli._knowledge import bases, counting
    from dockyard.cli._output import note
    from dockyard.client import AsyncClient
    from dockyard.knowledge import declared
    from dockyard.knowledge.models import ClientModels

    for model in declared.models_of(stack):
        fetch_missing(model, settings)
    found = bases(settings)

    async def run() -> None:
        async with AsyncClient(app=create_app(settings, trusted=True)) as client:
            models, store = ClientModels(client), open_store(settings)
            with counting(quiet=False) as told:
                async for one in declared.refresh(found, models, store, settings, stack, told=lambda _: told):
                    note(_line(one))

    try:
        asyncio.run(run())
    finally:
        found.close()


def _line(one: object) -> str:
    from dockyard.cli._knowledge import summary
    from dockyard.knowledge.declared import Refreshed

    assert isinstance(one, Refreshed)
    if one.done is not None:
        problems = "".join(f"\n  {p.path}: {p.message}" for p in one.done.problems)
        return f"knowledge {one.name}: {summary(one.done)}{problems}"
    assert one.error is not None
    hint = f" ({one.error.hint})" if one.error.hint else ""
    return f"knowledge {one.name} is served as it was: {one.error.message}{hint}"
