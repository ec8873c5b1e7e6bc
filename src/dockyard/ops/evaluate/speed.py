"""How fast the measured model answers, beside how well: a short closed load whose figures go into the run."""

from __future__ import annotations

import msgspec

from dockyard.client import AsyncClient
from dockyard.ops.bench.figures import Objective, summarize
from dockyard.ops.bench.load import Load, answer, run
from dockyard.ops.bench.resources import watch
from dockyard.types import Json

LOAD = Load(streams=4, requests=12, tokens=32)


async def speed(
    client: AsyncClient, model: str, load: Load = LOAD, objective: Objective | None = None
) -> dict[str, Json]:
    """The figures of ``dockyard bench`` under their names there, with the load that they are of; what is not known is
    left out. Failed requests are counted in ``failed``."""
    await answer(client, model, "Hello.", 2)  # loads the model
    async with watch(client, model) as watched:
        samples = await run(client, model, load)
    figures = msgspec.structs.asdict(summarize(samples, load.streams, objective or Objective()))
    taken = {key: value for key, value in msgspec.structs.asdict(watched.resources).items() if value is not None}
    return {**figures, **taken, "load": msgspec.to_builtins(load)}
