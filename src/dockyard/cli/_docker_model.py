"""What the verbs of ``docker-model`` ask: the server that runs or was named, else the store on this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dockyard.client import AsyncClient

BRIDGE = "172.17.0.1"
"""Where containers find this machine, unless the bridge says otherwise."""


def configuration(
    model: str,
    context: int | None,
    flags: list[str] | None,
    *,
    keep_alive: str | None = None,
    mode: str | None = None,
    think: bool | None = None,
) -> dict[str, Any]:
    body: dict[str, Any] = {
        "model": model,
        "context-size": context,
        "runtime-flags": flags,
        "keep_alive": keep_alive,
        "mode": mode,
    }
    if think is not None:
        body["llamacpp"] = {"reasoning-budget": -1 if think else 0}
    return {name: value for name, value in body.items() if value}


def ask(method: str, path: str, body: Any = None) -> Any:
    """One exchange with the server, which must be there."""
    from dockyard.cli._connect import ask_server

    return ask_server(None, lambda client: client.call(method, path, body))


def models_there() -> list[Any]:
    """The server's models; without one, those of the store on this machine."""
    from dockyard.cli._connect import find_server, open_store, read_settings

    settings = read_settings()
    if find_server(None, settings) is not None:
        return list(ask("GET", "/models"))
    from dockyard.api._runner_models import listed

    return listed(open_store(settings))


def spellings(tags: list[str]) -> list[str]:
    """Every way to write a name: Compose compares texts, and pulls what it does not find."""
    from dockyard.artifact.reference import familiar, parse
    from dockyard.cli._connect import read_settings
    from dockyard.errors import InvalidReference

    settings, found = read_settings(), dict.fromkeys(tags)
    for tag in tags:
        try:
            reference = parse(tag)
        except InvalidReference:
            continue  # what came from elsewhere than a registry has one name
        short = familiar(reference, registry=settings.default_registry, namespace=settings.default_namespace)
        plain = tag.removeprefix(f"{settings.default_registry}/")
        found |= dict.fromkeys((tag.removesuffix(":latest"), plain, plain.removesuffix(":latest"), short))
    return list(found)


def fetched(model: str, show: Any) -> bool:
    """Fetch a model where the server is, else into this machine's store; whether anything had to come."""
    from dockyard.cli._connect import find_server, read_settings

    settings = read_settings()
    if any(model in spellings(one["tags"]) for one in models_there()) and settings.offline:
        return False
    client = find_server(None, settings)
    moved: set[str] = set()

    def tell(news: dict[str, Any]) -> None:
        if news.get("message"):
            show(news["message"])
        if news.get("current", 0) < news.get("total", 0) and news.get("item") not in moved:
            moved.add(news["item"])
            show(f"Pulling {news['item']} ({news['total']} bytes)")

    if client is None:
        import msgspec

        from dockyard.artifact.transfer import pull as fetch
        from dockyard.cli._connect import open_store

        fetch(open_store(settings), model, settings, on_progress=lambda news: tell(msgspec.to_builtins(news)))
        return bool(moved)

    async def follow(client: AsyncClient) -> None:
        async for news in client.lines("POST", "/api/dockyard/pull", {"model": model}):
            tell(news)

    from dockyard.cli._connect import ask_server

    ask_server(None, follow)
    return bool(moved)


def endpoints() -> dict[str, str]:
    """Where this machine and where containers find the server; both end in ``/v1/``, as Model Runner's do."""
    from urllib.parse import urlsplit

    from dockyard.cli._connect import named_server

    found = ask("GET", "/api/dockyard/status")
    url = (named_server(None) or found["url"]).rstrip("/").removesuffix("/v1")
    here = urlsplit(url)
    host = str(found["host"])
    if named_server(None) is None and host in ("0.0.0.0", "::", ""):  # noqa: S104 - it is compared, not listened on
        outside = f"{here.scheme}://{_bridge()}:{here.port}"
    else:
        outside = url
    return {"endpoint": f"{outside}/v1/", "endpointHost": f"{url}/v1/"}


def _bridge() -> str:
    """This machine's address on Docker's default bridge."""
    import socket

    import psutil

    addresses = psutil.net_if_addrs().get("docker0", [])
    return next((one.address for one in addresses if one.family == socket.AF_INET), BRIDGE)


def reachable(url: str) -> bool:
    from urllib.parse import urlsplit

    from dockyard.settings import LOOPBACK

    return urlsplit(url).hostname not in LOOPBACK
