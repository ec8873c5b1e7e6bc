"""The least a Litestar app can do for the same bytes: read the body, send what was recorded, whole or in 64 pieces."""

from __future__ import annotations

import base64
import os
from collections.abc import AsyncIterator

from litestar import Litestar, Request, get, post
from litestar.response import Response, Stream

PLAIN = base64.b64decode(os.environ["BARE_PLAIN"])
PIECES = [piece + b"\n\n" for piece in base64.b64decode(os.environ["BARE_STREAM"]).split(b"\n\n") if piece]


@get("/health", media_type="text/plain")
async def health() -> str:
    return "ok"


@post("/v1/chat/completions", status_code=200)
async def plain(request: Request) -> Response:
    await request.body()
    return Response(PLAIN, media_type="application/json")


@post("/v1/chat/completions/stream", status_code=200)
async def stream(request: Request) -> Stream:
    await request.body()

    async def pieces() -> AsyncIterator[bytes]:
        for piece in PIECES:
            yield piece

    return Stream(pieces(), media_type="text/event-stream")


app = Litestar([health, plain, stream], openapi_config=None)
