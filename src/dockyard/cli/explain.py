"""``dockyard explain``: which engine serves a model, why, with what memory, and what would leave for it."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from dockyard.cli._options import AsJson, Host, Model


def explain(
    model: Model,
    kind: Annotated[str, typer.Option("--kind", help="chat, complete, embed, rerank, tokenize …")] = "chat",
    as_json: AsJson = False,
    host: Host = None,
) -> None:
    """Say what a request for MODEL would meet now, and why. Nothing is loaded; a server need not run."""
    import asyncio
    from urllib.parse import urlencode

    from dockyard.cli._connect import find_server, read_settings
    from dockyard.cli._output import show_json

    settings = read_settings()
    client = find_server(host, settings)
    running = client is not None
    if client is None:
        from dockyard.api import create_app
        from dockyard.client import AsyncClient

        client = AsyncClient(app=create_app(settings, trusted=True))

    async def ask() -> Any:
        async with client:
            return await client.call("GET", f"/api/dockyard/explain?{urlencode({'model': model, 'kind': kind})}")

    found = asyncio.run(ask())
    if as_json:
        return show_json(found)
    return _show(found, running=running)


def _show(found: dict[str, Any], *, running: bool) -> None:
    from dockyard.cli._output import show_table, size

    asked = "" if found["model"] == found["reference"] else f", asked for as {found['model']}"
    print(f"{found['reference']} ({found['digest'][:19]}) for {found['kind']}{asked}")
    if found.get("adapter"):
        print(f"with the adapter {found['adapter']}")
    print(f"\n{found['sentence']}\n")
    print(f"engine    {found['engine']}: {found['why']}")
    for name, why in found["refused"].items():
        print(f"not       {name}: {why or 'it could, and was not chosen'}")
    print()
    rows = [
        (
            one["engine"],
            one["state"],
            one["context"],
            one["parallel"],
            one["threads"] or "-",
            *(size(one["predicted"].get(part, 0)) for part in ("weights", "kv_cache", "workspace")),
            size(sum(one["predicted"].values())),
            one.get("limits") or "-",
        )
        for one in found["replicas"]
    ]
    titles = ("replica", "state", "context", "parallel", "threads", "weights", "kv cache", "workspace", "total")
    show_table((*titles, "limits"), rows)
    print(f"\nbudget    {size(found['budget'])} for all models ({found['budget_source']}), {size(found['free'])} free")
    for one in found["resident"]:
        total = size(sum(one["predicted"].values()))
        print(f"loaded    {one['reference']} on {one['engine']}, {total}, {one['active']} in use")
    if found["evicts"]:
        print(f"leaves    {', '.join(found['evicts'])}")
    if not running:
        print("          (no server runs here: this is what one would do if started now)")
    print()
    for one in found["pipeline"]:
        print(f"{one['direction']:9} {one['step']}: {one['does'].partition('. ')[0].rstrip('.')}")
    print()
    if found["configured"]:
        told = ", ".join(f"{name} {value}" for name, value in found["configured"].items())
        print(f"configured for this model: {told}")
    changed = [one for one in found["settings"] if not one["default"]]
    same = [one["name"] for one in found["settings"] if one["default"]]
    for one in changed:
        print(f"setting   {one['name']} = {one['value']}")
    print(f"as by default: {', '.join(same)}")
