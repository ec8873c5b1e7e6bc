"""The model that writes: any server that speaks OpenAI's chat, a running Dockyard, or an app in this process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from dockyard import settings
from dockyard.errors import ServerUnreachable
from dockyard.ops.synthetic.writing import Ask

if TYPE_CHECKING:
    from dockyard.client import Client
    from dockyard.ops.synthesize import SynthesizeParams

MakeApp = Callable[[], Any]
"""Makes the ASGI application that serves the store's models, for use in this process."""


@contextmanager
def connected(params: SynthesizeParams, make_app: MakeApp | None) -> Iterator[Ask]:
    """A function that asks the writer. Raises ServerUnreachable where nobody serves it."""
    with _client(params.endpoint, make_app) as client:

        def ask(text: str, seed: int) -> str:
            chunks = client.chat(
                params.writer, text, temperature=params.temperature, max_tokens=params.tokens, seed=seed
            )
            return "".join(chunk.text for chunk in chunks)

        yield ask


def _client(endpoint: str, make_app: MakeApp | None) -> Client:
    from dockyard.client import Client, running  # asyncio comes with it, and help needs none

    if endpoint:
        return Client(endpoint)
    server = running(settings.load().settings.home_path)
    if server is not None:
        return Client(server.url, api_key=server.token or None)
    if make_app is not None:
        return Client(app=make_app())
    raise ServerUnreachable(
        "no server is running that could write", param="endpoint", hint="`dockyard serve`, or name one with endpoint"
    )
