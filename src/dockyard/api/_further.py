"""Dialects beyond OpenAI's chat and completions: imported and routed when somebody first asks for one.

A cold server must answer its first chat in half a second, and most never hear the other dialects. Every file of this
package that defines ``routes(site) -> Routes`` is found by that; nothing lists them.
"""

from __future__ import annotations

import ast
import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
from litestar import Litestar
from litestar.plugins import PluginProtocol
from litestar.plugins.core import MsgspecDIPlugin

from dockyard.api._site import Site
from dockyard.api._wire import Hot


class Described(msgspec.Struct, frozen=True, kw_only=True):
    """A hot route for the description of the API: the struct that decodes its body, a summary, its dialect."""

    body: type
    summary: str
    tag: str
    stream: str = "text/event-stream"


class Routes(msgspec.Struct, frozen=True, kw_only=True):
    """What one dialect answers: framework handlers, and plain ASGI callables by exact path.

    ``described`` holds hot routes by path. Paths that begin with one of ``failures`` have their framework errors
    (unknown path, wrong method, invalid body) told by that exception handler, in the dialect's own shape.
    """

    handlers: list[Any] = []
    hot: dict[str, Hot] = {}
    described: dict[str, Described] = {}
    failures: dict[str, Callable[[Any, Exception], Any]] = {}


class Light(Litestar):
    """The framework without what it would import for libraries that are not used here."""

    @staticmethod
    def _get_default_plugins(plugins: list[PluginProtocol]) -> list[PluginProtocol]:
        """All structs here are msgspec's. Litestar would import pydantic and attrs wherever they are installed."""
        return [*plugins, MsgspecDIPlugin()]


def dialects() -> list[str]:
    """The names of this package's modules that define ``routes``; none is imported."""
    return sorted(
        path.stem for path in Path(__file__).parent.glob("*.py") if not path.stem.startswith("_") and _has_routes(path)
    )


def gather(site: Site) -> Routes:
    """Import them all and put their routes together; takes a tenth of a second."""
    found = Routes(handlers=[], hot={}, described={}, failures={})
    for name in dialects():
        routes: Routes = importlib.import_module(f"dockyard.api.{name}").routes(site)
        found.handlers.extend(routes.handlers)
        found.hot.update(routes.hot)
        found.described.update(routes.described)
        found.failures.update(routes.failures)
    return found


def application(site: Site, routes: Routes, failed: Callable[[Any, Exception], Any], **options: Any) -> Light:
    """A framework application of the routes; ``failed`` tells errors where a dialect says nothing else."""

    def tell(request: Any, error: Exception) -> Any:
        path = request.scope["path"]
        for prefix, told in routes.failures.items():
            if path.startswith(prefix):
                return told(request, error)
        return failed(request, error)

    return Light(
        routes.handlers,
        exception_handlers={Exception: tell},
        logging_config=None,
        request_max_body_size=site.settings.max_body,
        **options,
    )


def _has_routes(path: Path) -> bool:
    text = path.read_text(encoding="utf-8")
    return "def routes(" in text and any(
        isinstance(node, ast.FunctionDef) and node.name == "routes" for node in ast.parse(text).body
    )
