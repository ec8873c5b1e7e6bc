"""Where catalogues come from: a file, ``https://``, an artifact of a registry, stdin (``-``), or a text itself."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from dockyard.errors import InvalidRequest, NotFound, SourceError, SourceUnreachable
from dockyard.tools.catalog.reading import MOST_BYTES

if TYPE_CHECKING:
    from dockyard.artifact.store import Store
    from dockyard.settings import Settings

_FILES = (".yaml", ".yml", ".json", ".jsonc")


def fetch(source: str, settings: Settings | None, store: Store | None) -> tuple[str, str]:
    """The text, and what to call where it is from ("" for stdin and texts). Raises as ``catalog.load`` does."""
    if source == "-":
        return _decoded(sys.stdin.buffer.read(MOST_BYTES + 1), "stdin"), ""
    if "\n" in source or source.lstrip().startswith("{"):
        return source, ""
    scheme = source.partition("://")[0].lower() if "://" in source else ""
    if scheme in ("http", "https"):
        return _download(source, settings), source
    if scheme in ("oci", "docker", "catalog"):
        return _artifact(source.partition("://")[2], settings, store), source
    path = Path(source.removeprefix("file://")).expanduser()
    if path.is_file():
        return _decoded(_file(path), source), str(path)
    if scheme or path.suffix.lower() in _FILES or path.is_absolute() or source.startswith((".", "~")):
        raise NotFound(f"there is no file {source!r}", param="catalog")
    return _artifact(source, settings, store), f"oci://{source}"


def _file(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(MOST_BYTES + 1)


def _decoded(data: bytes, where: str) -> str:
    if len(data) > MOST_BYTES:
        raise InvalidRequest(f"{where} has more than {MOST_BYTES} bytes", param="catalog")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise InvalidRequest(f"{where} is not UTF-8 (line {line})", param="catalog") from error


def _download(url: str, settings: Settings | None) -> str:
    from dockyard.artifact.registry.transport import Transport, is_loopback

    host = urlsplit(url).netloc.rpartition("@")[2]
    if url.lower().startswith("http://") and not is_loopback(host):
        raise InvalidRequest(f"{url} is not https", param="catalog", hint="plain http is for this machine only")
    if settings is not None and settings.offline and not is_loopback(host):
        raise SourceUnreachable(f"{url} is on the network, and this Dockyard works offline")
    reply = Transport(connections=1, plain_hosts=(host,) if is_loopback(host) else ()).request("GET", url)
    if reply.status != 200:
        reply.close()
        kind = NotFound if reply.status == 404 else SourceError
        raise kind(f"{url} answered {reply.status}", hint=_hint(url))
    return _decoded(reply.body(MOST_BYTES), url)


def _hint(url: str) -> str | None:
    if re.search(r"registry\.modelcontextprotocol\.io/v0(\.1)?/servers/[^/]+$", url):
        return "the registry wants …/servers/NAME/versions/latest, with / in NAME as %2F"
    return None


def _artifact(reference: str, settings: Settings | None, store: Store | None) -> str:
    from dockyard.tools.catalog import oci

    if settings is None or store is None:
        raise InvalidRequest(f"{reference!r} is neither a file nor a URL", param="catalog")
    return oci.pull(store, reference, oci.CATALOGUE_TYPES, settings)
