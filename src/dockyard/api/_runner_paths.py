"""``/engines[/{backend}]/v1/…`` and the like: other names of this server's own inference routes.

The backend in a path is taken as Model Runner's clients mean it: they write ``llama.cpp`` by habit, and the model's
format decides. So it must exist, and the engine is chosen as ever; ``_configure`` below a backend settles it.
"""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
from litestar.types import HTTPScope, Receive, Send

from dockyard.api._endpoint import OPENAI, send_failure
from dockyard.api._runner_wire import engine_of
from dockyard.api._site import Site
from dockyard.api._wire import Headers, credential, read_body, send_bytes
from dockyard.errors import DockyardError, InvalidRequest, NotFound
from dockyard.gateway import identify
from dockyard.types import Call, Kind, Request

PRELOAD = b"x-preload-only"
OWN = ("rerank", "score", "responses", "messages")
"""Routes that Model Runner also has without ``v1``."""
_KINDS: dict[str, Kind] = {"/v1/embeddings": "embed", "/v1/rerank": "rerank", "/v1/score": "rerank"}


class _Named(msgspec.Struct):
    model: str


class Aliases:
    """An ASGI callable for all paths below ``/engines`` that are not management."""

    def __init__(self, site: Site) -> None:
        self._site = site

    async def __call__(self, scope: HTTPScope, headers: Headers, receive: Receive, send: Send) -> None:
        task = asyncio.current_task()
        assert task is not None
        try:
            path = target(scope["path"])
            if headers.get(PRELOAD, b"").lower() == b"true" and scope["method"] == "POST":
                body = await read_body(receive, headers, self._site.settings.max_body, self._site.watchdog, task)
                await self._preload(path, headers, body)
                await send_bytes(send, 200, b"")
                return
        except DockyardError as error:
            await send_failure(send, error, OPENAI)
            return
        # The door has seen to the origin: a second look would write its headers twice.
        kept = [(name, value) for name, value in scope["headers"] if name != b"origin"]
        there: Any = {**scope, "path": path, "raw_path": path.encode(), "headers": kept}
        for left in ("route_handler", "path_params", "litestar_app", "app", "path_template"):
            there.pop(left, None)
        await self._site.app(there, receive, send)

    async def mounted(self, scope: Any, receive: Any, send: Any) -> None:
        """The same as a framework's mount, which has cut its own path off."""
        rest = scope["path"].strip("/")
        there: Any = {**scope, "path": f"/engines/{rest}"}
        await self(there, dict(scope["headers"]), receive, send)

    async def _preload(self, path: str, headers: Headers, body: bytes) -> None:
        """Load the model and answer nothing, as ``docker model run --detach`` wants it."""
        gateway = self._site.gateway
        assert gateway is not None
        try:
            model = msgspec.json.decode(body, type=_Named).model
        except msgspec.DecodeError as error:
            raise InvalidRequest(f"the body names no model: {error}", param="model") from None
        call = Call(request=Request(id="preload"), model=model, dialect="preload", credential=credential(headers))
        await identify.step(gateway.parts)(call)
        lease = await self._site.fleet.lease(model, _KINDS.get(path, "chat"))
        lease.release()


def target(path: str) -> str:
    """The route that a path below ``/engines`` is another name of. Raises NotFound."""
    first, _, rest = path.removeprefix("/engines/").partition("/")
    if first != "v1" and not (first in OWN and path != "/engines/" + first + "/v1"):
        engine_of(first)
        first, _, rest = rest.partition("/")
    if first == "v1" and rest:
        return f"/v1/{rest}"
    if first in OWN:
        return f"/v1/{first}" + (f"/{rest}" if rest else "")
    raise NotFound(f"there is nothing at {path[:200]}", hint="inference is below /engines/v1 and /engines/BACKEND/v1")
