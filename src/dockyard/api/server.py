"""Runs the application on a socket: one process, one event loop, shut down without cutting answers short.

Granian carries HTTP: headers, keep-alive and slow clients are handled outside Python. The socket is ours, so that a
taken port is an error and port 0 can be asked what it became.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import secrets
import signal
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from dockyard import stack as stacks
from dockyard.errors import Conflict, DockyardError, SettingsError
from dockyard.settings import LOOPBACK, Settings

if TYPE_CHECKING:
    from dockyard.api._site import Site
    from dockyard.artifact.store import Store
    from dockyard.fleet import Fleet

log = logging.getLogger(__name__)

DRAIN_SECONDS = 30.0
HEAD_START = 0.5
"""Longest that the first preload may keep the rest of the start waiting, in seconds."""

HEADER_MILLISECONDS = 10_000
HEADER_BYTES = 64 << 10
BACKLOG = 1024
SPARE_FILES = 4096


def serve(
    settings: Settings,
    preload: Sequence[str] = (),
    ready: Callable[[str], None] | None = None,
    hub_only: bool = False,
    extra: Callable[[], Sequence[Any]] = tuple,
) -> None:
    """Serve until SIGTERM, SIGINT or ``POST /api/dockyard/stop``; then finish what is under way and return.

    ``ready`` is called with the server's URL once it listens and ``preload`` is loaded. Raises SettingsError for an
    address that must not or can't be used, Conflict if this home has a server already, and whatever a preload raises.
    """
    check_exposure(settings)
    if not hub_only:
        settings = stacks.governed(settings)
    home = settings.home_path
    home.mkdir(parents=True, exist_ok=True)
    gc.disable()  # until all that stays is imported: there is nothing to collect before
    try:
        with _only_server(home), _listening(settings) as sock:
            _run(_Server(settings, tuple(preload), ready, hub_only, extra, sock).main)
    finally:
        gc.enable()


def check_exposure(settings: Settings) -> None:
    """Raises SettingsError for an open server: one that others can reach and that asks for no key."""
    if settings.host not in LOOPBACK and not settings.api_keys:
        raise SettingsError(
            f"{settings.host} can be reached from elsewhere, and there are no keys: anyone could use this server",
            param="host",
            hint="set a key (`--api-key SECRET:manage` or DOCKYARD_API_KEYS), or listen on 127.0.0.1",
        )
    if any(len(key.removesuffix(":manage")) < 8 for key in settings.api_keys):
        raise SettingsError("a key of `api_keys` has fewer than 8 characters", param="api_keys")


@contextlib.contextmanager
def _only_server(home: Path) -> Iterator[None]:
    from filelock import FileLock, Timeout

    lock = FileLock(home / "server.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        try:
            told = msgspec.json.decode((home / "server.json").read_bytes())
            where = f" (process {told['pid']}, {told['url']})"
        except (OSError, msgspec.DecodeError, KeyError, TypeError):
            where = ""
        raise Conflict(
            f"a server already runs on {home}{where}", hint="stop it with `dockyard stop`, or set another `home`"
        ) from None
    try:
        yield
    finally:
        lock.release()


@contextlib.contextmanager
def _listening(settings: Settings) -> Iterator[socket.socket]:
    host, port = settings.host, settings.port
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        sock = socket.socket(family, socket.SOCK_STREAM)
    except OSError as error:
        raise SettingsError(f"{host!r} is no address of this machine: {error}", param="host") from error
    with contextlib.closing(sock):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # Inherited by each connection: without it a stream's events wait for the client's delayed acknowledgement.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            sock.bind(address)
            sock.listen(BACKLOG)
        except OSError as error:
            raise SettingsError(
                f"can't listen on {host}:{port}: {error.strerror or error}",
                param="port",
                hint="another program has this port; choose one with --port (0 picks a free one)",
            ) from error
        sock.setblocking(False)
        yield sock


def _run(main: Callable[[], Any]) -> None:
    try:
        import uvloop
    except ImportError:
        asyncio.run(main())
    else:
        uvloop.run(main())


class _Server:
    """One run of a server."""

    def __init__(
        self,
        settings: Settings,
        preload: tuple[str, ...],
        ready: Callable[[str], None] | None,
        hub_only: bool,
        extra: Callable[[], Sequence[Any]],
        sock: socket.socket,
    ) -> None:
        self._settings = settings
        self._preload = preload
        self._ready = ready
        self._hub_only = hub_only
        self._extra = extra
        self._sock = sock
        self._url = url_of(settings.host, sock)
        self._missing = list(preload)
        self._listening = asyncio.Event()
        self._signals = 0
        self._stopping = asyncio.Event()
        self._hurry = asyncio.Event()

    async def main(self) -> None:
        """The preloads go first: their workers load while this process still imports what it serves with."""
        from dockyard.artifact.store import Store

        store = Store.open(self._settings)
        fleet = None
        if not self._hub_only:
            from dockyard.fleet import Fleet

            fleet = Fleet(self._settings, store)
        loading = asyncio.create_task(self._load(fleet))
        try:
            await self._sent_off(fleet, loading)
            await self._open(store, fleet, loading)
        finally:
            loading.cancel()
            await asyncio.gather(loading, return_exceptions=True)
            if fleet is not None:
                await fleet.close()

    async def _open(self, store: Store, fleet: Fleet | None, loading: asyncio.Task[None]) -> None:
        from dockyard.api import create_app
        from dockyard.telemetry import configure_logs

        token = secrets.token_urlsafe(32)
        app = create_app(
            self._settings, store=store, fleet=fleet, extra=self._extra(), hub_only=self._hub_only, owner_token=token
        )
        site: Site = app.state["site"]
        site.stop = self._stop
        site.url = self._url
        site.loading = self._missing
        configure_logs(self._settings.log_level, ring=site.logs)
        _raise_file_limit()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop)
        async with app.lifespan():
            await self._serve(app, site, token, loading)

    async def _serve(self, app: Any, site: Site, token: str, loading: asyncio.Task[None]) -> None:
        granian = embedded(app, self._sock)
        running = asyncio.create_task(granian.serve())
        stop = asyncio.create_task(self._stopping.wait())
        note = self._settings.home_path / "server.json"
        try:
            _write_note(note, site, token)
            log.info("listening on %s", site.url)
            self._listening.set()
            # What is here now stays: the collector need not look at it again with every full pass.
            gc.freeze()
            gc.enable()
            await asyncio.wait({running, loading, stop}, return_when=asyncio.FIRST_COMPLETED)
            if loading.done():
                loading.result()
                await asyncio.wait({running, stop}, return_when=asyncio.FIRST_COMPLETED)
            await self._drain(site)
        finally:
            note.unlink(missing_ok=True)
            stop.cancel()
            loading.cancel()
            await site.watchdog.end()
            granian.stop()
            await asyncio.gather(running, loading, return_exceptions=True)
        if not self._stopping.is_set():
            raise DockyardError("the HTTP server ended by itself", hint="its log says why")

    async def _load(self, fleet: Fleet | None) -> None:
        from dockyard.engines import launch

        for name in self._preload:
            if fleet is not None:
                await fleet.preload(name, pin=True)
            self._missing.remove(name)
        launch.discard()  # all preloads had engines that need no worker
        await self._listening.wait()
        if self._ready is not None:
            self._ready(self._url)

    async def _sent_off(self, fleet: Fleet | None, loading: asyncio.Task[None]) -> None:
        """Give the first preload the time to reach its worker: the imports that follow would hold it up."""
        if fleet is None or not self._missing:
            return
        first, until = self._missing[0], time.monotonic() + HEAD_START
        while first in self._missing and not loading.done() and time.monotonic() < until:
            if any(row.pid for row in fleet.models()):
                return
            await asyncio.sleep(0.002)

    async def _drain(self, site: Site) -> None:
        if site.gateway is None:
            return
        active = site.gateway.load.active
        log.info("stopping; %d requests are under way", active)
        drain = asyncio.create_task(site.gateway.drain(DRAIN_SECONDS))
        hurry = asyncio.create_task(self._hurry.wait())
        await asyncio.wait({drain, hurry}, return_when=asyncio.FIRST_COMPLETED)
        drain.cancel()
        hurry.cancel()

    def _stop(self) -> None:
        """Called for each signal; the second one does not wait for answers."""
        self._signals += 1
        self._stopping.set()
        if self._signals > 1:
            self._hurry.set()


def embedded(app: Any, sock: socket.socket) -> Any:
    """Granian on a socket of ours, in this event loop."""
    from granian._granian import SocketHolder
    from granian.constants import HTTPModes, Interfaces
    from granian.http import HTTP1Settings
    from granian.server.embed import Server

    class Embedded(Server):
        def _init_shared_socket(self) -> None:
            self._shd = SocketHolder(sock.dup().detach(), False, BACKLOG)  # type: ignore[call-arg,assignment]

    logging.getLogger("_granian").setLevel(logging.ERROR)
    return Embedded(
        app,
        interface=Interfaces.ASGINL,  # the lifespan is ours, so that its failures are too
        http=HTTPModes.http1,
        websockets=False,
        backlog=BACKLOG,
        log_enabled=False,
        http1_settings=HTTP1Settings(header_read_timeout=HEADER_MILLISECONDS, max_buffer_size=HEADER_BYTES),
    )


def url_of(host: str, sock: socket.socket) -> str:
    """Where clients on this machine reach the server."""
    port = sock.getsockname()[1]
    name = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)  # noqa: S104
    return f"http://{name}:{port}"


def _write_note(path: Path, site: Site, token: str) -> None:
    """Tell the command line of the same user where this server is, and let it manage it."""
    note = {"pid": site.pid, "url": site.url, "started": site.started, "token": token}
    part = path.with_suffix(".part")
    with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(msgspec.json.encode(note))
    part.replace(path)


def _raise_file_limit() -> None:
    """Each connection is a file; the soft limit is often 1024."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = SPARE_FILES if hard == resource.RLIM_INFINITY else min(hard, SPARE_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
