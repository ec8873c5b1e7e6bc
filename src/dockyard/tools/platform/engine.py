"""The API of a container engine, Docker's or Podman's (which speaks Docker's), over its socket.

Where it is: ``DOCKER_HOST``, ``CONTAINER_HOST``, the context that ``docker context use`` chose, and then the places
where engines listen. Paths carry no version, so that each engine answers with its newest.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import ssl
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

import msgspec

from dockyard.errors import DockyardError, EngineUnavailable, NotFound
from dockyard.types import Json

if TYPE_CHECKING:
    import httpx

SECONDS = 30.0
MOST_BYTES = 8 << 20
"""Of one answer; longer ones are cut where that makes sense, else refused."""
HINT = "start Docker or Podman and let Dockyard's user reach its socket, or name it in DOCKER_HOST"
_FRAME = 8


class EngineApi:
    """One engine. A connection a request: these are rare, and an engine that was restarted is found again."""

    def __init__(self, environ: dict[str, str] | None = None) -> None:
        self._environ = environ

    async def get(self, path: str, **query: Any) -> Json:
        """The JSON that is at a path. Raises as ``send``."""
        data = await self.send("GET", path, query)
        try:
            return msgspec.json.decode(data)
        except msgspec.DecodeError as error:
            raise DockyardError(f"the container engine answered {path} with something that is no JSON") from error

    async def send(self, method: str, path: str, query: dict[str, Any], *, seconds: float = SECONDS) -> bytes:
        """Raises EngineUnavailable where none answers, NotFound, and DockyardError with what the engine says."""
        import httpx

        address = await asyncio.to_thread(find, self._environ or dict(os.environ))
        try:
            transport, base = _transport(address, self._environ or dict(os.environ))
            async with (
                httpx.AsyncClient(transport=transport, base_url=base, timeout=seconds) as client,
                client.stream(method, path, params=query) as answer,
            ):
                data = bytearray()
                async for block in answer.aiter_bytes():
                    data += block
                    if len(data) > MOST_BYTES:
                        break
        except (httpx.HTTPError, httpx.InvalidURL, OSError, ssl.SSLError) as error:
            said = str(error) or type(error).__name__
            raise EngineUnavailable(f"no container engine answers at {address}: {said}", hint=HINT) from error
        if answer.status_code == 404:
            raise NotFound(_said(bytes(data)) or f"the container engine has no {path}")
        if answer.status_code >= 400:
            raise DockyardError(f"the container engine refused: {_said(bytes(data)) or answer.status_code}")
        return bytes(data)


def path_of(name: str, *rest: str) -> str:
    """The path of a container's resource, whatever characters its name has."""
    return "/".join(("/containers", quote(name, safe=""), *rest))


def find(environ: dict[str, str]) -> str:
    """The engine's address, ``unix:///…`` or ``tcp://…``. Raises EngineUnavailable."""
    named = environ.get("DOCKER_HOST") or environ.get("CONTAINER_HOST") or _context(environ)
    if named:
        if urlsplit(named).scheme not in ("unix", "tcp", "http", "https"):
            raise EngineUnavailable(
                f"the container engine {named!r} can't be asked from here", hint="give a unix:// or tcp:// address"
            )
        return named
    runtime = environ.get("XDG_RUNTIME_DIR", "")
    places = ["/var/run/docker.sock", "/run/podman/podman.sock"]
    places += [f"{runtime}/docker.sock", f"{runtime}/podman/podman.sock"] if runtime else []
    for place in places:
        if _socket(place):
            return f"unix://{place}"
    raise EngineUnavailable("no container engine runs on this machine", hint=HINT)


def _socket(place: str) -> bool:
    try:
        return stat.S_ISSOCK(Path(place).stat().st_mode)
    except OSError:
        return False


def _context(environ: dict[str, str]) -> str:
    """The address of the context that Docker's command line uses, or nothing."""
    folder = Path(environ.get("DOCKER_CONFIG") or Path(environ.get("HOME", "/")) / ".docker")
    try:
        config = msgspec.json.decode((folder / "config.json").read_bytes(), type=dict[str, Json])
        name = environ.get("DOCKER_CONTEXT") or str(config.get("currentContext") or "")
        if name in ("", "default"):
            return ""
        meta = folder / "contexts" / "meta" / hashlib.sha256(name.encode()).hexdigest() / "meta.json"
        found = msgspec.json.decode(meta.read_bytes(), type=dict[str, Any])
        return str(found["Endpoints"]["docker"]["Host"])
    except (OSError, msgspec.DecodeError, KeyError, TypeError):
        return ""


def _transport(address: str, environ: dict[str, str]) -> tuple[httpx.AsyncHTTPTransport, str]:
    import httpx

    parts = urlsplit(address)
    if parts.scheme == "unix":
        return httpx.AsyncHTTPTransport(uds=parts.path or parts.netloc), "http://engine"
    if parts.scheme == "https" or environ.get("DOCKER_TLS_VERIFY"):
        folder = Path(environ.get("DOCKER_CERT_PATH") or Path(environ.get("HOME", "/")) / ".docker")
        context = ssl.create_default_context(cafile=str(folder / "ca.pem"))
        context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
        return httpx.AsyncHTTPTransport(verify=context), f"https://{parts.netloc}"
    return httpx.AsyncHTTPTransport(), f"http://{parts.netloc}"


def _said(data: bytes) -> str:
    try:
        return str(msgspec.json.decode(data, type=dict[str, Json])["message"])[:500]
    except (msgspec.DecodeError, KeyError):
        return data[:200].decode("utf-8", "replace").strip()


def lines(data: bytes, *, framed: bool) -> str:
    """A container's output as text. Without a terminal both its streams come in frames: kind, three zeros, length."""
    if not framed:
        return data.decode("utf-8", "replace")
    found, at = bytearray(), 0
    while at + _FRAME <= len(data):
        size = int.from_bytes(data[at + 4 : at + _FRAME], "big")
        found += data[at + _FRAME : at + _FRAME + size]
        at += _FRAME + size
    return found.decode("utf-8", "replace")


NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,254}")
