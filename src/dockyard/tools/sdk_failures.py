"""Our failures as the protocol tells them: as a tool's result, or as an error of JSON-RPC."""

from __future__ import annotations

from typing import Any

import mcp_types as types
from mcp.shared.exceptions import MCPError

from dockyard.errors import DockyardError, InvalidRequest, NotFound
from dockyard.tools.model import ApprovalNeeded
from dockyard.tools.sdk import Refusal
from dockyard.types import Json


def failed(error: DockyardError) -> dict[str, Json]:
    """A failure as a tool's result, which models can read."""
    text = f"{error.message} ({error.hint})" if error.hint else error.message
    meta: dict[str, Json] = {"dockyard/code": error.code}
    if isinstance(error, ApprovalNeeded):
        meta["dockyard/approval"] = error.approval.id
    return {
        "content": [{"type": "text", "text": text}],
        "isError": True,
        "resultType": "complete",
        "_meta": meta,
    }


def failure(error: DockyardError, *, params: Any = None, modern: bool = True) -> MCPError:
    """A failure as a JSON-RPC error."""
    if isinstance(error, Refusal):
        return MCPError(error.rpc, error.message, error.data)
    if isinstance(error, NotFound):
        uri = (params or {}).get("uri")
        if uri is not None:
            return MCPError(types.INVALID_PARAMS if modern else -32002, error.message, {"uri": uri})
        return MCPError(types.INVALID_PARAMS, error.message)
    code = types.INVALID_PARAMS if isinstance(error, InvalidRequest) else types.INTERNAL_ERROR
    return MCPError(code, error.message, {"code": error.code})
