"""Verbs about a running server and the models that it holds in memory."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dockyard.cli._complete import model_names
from dockyard.cli._options import AsJson, Host

if TYPE_CHECKING:
    from dockyard.client import AsyncClient


def ps(as_json: AsJson = False, host: Host = None) -> None:
    """List loaded models: engine, state, requests in flight, and memory as predicted and as measured."""
    from dockyard.cli._connect import ask_server
    from dockyard.cli._output import show_json, show_table, size

    found = ask_server(host, lambda client: client.ps())
    if as_json:
        return show_json(found)
    rows = [
        (
            model["reference"],
            model["engine"] + (f" ({mode})" if (mode := model.get("mode", "generate")) != "generate" else ""),
            model["state"],
            f"{model['active']}/{model['parallel']}" + (f"+{model['queued']}" if model["queued"] else ""),
            model["context"],
            size(sum(model["predicted"].get(part, 0) for part in ("weights", "kv_cache", "workspace"))),
            size(model["measured"]),
            _until(model["expires_at"]),
        )
        for model in found
    ]
    titles = ("model", "engine", "state", "requests", "context", "predicted", "measured", "unloads in")
    show_table(titles, rows)
    for model in found:
        if limits := model.get("limits"):
            print(f"{model['reference']}: {limits}")
    return None


def status(as_json: AsJson = False, host: Host = None) -> int:
    """Say whether a server runs, and how it is; the exit code is 4 if none does."""
    import asyncio

    from dockyard.cli._connect import find_server, read_settings
    from dockyard.cli._output import show_json

    client = find_server(host, read_settings())

    async def exchange(client: AsyncClient) -> Any:
        async with client:
            return await client.status()

    if client is None:
        if as_json:
            show_json({"running": False})
        else:
            print("No server is running on this machine. Start one with `dockyard serve`.")
        return 4
    answer = {"running": True, **asyncio.run(exchange(client))}
    if as_json:
        show_json(answer)
        return 0
    _show_fields(answer)
    return 0


def unload(
    model: Annotated[str | None, typer.Argument(metavar="MODEL", autocompletion=model_names)] = None,
    everything: Annotated[bool, typer.Option("--all", help="Unload every model.")] = False,
    as_json: AsJson = False,
    host: Host = None,
) -> None:
    """Unload MODEL, or with --all every model, once its answers in progress are done."""
    from dockyard.cli._connect import ask_server
    from dockyard.cli._output import show_json
    from dockyard.errors import InvalidRequest

    if (model is None) != everything:
        raise InvalidRequest("name a model, or give --all", hint="`dockyard ps` lists loaded models")
    stopped = ask_server(host, lambda client: client.unload(model))
    if as_json:
        show_json({"unloaded": stopped})
    else:
        print(f"{stopped} unloaded")


def logs(
    model: Annotated[str | None, typer.Argument(metavar="MODEL", help="Only this model's worker.")] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as lines come, until Ctrl-C.")] = False,
    host: Host = None,
) -> None:
    """Show the server's log and its workers'."""
    from dockyard.cli._connect import ask_server

    async def copy(client: AsyncClient) -> None:
        async for line in client.logs(follow=follow, model=model):
            print(line, flush=True)

    ask_server(host, copy)


def stop(host: Host = None) -> None:
    """Stop the server after the answers in progress, and wait until it has gone."""
    from filelock import FileLock, Timeout

    from dockyard.cli._connect import ask_server, read_settings
    from dockyard.errors import DockyardError

    ask_server(host, lambda client: client.stop())
    try:
        if host is None:  # it holds this until its last worker has gone, which is after it last answered
            with FileLock(read_settings().home_path / "server.lock", timeout=30):
                pass
    except Timeout:
        raise DockyardError(
            "the server is still finishing answers", hint="ask again, or look at `dockyard logs`"
        ) from None
    print("stopped")


def _until(moment: float | None) -> str:
    from dockyard.cli._output import span

    if moment is None:
        return "never"
    return span(moment - datetime.now(UTC).timestamp())


def _show_fields(answer: dict[str, Any], indent: str = "") -> None:
    """A line a field, with sizes and times as people read them."""
    from dockyard.cli._output import ago, size, span

    for name, value in answer.items():
        if isinstance(value, dict):
            print(f"{indent}{name}:")
            _show_fields(value, indent + "  ")
            continue
        if isinstance(value, list):
            value = ", ".join(str(item) for item in value) or "none"
        elif name.startswith("memory"):
            value = size(value)
        elif name == "uptime":
            value = span(value)
        elif name == "started":
            value = ago(value)
        print(f"{indent}{name}: {value}")
