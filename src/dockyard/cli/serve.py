"""``dockyard serve`` and ``dockyard hub``: flags are the table of settings."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Annotated, Any

import typer

from dockyard.cli._complete import model_names


def _serve(model: list[str] | None = None, **flags: Any) -> int:
    """Serve the store's models over HTTP: any model of the store is loaded when a request names it.

    Listens on loopback; to listen on the network, set keys. Every flag below is also a setting of the file and the
    environment (`dockyard config`).
    """
    return _start(flags, preload=tuple(model or ()), hub_only=False)


def _hub(**flags: Any) -> int:
    """Serve the store as a registry (`/v2/`) that any OCI client can use, and nothing else."""
    return _start(flags, preload=(), hub_only=True)


def _start(flags: dict[str, Any], *, preload: tuple[str, ...], hub_only: bool) -> int:
    if not preload:
        return _serve_until_stopped(flags, preload, hub_only)
    from dockyard.engines import launch

    try:
        return _serve_until_stopped(flags, preload, hub_only)
    finally:
        launch.discard()


def _serve_until_stopped(flags: dict[str, Any], preload: tuple[str, ...], hub_only: bool) -> int:
    from dockyard import stack as stacks
    from dockyard.api import server
    from dockyard.cli._connect import fetch_missing, read_settings
    from dockyard.cli._output import note

    settings = read_settings(**flags)
    if not hub_only:
        settings = stacks.governed(settings)
    for model in preload:
        fetch_missing(model, settings)
    if settings.stack and not hub_only:
        preload = _of_stack(settings, preload)

    def ready(url: str) -> None:
        if hub_only:
            note(f"Hub on {url}/v2/ - Ctrl-C stops it.")
        else:
            note(f"Dockyard on {url} - API {url}/v1, console {url}/, reference {url}/docs. Ctrl-C stops it.")

    def pages() -> list[Any]:
        from dockyard.console import handlers

        return list(handlers())

    server.serve(settings, preload=preload, ready=ready, hub_only=hub_only, extra=pages)
    return 0


def _of_stack(settings: Any, preload: tuple[str, ...]) -> tuple[str, ...]:
    """Fetch what the stack's names stand for, make the indexes that it declares; what is to be loaded at the start."""
    from dockyard import stack as stacks
    from dockyard.cli._connect import fetch_missing

    stack = stacks.of(settings)
    for source in stack.sources():
        fetch_missing(source, settings)
    if any(one.sources for one in stack.knowledge.values()):
        from dockyard.cli._declared import refresh

        refresh(stack, settings)
    first = [name for name in stack.models if (model := stack.model(name)) is not None and model.preload]
    return tuple(dict.fromkeys([*preload, *first]))


def _with_settings(function: Callable[..., int], *leading: inspect.Parameter) -> Callable[..., int]:
    """``function`` with a flag for each setting, so that the table stays the only list of them."""
    from dockyard import settings

    parameters = list(leading)
    for name, default, text in settings.names():
        if isinstance(default, dict):
            continue  # a table is for the settings file
        # Any list of texts is given by repeating the flag in the singular: --api-key A --api-key B.
        many = isinstance(default, tuple)
        flag = _singular(name) if many else name
        kind: Any = list[str] if many else type(default)
        shown = f"{text} [{default}]" if default not in ("", (), False, True) else text
        flags = f"--{flag}".replace("_", "-")
        if kind is bool:
            flags += f"/--no-{flag}".replace("_", "-")
            shown = f"{text} [{'on' if default else 'off'}]"
        option = typer.Option(flags, help=shown, show_default=False, metavar=None if kind is bool else _metavar(kind))
        parameters.append(_parameter(name, Annotated[kind | None, option]))
    function.__signature__ = inspect.Signature(parameters, return_annotation=int)  # type: ignore[attr-defined]
    function.__annotations__ = {p.name: p.annotation for p in parameters}
    return function


def _parameter(name: str, annotation: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)


def _singular(name: str) -> str:
    return f"{name[:-3]}y" if name.endswith("ies") else name.removesuffix("s")


def _metavar(kind: Any) -> str:
    return {int: "N", float: "X"}.get(kind, "TEXT")


_preload = typer.Option(
    "--model", metavar="MODEL", help="Load this model at the start; may be repeated.", autocompletion=model_names
)
serve = _with_settings(_serve, _parameter("model", Annotated[list[str] | None, _preload]))
hub = _with_settings(_hub)
