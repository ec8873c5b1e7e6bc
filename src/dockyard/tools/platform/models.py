"""Models of the server that runs on this home, through its own HTTP API; without one, of the store alone."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from typing import Annotated, Any

from msgspec import Meta

from dockyard.client import AsyncClient, running
from dockyard.errors import InvalidRequest, ServerUnreachable
from dockyard.settings import Settings

Model = Annotated[str, Meta(min_length=1, max_length=512, description="A model's name, such as smollm2.")]


class Models:
    """The tools. Those about what runs raise ServerUnreachable where no server does."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    async def list_models(self) -> dict[str, Any]:
        """List the models in the store: name, digest, size in bytes, whether pinned."""
        client = self._client()
        if client is not None:
            async with client:
                return {"models": await client.stored()}
        return {"models": await asyncio.to_thread(self._stored)}

    async def loaded_models(self) -> dict[str, Any]:
        """List the models in memory: engine, state, requests in flight, memory, when they are unloaded."""
        async with self._server() as server:
            return {"models": await server.ps()}

    async def server_status(self) -> dict[str, Any]:
        """Show the server's version, address, machine, memory and requests in flight."""
        async with self._server() as server:
            return dict(await server.status())

    async def server_logs(
        self,
        model: Annotated[str, Meta(max_length=512, description="Only this model's worker.")] = "",
        tail: Annotated[int, Meta(ge=1, le=2000, description="How many last lines.")] = 100,
    ) -> str:
        """Show the last lines of the server's log, or of one model's worker."""
        async with self._server() as server:
            found = [line async for line in server.logs(model=model or None)]
        return "\n".join(found[-tail:]) or "nothing was logged"

    async def usage(
        self, hours: Annotated[float, Meta(gt=0, le=24 * 366, description="How far to look back.")] = 24.0
    ) -> dict[str, Any]:
        """Show requests and tokens by key and model."""
        async with self._server() as server:
            return dict(await server.call("GET", f"/api/dockyard/usage?since={time.time() - hours * 3600}"))

    async def pull_model(self, model: Model) -> dict[str, Any]:
        """Fetch a model into the store; may take minutes."""
        client = self._client()
        if client is None:
            await asyncio.to_thread(self._pull, model)
        else:
            async with client:
                async for _ in client.lines("POST", "/api/dockyard/pull", {"model": model}):
                    pass
        return {"pulled": model}

    async def load_model(self, model: Model) -> dict[str, Any]:
        """Load a model into memory and wait until it is ready."""
        async with self._server() as server:
            return dict(await server.load(model))

    async def unload_model(self, model: Model) -> dict[str, Any]:
        """Unload a model from memory, once its answers in progress are done."""
        async with self._server() as server:
            return {"unloaded": await server.unload(model)}

    def _client(self) -> AsyncClient | None:
        server = running(self._settings.home_path)
        return None if server is None else AsyncClient(server.url, api_key=server.token or None)

    @contextlib.asynccontextmanager
    async def _server(self) -> AsyncIterator[AsyncClient]:
        client = self._client()
        if client is None:
            raise ServerUnreachable(
                "no Dockyard server is running on this home", hint="start one with `dockyard serve`"
            )
        async with client:
            yield client

    def _stored(self) -> list[dict[str, Any]]:
        from dockyard.artifact.store import Store

        return [
            {
                "reference": str(entry.reference) if entry.reference else None,
                "digest": entry.descriptor.digest,
                "size": entry.size,
                "pinned": entry.pinned,
            }
            for entry in Store.open(self._settings).entries()
        ]

    def _pull(self, model: str) -> None:
        from dockyard.artifact.store import Store
        from dockyard.artifact.transfer import pull

        if self._settings.offline:
            raise InvalidRequest("Dockyard is set to stay offline", hint="unset `offline`")
        pull(Store.open(self._settings), model, self._settings)
