"""Where this project's models answer: the server at $DOCKYARD_URL, or without one the stack file in this folder."""

import os
from pathlib import Path

from dockyard import Client
from dockyard.api import create_app
from dockyard.settings import load

HERE = Path(__file__).parent


def connect() -> Client:
    """A client; use it as ``with connect() as client``. $DOCKYARD_API_KEY is its key, if the server wants one."""
    url = os.environ.get("DOCKYARD_URL")
    if url:
        return Client(url)
    settings = load({"stack": str(HERE / "dockyard.yaml"), "log_level": "error"}).settings
    return Client(app=create_app(settings, trusted=True))


def ask(client: Client, route: str, messages, **fields) -> str:
    """The whole answer of a route to a text, or to messages."""
    return "".join(chunk.text for chunk in client.chat(route, messages, **fields)).strip()
