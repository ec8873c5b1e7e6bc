"""Dockyard: run, package, serve and watch generative models on your own machines.

The names below are loaded when they are first used, so that ``import dockyard`` costs nothing:

    with dockyard.Client("http://127.0.0.1:12434") as client:
        for chunk in client.chat("smollm2", "hi"):
            print(chunk.text, end="")
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dockyard.api.server import serve as serve
    from dockyard.artifact.materialize import model_files as model_files
    from dockyard.artifact.store import Store as Store
    from dockyard.artifact.transfer import pull as pull
    from dockyard.artifact.transfer import push as push
    from dockyard.client import AsyncClient as AsyncClient
    from dockyard.client import Client as Client
    from dockyard.errors import DockyardError as DockyardError
    from dockyard.ops.pack import package as package
    from dockyard.settings import Settings as Settings
    from dockyard.types import Reference as Reference

__version__ = "0.1.0"

_HOMES = {
    "AsyncClient": "client",
    "Client": "client",
    "DockyardError": "errors",
    "Reference": "types",
    "Settings": "settings",
    "Store": "artifact.store",
    "model_files": "artifact.materialize",
    "package": "ops.pack",
    "pull": "artifact.transfer",
    "push": "artifact.transfer",
    "serve": "api.server",
}

__all__ = ["__version__", *sorted(_HOMES)]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'dockyard' has no attribute {name!r}")
    return getattr(import_module(f"dockyard.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
