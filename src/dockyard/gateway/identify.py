"""Who calls, and may they use this model, and so long? Reads ``call.credential``, writes ``call.principal``.

Work that a server goes on with by itself, such as a batch, has its principal already.
"""

from __future__ import annotations

from fnmatch import fnmatchcase

from dockyard.errors import Forbidden
from dockyard.gateway._parts import Answer, Inbound, Parts
from dockyard.types import Call


def step(parts: Parts) -> Inbound:
    keyring = parts.keyring

    async def identify(call: Call) -> Answer | None:
        principal = call.principal
        if principal is None:
            principal = call.principal = await keyring.authenticate(call.credential)
        if "infer" not in principal.scopes:
            raise Forbidden(f"key {principal.name!r} may not infer", hint="use a key with the scope `infer`")
        if principal.models and not any(fnmatchcase(call.model, allowed) for allowed in principal.models):
            raise Forbidden(f"key {principal.name!r} may not use model {call.model!r}", param="model")
        if call.keep_alive is not None and call.keep_alive < 0 and "manage" not in principal.scopes:
            raise Forbidden(
                f"key {principal.name!r} may not keep a model loaded for good",
                param="keep_alive",
                hint='ask for a time, such as "24h", or use a key with the scope `manage`',
            )
        return None

    return identify
