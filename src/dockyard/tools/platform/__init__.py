"""Tools that manage Dockyard itself, so that an assistant can: its containers, and the models of its running server.

    containers.py   list, inspect, logs, stats, start, stop, restart; through the container engine's API (``engine.py``)
    models.py       list, pull, loaded ones, load, unload, usage, status, log; through the server's own API or the store

``SERVER`` is the entry of the built-in catalogue. Who may not manage sees none of these tools, and what changes
something asks a person first, unless a rule of ``tools_rules`` allows it (``safety/``). A container is Dockyard's own
if it, or the image that it was made from, carries a label ``dockyard.…``; others are neither shown nor touched.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from dockyard.settings import Settings
from dockyard.tools.model import Label, Server

KIND = "platform"

READS: dict[str, tuple[Label, ...]] = {
    "list_containers": (),
    "inspect_container": ("private-data",),
    "container_logs": ("untrusted-in", "private-data"),
    "container_stats": (),
    "list_models": (),
    "loaded_models": (),
    "server_status": (),
    "server_logs": ("untrusted-in", "private-data"),
    "usage": ("private-data",),
}
CHANGES: dict[str, tuple[Label, ...]] = {
    "start_container": (),
    "stop_container": ("destructive",),
    "restart_container": ("destructive",),
    "pull_model": ("external-out",),
    "load_model": (),
    "unload_model": ("destructive",),
}

SERVER = Server(
    name="platform",
    kind=KIND,
    title="Dockyard itself",
    description="Containers, models and usage of this Dockyard; needs a key that may manage.",
    labels={**READS, **CHANGES},
    call_seconds=1800.0,
)


def functions(settings: Settings) -> dict[str, Callable[..., Awaitable[Any]]]:
    """The tools by name; each raises errors of ``errors.py``."""
    from dockyard.tools.platform.containers import Containers
    from dockyard.tools.platform.models import Models

    parts: tuple[Any, ...] = (Containers(), Models(settings))
    return {name: next(getattr(one, name) for one in parts if hasattr(one, name)) for name in (*READS, *CHANGES)}


def hints(name: str) -> dict[str, bool]:
    """MCP's annotations of a tool."""
    labels = {**READS, **CHANGES}[name]
    reads = name in READS
    found = {"readOnlyHint": reads, "openWorldHint": "external-out" in labels}
    return found if reads else {**found, "destructiveHint": "destructive" in labels, "idempotentHint": True}
