"""Hugging Face as far as a download needs it: an HTTP server on a thread with repositories made of bytes."""

from __future__ import annotations

import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from dockyard.artifact.registry.headers import byte_range

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub:
    """``repos`` maps "Org/Repo" to files; those over ``large`` bytes are kept by sha256, as LFS does, at a CDN.

    ``token`` closes it. ``page`` bounds a listing. ``cut`` ends that many downloads after 100,000 bytes. ``swap`` maps
    paths to bytes that are served in their place.
    """

    def __init__(self, repos: dict[str, dict[str, bytes]], *, token: str = "", page: int = 1000) -> None:
        self.repos = repos
        self.token = token
        self.page = page
        self.large = 2000
        self.cut = 0
        self.swap: dict[str, bytes] = {}
        self.seen: list[tuple[str, dict[str, str]]] = []
        self.cdn_seen: list[dict[str, str]] = []

    def __enter__(self) -> Hub:
        self._servers = [_serve(self, _Api), _serve(self, _Cdn)]
        return self

    def __exit__(self, *_: object) -> None:
        for server in self._servers:
            server.shutdown()
            server.server_close()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._servers[0].server_address[1]}"

    @property
    def cdn(self) -> str:
        return f"http://127.0.0.1:{self._servers[1].server_address[1]}"

    def rows(self, repo: str) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = [{"type": "directory", "path": "sub", "size": 0, "oid": "0" * 40}]
        for path, data in self.repos[repo].items():
            git = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
            row: dict[str, Any] = {"type": "file", "path": path, "size": len(data), "oid": git}
            if len(data) > self.large:
                row["lfs"] = {"oid": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 134}
                row["oid"] = "f" * 40
            rows.append(row)
        return rows


def _serve(hub: Hub, kind: type[_Answers]) -> ThreadingHTTPServer:
    handler = type(kind.__name__, (kind,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    server.handle_error = lambda *_: None  # type: ignore[method-assign]
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    return server


class _Answers(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def reply(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def ranged(self, data: bytes) -> None:
        wanted = byte_range(self.headers.get("Range"), len(data))
        if wanted is None:
            status, body, more = 200, data, {}
        else:
            first, last = wanted
            status, body = 206, data[first : last + 1]
            more = {"Content_Range": f"bytes {first}-{last}/{len(data)}"}
        if self.hub.cut > 0 and len(body) > 100_000:
            self.hub.cut -= 1
            self.send_response(status)
            for name, value in more.items():
                self.send_header(name.replace("_", "-"), value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[:100_000])
            self.close_connection = True
            return
        self.reply(status, body, **more)


class _Cdn(_Answers):
    def do_GET(self) -> None:
        self.hub.cdn_seen.append(dict(self.headers.items()))
        wanted = urlsplit(self.path).path.removeprefix("/lfs/")
        for files in self.hub.repos.values():
            for path, data in files.items():
                if hashlib.sha256(data).hexdigest() == wanted:
                    self.ranged(self.hub.swap.get(path, data))
                    return
        self.reply(404)


class _Api(_Answers):
    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        path, query = unquote(parts.path), parse_qs(parts.query)
        self.hub.seen.append((self.path, dict(self.headers.items())))
        if path == "/api/models":
            term = query.get("search", [""])[0].lower()
            rows = [{"id": name, "downloads": 5, "likes": 1} for name in self.hub.repos if term in name.lower()]
            self.reply(200, json.dumps(rows).encode())
            return
        if self.hub.token and self.headers.get("Authorization") != f"Bearer {self.hub.token}":
            self.reply(401, b"{}", X_Error_Code="GatedRepo")
            return
        for repo, files in self.hub.repos.items():
            if path.startswith(f"/api/models/{repo}/revision/"):
                self._revision(path.rpartition("/")[2])
                return
            if path == f"/api/models/{repo}/tree/{COMMIT}":
                self._tree(repo, int(query.get("cursor", ["0"])[0]))
                return
            prefix = f"/{repo}/resolve/{COMMIT}/"
            if path.startswith(prefix) and path.removeprefix(prefix) in files:
                self._file(path.removeprefix(prefix), files[path.removeprefix(prefix)])
                return
        self.reply(404, b"{}", X_Error_Code="RepoNotFound")

    def _revision(self, revision: str) -> None:
        if revision not in ("main", "v1", COMMIT):
            self.reply(404, b"{}", X_Error_Code="RevisionNotFound")
            return
        self.reply(200, json.dumps({"sha": COMMIT, "gated": False, "tags": ["gguf", "license:apache-2.0"]}).encode())

    def _tree(self, repo: str, start: int) -> None:
        rows = self.hub.rows(repo)
        more = {}
        if len(rows) > start + self.hub.page:
            target = (
                f"{self.hub.endpoint}/api/models/{repo}/tree/{COMMIT}?recursive=true&cursor={start + self.hub.page}"
            )
            more = {"Link": f'<{target}>; rel="next"'}
        self.reply(200, json.dumps(rows[start : start + self.hub.page]).encode(), **more)

    def _file(self, path: str, data: bytes) -> None:
        if len(data) > self.hub.large:
            location = f"{self.hub.cdn}/lfs/{hashlib.sha256(data).hexdigest()}?Signature=x"
            self.reply(302, Location=location)
        else:
            self.reply(200, self.hub.swap.get(path, data))
