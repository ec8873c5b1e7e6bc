"""HTTP for the data plane: retries with back-off, redirects that never carry credentials away, and a way to stop.

One ``Transport`` serves one piece of work (a pull, a push, a search) and its threads. ``abort`` ends everything that
is in flight, from any thread; requests then raise Cancelled.
"""

from __future__ import annotations

import http.client
import ipaddress
import random
import ssl
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import IO, Any
from urllib.parse import urljoin, urlsplit
from urllib.request import getproxies, proxy_bypass

import msgspec
import urllib3
from urllib3.exceptions import HTTPError, NewConnectionError, ProxyError, SSLError

from dockyard import __version__
from dockyard.artifact.registry import headers as parse
from dockyard.errors import Cancelled, SourceError, SourceUnreachable

RETRIED = frozenset({408, 425, 429, 500, 502, 503, 504})
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_MAX_REDIRECTS = 10
_LOCAL_NAMES = frozenset({"localhost"})

Body = bytes | Callable[[], IO[bytes]] | None
"""A request's body: bytes, or what opens it anew for each attempt."""


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    """How patient to be. Waits double from ``base`` to ``cap`` seconds, each drawn from the upper half of its span.

    ``first_contact`` attempts are made to reach a host that never answered, so that being offline is found out soon.
    ``longest_retry_after`` bounds the wait that a server may ask for.
    """

    attempts: int = 6
    first_contact: int = 2
    base: float = 0.25
    cap: float = 8.0
    connect: float = 5.0
    read: float = 45.0
    longest_retry_after: float = 60.0

    def wait(self, attempt: int, asked: float | None = None) -> float:
        """Seconds before attempt number ``attempt`` + 1 (the first is 1)."""
        span = min(self.cap, self.base * 2.0 ** (attempt - 1))
        drawn = span * random.uniform(0.5, 1.0)  # noqa: S311 (jitter, not a secret)
        return drawn if asked is None else max(drawn, min(asked, self.longest_retry_after))


class Interrupted(SourceUnreachable):
    """The connection broke while a body was on its way; what came before is good."""


class Response:
    """A reply whose body is still on the wire; close it, or read it to its end."""

    def __init__(self, raw: urllib3.BaseHTTPResponse, url: str, release: Callable[[Response], None]) -> None:
        self._raw = raw
        self._release = release
        self.url = url
        self.status = raw.status
        self.headers = raw.headers

    def read(self, size: int) -> bytes:
        """Up to ``size`` bytes; b"" at the end. Raises Interrupted when the body is cut short."""
        try:
            return self._raw.read(size, decode_content=False)
        except (HTTPError, OSError, ValueError) as error:
            raise Interrupted(f"{_place(self.url)}: connection broke: {_reason(error)}") from error

    def readinto(self, view: memoryview) -> int:
        """Fill as much of ``view`` as there is, straight from the connection; 0 at the end. Raises Interrupted.

        Goes past urllib3's own ``readinto``, which copies: at a gigabyte a second that is a third of the cost.
        """
        source = getattr(self._raw, "_fp", None)
        if not isinstance(source, http.client.HTTPResponse):
            data = self.read(len(view))
            view[: len(data)] = data
            return len(data)
        try:
            count = 0 if source.closed else source.readinto(view)
        except (http.client.HTTPException, OSError, ValueError) as error:
            raise Interrupted(f"{_place(self.url)}: connection broke: {_reason(error)}") from error
        left = self._raw.length_remaining
        if left is not None:
            if not count and left:
                raise Interrupted(f"{_place(self.url)}: the connection ended {left} bytes too early")
            self._raw.length_remaining = left - count
        return count

    def body(self, limit: int) -> bytes:
        """The whole body, and close. Raises SourceError when it is longer than ``limit``."""
        parts, total = [], 0
        try:
            while part := self.read(min(1 << 16, limit + 1 - total)):
                parts.append(part)
                total += len(part)
                if total > limit:
                    raise SourceError(f"{_place(self.url)} sent more than the {limit} bytes allowed here")
        finally:
            self.close()
        return b"".join(parts)

    def drain(self) -> None:
        """Read a short rest so that the connection can serve again; give it up if the rest is long or broken."""
        try:
            if len(self._raw.read(1 << 16, decode_content=False)) < 1 << 16:
                self._raw.release_conn()
        except (HTTPError, OSError, ValueError):
            pass
        self.close()

    def close(self) -> None:
        self._release(self)
        self._raw.release_conn() if self._raw.closed else self._raw.close()

    def shutdown(self) -> None:
        """Make a read that blocks in another thread end now."""
        try:
            self._raw.shutdown()
        except (ValueError, RuntimeError, OSError, NotImplementedError):
            pass  # it ended by itself just now

    def __enter__(self) -> Response:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Transport:
    """Requests for one piece of work. ``plain_hosts`` (host or host:port) may be spoken to without TLS."""

    def __init__(self, *, connections: int = 4, policy: Policy | None = None, plain_hosts: Iterable[str] = ()) -> None:
        self.policy = policy or Policy()
        self._connections = connections
        self._plain = frozenset(plain_hosts)
        self._managers: dict[str, urllib3.PoolManager] = {}
        self._reached: set[str] = set()
        self._live: set[Response] = set()
        self._stopped = threading.Event()
        self._lock = threading.Lock()

    def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: Body = None,
        authorization: str | None = None,
        retry: bool = True,
    ) -> Response:
        """Send, retry what may pass, follow redirects of GET and HEAD. A reply of any status comes back.

        ``authorization`` goes to the origin of ``url`` only. Raises SourceUnreachable when there is no reply at all,
        and Cancelled after ``abort``.
        """
        attempt = 0
        while True:
            attempt += 1
            try:
                reply = self._follow(method, url, dict(headers or {}), body, authorization)
            except SourceUnreachable as error:
                if not retry or attempt >= self._attempts(url) or _hopeless(error):
                    raise
                self.sleep(self.policy.wait(attempt))
                continue
            if not retry or reply.status not in RETRIED or attempt >= self.policy.attempts:
                return reply
            asked = parse.retry_after(reply.headers.get("Retry-After"))
            reply.drain()
            self.sleep(self.policy.wait(attempt, asked))

    def sleep(self, seconds: float) -> None:
        """Wait, unless the work is stopped meanwhile."""
        if self._stopped.wait(seconds):
            raise Cancelled("stopped")

    def check(self) -> None:
        """Raise Cancelled if the work was stopped."""
        if self._stopped.is_set():
            raise Cancelled("stopped")

    def abort(self) -> None:
        """End all requests, now and to come."""
        self._stopped.set()
        with self._lock:
            live = list(self._live)
        for reply in live:
            reply.shutdown()

    def close(self) -> None:
        self.abort()
        for manager in self._managers.values():
            manager.clear()

    def refuse_leak(self, url: str) -> None:
        """Raise SourceError if a secret sent to ``url`` could be read on the way."""
        parts = urlsplit(url)
        if parts.scheme != "https" and not self.plain_allowed(parts.netloc):
            raise SourceError(
                f"credentials would go to {_place(url)} without encryption",
                hint=f"use https, or list {parts.netloc!r} in the setting insecure_registries",
            )

    def plain_allowed(self, netloc: str) -> bool:
        host = netloc.rpartition("@")[2]
        return is_loopback(host) or host in self._plain or _hostname(host) in self._plain

    def _attempts(self, url: str) -> int:
        known = urlsplit(url).netloc in self._reached
        return self.policy.attempts if known else min(self.policy.first_contact, self.policy.attempts)

    def _follow(
        self, method: str, url: str, headers: dict[str, str], body: Body, authorization: str | None
    ) -> Response:
        origin = urlsplit(url)
        for _ in range(_MAX_REDIRECTS + 1):
            parts = urlsplit(url)
            send = dict(headers)
            if authorization is not None and (parts.scheme, parts.netloc) == (origin.scheme, origin.netloc):
                self.refuse_leak(url)
                send["Authorization"] = authorization
            reply = self._once(method, url, send, body)
            target = reply.headers.get("Location")
            if method not in ("GET", "HEAD") or reply.status not in _REDIRECTS or not target:
                return reply
            reply.drain()
            following = urljoin(url, target)
            scheme = urlsplit(following).scheme
            if scheme not in ("http", "https") or (scheme == "http" and parts.scheme == "https"):
                raise SourceError(f"{_place(url)} redirects to {_place(following)}, which is not encrypted")
            url = following
        raise SourceError(f"{_place(url)}: more than {_MAX_REDIRECTS} redirects")

    def _once(self, method: str, url: str, headers: dict[str, str], body: Body) -> Response:
        self.check()
        parts = urlsplit(url)
        if parts.scheme == "http" and not (self.plain_allowed(parts.netloc) or "Authorization" not in headers):
            self.refuse_leak(url)
        headers.setdefault("User-Agent", f"dockyard/{__version__}")
        headers.setdefault("Accept-Encoding", "identity")
        content = body() if callable(body) else body
        try:
            raw = self._manager(parts.scheme, _hostname(parts.netloc)).request(
                method,
                url,
                headers=headers,
                body=content,
                redirect=False,
                retries=False,
                preload_content=False,
                timeout=urllib3.Timeout(connect=self.policy.connect, read=self.policy.read),
            )
        except (HTTPError, OSError) as error:
            self.check()
            raise SourceUnreachable(
                f"{_place(url)} can't be reached: {_reason(error)}",
                hint="check the network, proxies (HTTPS_PROXY) and the name of the host",
            ) from error
        finally:
            if content is not None and not isinstance(content, bytes):
                content.close()
        reply = Response(raw, url, self._forget)
        with self._lock:
            self._reached.add(parts.netloc)
            self._live.add(reply)
        if self._stopped.is_set():
            reply.shutdown()
        return reply

    def _forget(self, reply: Response) -> None:
        with self._lock:
            self._live.discard(reply)

    def _manager(self, scheme: str, hostname: str) -> urllib3.PoolManager:
        proxy = None
        if not is_loopback(hostname) and not proxy_bypass(hostname):
            found = getproxies()
            proxy = found.get(scheme) or found.get("all")
        with self._lock:
            manager = self._managers.get(proxy or "")
            if manager is None:
                options: dict[str, Any] = {"maxsize": self._connections, "blocksize": 1 << 20}
                if proxy:
                    proxy = proxy if "://" in proxy else f"http://{proxy}"
                    manager = urllib3.ProxyManager(proxy, **options)
                else:
                    manager = urllib3.PoolManager(**options)
                self._managers[proxy or ""] = manager
            return manager


def is_loopback(host: str) -> bool:
    """Whether host[:port] names this machine."""
    name = _hostname(host)
    if name in _LOCAL_NAMES or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def _hostname(netloc: str) -> str:
    try:
        return urlsplit(f"//{netloc}").hostname or ""
    except ValueError:
        return ""


def _place(url: str) -> str:
    """A URL as a message may show it: without its query, which can hold a signature or a token."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def _reason(error: BaseException) -> str:
    """The innermost cause in a few words."""
    seen = error
    while isinstance(seen, HTTPError | OSError):
        inner = seen.__cause__ or seen.__context__
        if not isinstance(inner, HTTPError | OSError):
            break
        seen = inner
    text = seen.strerror if isinstance(seen, OSError) and seen.strerror else str(seen)
    return f"{text or type(seen).__name__}"


def _hopeless(error: SourceUnreachable) -> bool:
    """Whether trying again soon can't help: a certificate that does not verify, a proxy that refuses."""
    cause = error.__cause__
    if isinstance(cause, ProxyError):
        return not isinstance(cause.original_error, NewConnectionError)
    return isinstance(cause, SSLError) and isinstance(_root(cause), ssl.SSLCertVerificationError)


def _root(error: BaseException) -> BaseException:
    while error.__cause__ is not None or (error.args and isinstance(error.args[0], BaseException)):
        error = error.__cause__ or error.args[0]
    return error
