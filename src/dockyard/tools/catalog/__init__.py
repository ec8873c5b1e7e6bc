"""Catalogues of tool servers: Docker's, the MCP registry's, clients' ``mcpServers``, our superset of Docker's.

A file here that binds ``PLUGIN`` is one format. ``load`` finds out which one a text has; what can't be read of it is
named in ``problems``, and the rest goes on. Servers remember what their format said and Dockyard does not read, so
that writing the same format again gives it back.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol, cast

import msgspec

from dockyard import plugins
from dockyard.errors import InvalidRequest
from dockyard.tools.catalog.found import Catalogue as Catalogue
from dockyard.tools.catalog.found import Document
from dockyard.tools.catalog.found import Problem as Problem
from dockyard.tools.catalog.settle import settled as settled
from dockyard.tools.model import Server

if TYPE_CHECKING:
    from dockyard.artifact.store import Store
    from dockyard.settings import Settings

KIND = "tools.catalog"


class Format(Protocol):
    """One format of catalogues."""

    name: str

    def claims(self, value: Any) -> bool:
        """Whether a parsed document looks like this format."""
        ...

    def read(self, document: Document, source: str) -> Catalogue:
        """The servers of a document that ``claims`` accepted. Raises InvalidRequest if there is nothing to be had."""
        ...

    def refuses(self, server: Server) -> str | None:
        """Why the format can't say what this server is, or None."""
        ...

    def write(self, catalogue: Catalogue) -> str:
        """The text, of servers that ``refuses`` has nothing against."""
        ...


def formats() -> list[str]:
    """Names of all formats."""
    return list(plugins.find(KIND))


def format_of(name: str) -> Format:
    """A format by its name. Raises InvalidRequest."""
    found = plugins.find(KIND).get(name)
    if found is None:
        raise InvalidRequest(
            f"there is no format {name!r} of catalogues", param="format", hint=f"one of: {', '.join(formats())}"
        )
    return cast(Format, found.load())


def parse(text: str, source: str = "", *, where: str = "") -> Catalogue:
    """The catalogue in a text. Raises InvalidRequest, with the line where there is one.

    ``source`` is what servers say they are from; ``where`` what messages call the text.
    """
    from dockyard.tools.catalog.reading import document

    where = where or source or "the text"
    found = document(text, where)
    for name in formats():
        one = format_of(name)
        if one.claims(found.value):
            return one.read(found, source)
    raise InvalidRequest(
        f"{where} is no catalogue of tool servers",
        param="catalog",
        hint="expected `registry:` (Docker), a server.json, or `mcpServers`",
    )


def load(source: str, settings: Settings | None = None, store: Store | None = None) -> Catalogue:
    """The catalogue at a path, URL or OCI reference, or in a text, or on stdin (``-``). Raises InvalidRequest,
    NotFound, SourceError; an artifact needs ``store`` and ``settings``."""
    from dockyard.tools.catalog.sources import fetch

    text, named = fetch(source, settings, store)
    return parse(text, named, where=named or "the text")


def read(source: str, settings: Settings | None = None, store: Store | None = None) -> list[Server]:
    """The servers of ``load``. Raises InvalidRequest if something could not be read and nothing else is there."""
    found = load(source, settings, store)
    if found.problems and not found.servers:
        raise InvalidRequest("; ".join(str(problem) for problem in found.problems[:5]), param="catalog")
    return list(found.servers)


def write(servers: Sequence[Server] | Catalogue, format: str) -> str:
    """A catalogue as text. Raises InvalidRequest naming servers that the format has no words for."""
    one = format_of(format)
    catalogue = servers if isinstance(servers, Catalogue) else Catalogue(format=format, servers=tuple(servers))
    refused = [(server.name, reason) for server in catalogue.servers if (reason := one.refuses(server))]
    if refused:
        names = ", ".join(name for name, _ in refused)
        raise InvalidRequest(f"{names}: {refused[0][1]}", param="format", hint="the format `dockyard` has them all")
    return one.write(catalogue)


def only(catalogue: Catalogue, format: str) -> tuple[Catalogue, tuple[Problem, ...]]:
    """The catalogue with the servers that a format has words for, and a problem for each of the others."""
    one = format_of(format)
    refused = {server.name: reason for server in catalogue.servers if (reason := one.refuses(server))}
    left = tuple(server for server in catalogue.servers if server.name not in refused)
    problems = tuple(Problem(where=name, message=reason) for name, reason in refused.items())
    return msgspec.structs.replace(catalogue, servers=left), problems
