"""``/api/dockyard/keys`` and ``/usage``: who may use this server, and what they used."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from litestar import delete, get, post
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath, JSONBody, QueryParameter
from msgspec import Meta

from dockyard.gateway.keyring import Keyring
from dockyard.state import State


class KeyBody(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """A key to make."""

    name: Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._@-]{0,63}$")]
    scopes: Annotated[list[Literal["infer", "manage"]], Meta(min_length=1)] = msgspec.field(
        default_factory=lambda: ["infer"]
    )
    models: list[str] = []
    requests_per_minute: Annotated[int, Meta(ge=0, le=1 << 30)] = 0
    expires_in: Annotated[float, Meta(gt=0, le=10**10, description="Seconds; null: never.")] | None = None


def handlers(state: State, keyring: Keyring) -> list[HTTPRouteHandler]:
    """The routes below ``/api/dockyard``."""

    @get("/keys", summary="Keys, without their secrets")
    async def keys() -> dict[str, list[dict[str, Any]]]:
        return {"keys": [msgspec.to_builtins(key) for key in await state.list_keys()]}

    @post("/keys", summary="Make a key; the answer is the only place where its secret is ever shown")
    async def create(data: JSONBody[KeyBody]) -> dict[str, Any]:
        made, secret = await state.create_key(
            data.name,
            scopes=frozenset(data.scopes),
            models=tuple(data.models),
            requests_per_minute=data.requests_per_minute,
            expires_in=data.expires_in,
        )
        await keyring.refresh()
        return {**msgspec.to_builtins(made), "secret": secret}

    @delete("/keys/{name:str}", summary="Revoke a key, at once", status_code=200)
    async def revoke(name: FromPath[str]) -> dict[str, str]:
        await state.revoke_key(name)
        await keyring.refresh()
        return {"revoked": name}

    @get("/usage", summary="Requests and tokens by key and model")
    async def usage(since: Annotated[float, QueryParameter(description="Unix seconds.")] = 0.0) -> dict[str, Any]:
        return {"usage": [msgspec.to_builtins(row) for row in await state.usage(since=since)]}

    return [keys, create, revoke, usage]
