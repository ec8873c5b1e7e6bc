"""Dialects beyond OpenAI's chat and completions: imported and routed when somebody first asks for one.

A cold server must answer its first chat in half a second, and most never hear the other dialects. Every file of this
package that defines ``routes(site) -> Routes`` is found by that; nothing lists them.
"""

from __future__ import annotations

import ast
import importlib
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
from litestar import Litestar
from litestar.exceptions import NotFoundException
from litestar.plugins import PluginProtocol
from litestar.plugins.core import MsgspecDIPlugin

from dockyard.api._site import Site
from dockyard.api._wire import Hot
from dockyard.errors import NotFound

log = logging.getLogger(__name__)


class Described(msgspec.Struct, frozen=True, kw_only=True):
    """A hot route for the description of the API: the struct that decodes its body, a summary, its dialect."""

    body: type
    summary: str
    tag: str
    stream: str = "text/event-stream"


class Routes(msgspec.Struct, frozen=True, kw_only=True):
    """What one dialect answers: framework handlers, and plain ASGI callables by exact path.

    ``below`` holds more of these by what their paths begin with, ``described`` hot routes by path. Paths that begin
    with one of ``failures`` have their framework errors (unknown path, wrong method, invalid body) told by that
    exception handler, in the dialect's own shape. ``broken`` says of dialects that could not be loaded what is wrong.
    """

    handlers: list[Any] = []
    hot: dict[str, Hot] = {}
    below: dict[str, Hot] = {}
    described: dict[str, Described] = {}
    failures: dict[str, Callable[[Any, Exception], Any]] = {}
    broken: dict[str, str] = {}

    def of(self, path: str) -> Hot | None:
        """The hot route of a path, if it has one."""
        found = self.hot.get(path)
        if found is None:
            found = next((each for begins, each in self.below.items() if path.startswith(begins)), None)
        return found


class Light(Litestar):
    """The framework without what it would import for libraries that are not used here."""

    @staticmethod
    def _get_default_plugins(plugins: list[PluginProtocol]) -> list[PluginProtocol]:
        """All structs here are msgspec's. Litestar would import pydantic and attrs wherever they are installed."""
        return [*plugins, MsgspecDIPlugin()]


def dialects() -> list[str]:
    """The names of this package's modules that define ``routes``; none is imported."""
    from dockyard import api

    files = [path for folder in api.__path__ for path in Path(folder).glob("*.py")]
    return sorted(path.stem for path in files if not path.stem.startswith("_") and _has_routes(path))


def gather(site: Site) -> Routes:
    """Import them all and put their routes together; takes a tenth of a second. A broken one hides no other."""
    found = Routes(handlers=[], hot={}, below={}, described={}, failures={}, broken={})
    for name in dialects():
        try:
            routes: Routes = importlib.import_module(f"dockyard.api.{name}").routes(site)
        except Exception as error:
            log.exception("the dialect %s can't be loaded", name)
            found.broken[name] = f"{type(error).__name__}: {error}"
            continue
        found.handlers.extend(routes.handlers)
        found.hot.update(routes.hot)
        found.below.update(routes.below)
        found.described.update(routes.described)
        found.failures.update(routes.failures)
    return found


def application(site: Site, routes: Routes, failed: Callable[[Any, Exception], Any], **options: Any) -> Light:
    """A framework application of the routes; ``failed`` tells errors where a dialect says nothing else."""

    def tell(request: Any, error: Exception) -> Any:
        path = request.scope["path"]
        if routes.broken and isinstance(error, NotFoundException):
            told_of = "; ".join(f"{name} ({why})" for name, why in routes.broken.items())
            error = NotFound(
                f"there is nothing at {path[:200]}", hint=f"the log has why this can't be loaded: {told_of}"
            )
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
    """Read, not imported: a file that can't even be parsed counts, so that it is told of as broken."""
    text = path.read_text(encoding="utf-8")
    if "def routes(" not in text:
        return False
    try:
        tree = ast.parse(text)
    except SyntaxError:
        return True
    return any(isinstance(node, ast.FunctionDef) and node.name == "routes" for node in tree.body)
