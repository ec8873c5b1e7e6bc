"""A Git repository: its newest commit, or a branch's, without history. Needs ``git`` on the path.

The place is ``git+https://host/repo[#branch[:folder]]``; ``git+file:///path`` means a repository of this machine.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from dockyard.addresses import Guard
from dockyard.errors import EngineUnavailable, Forbidden, NotFound, PayloadTooLarge, SourceUnreachable
from dockyard.knowledge.model import Problem, Sighted
from dockyard.knowledge.sources import Job, wanted
from dockyard.knowledge.sources._http import permitted

SECONDS = 600.0
_NO_FILES = {
    "120000": ("it is a link, which is not followed", "what it leads to is read where it stands"),
    "160000": ("it is a submodule, which is not fetched", "add its repository as a source of its own"),
}
"""Modes of a tree's entries that hold no text of their own; https://git-scm.com/docs/git-fast-import lists them."""


class GitSource:
    """What begins with ``git+``."""

    def claims(self, text: str) -> str | None:
        return text if text.startswith(("git+https://", "git+http://", "git+file://")) else None

    @contextlib.contextmanager
    def open(self, job: Job) -> Iterator[Checkout]:
        if shutil.which("git") is None:
            raise EngineUnavailable("git is not installed", hint="install it: apt-get install git")
        url, _, rest = job.source.place.removeprefix("git+").partition("#")
        branch, _, folder = rest.partition(":")
        options = _route(url, job)
        yield Checkout(job, url, branch, folder.strip("/"), options)


def _route(url: str, job: Job) -> list[str]:
    """Options that make git connect to the address that was checked, follow no redirects and know no other ways."""
    parts = urlsplit(url)
    if parts.username or parts.password:
        raise Forbidden("a source's URL holds no password", param="source", hint="use git's credential helper")
    if parts.scheme == "file":
        return ["-c", "protocol.allow=never", "-c", "protocol.file.allow=always"]
    host = parts.hostname or ""
    addresses = permitted(Guard(job.settings.tools_private), parts.scheme, host, parts.port)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    resolve = f"{host}:{port}:{','.join(f'[{a}]' if ':' in a else a for a in addresses)}"
    allowed = f"protocol.{parts.scheme}.allow=always"
    return [
        "-c", "protocol.allow=never", "-c", allowed, "-c", "http.followRedirects=false", "-c",
        f"http.curloptResolve={resolve}",
    ]  # fmt: skip


class Checkout:
    """A bare clone of one commit; blobs are read out of it, and nothing of it is run."""

    def __init__(self, job: Job, url: str, branch: str, folder: str, options: list[str]) -> None:
        self._job = job
        self._url = url
        self._branch = branch or "HEAD"
        self._folder = folder
        self._options = options
        self._place = job.folder / "git"
        self._blobs: dict[str, str] = {}

    def sight(self) -> Iterator[Sighted | Problem]:
        self._fetch()
        listed = self._git("ls-tree", "-r", "-l", "-z", "FETCH_HEAD", *(["--", self._folder] if self._folder else []))
        if self._folder and not listed:
            raise NotFound(f"{self._url} has no folder {self._folder!r}: what the index has of it is kept")
        moment = float(self._git("log", "-1", "--format=%ct", "FETCH_HEAD").decode().strip() or 0)
        for line in listed.split(b"\0"):
            head, _, name = line.partition(b"\t")
            path = name.decode("utf-8", "replace")
            if not head or not wanted(path, self._job.source):
                continue
            mode, _, blob, size = head.decode().split()
            if mode in _NO_FILES:
                message, hint = _NO_FILES[mode]
                yield Problem(source=self._job.source.id, path=path, message=message, hint=hint)
                continue
            self._blobs[path] = blob
            yield Sighted(path=path, fingerprint=blob, size=int(size), modified=moment)

    def _fetch(self) -> None:
        if not (self._place / "HEAD").exists():
            shutil.rmtree(self._place, ignore_errors=True)
            self._place.mkdir(parents=True)
            self._git("init", "-q", "--bare", ".")
        self._git("fetch", "-q", "--depth=1", "--no-tags", self._url, self._branch)

    def read(self, sighted: Sighted) -> bytes:
        if sighted.size > self._job.most:
            raise PayloadTooLarge(f"it has {sighted.size} bytes, and {self._job.most} is the most")
        return self._git("cat-file", "blob", self._blobs[sighted.path])

    def _git(self, *words: str) -> bytes:
        environment = {
            "PATH": os.environ.get("PATH", ""), "HOME": str(Path.home()), "GIT_TERMINAL_PROMPT": "0",
            "GIT_CONFIG_NOSYSTEM": "1", "LC_ALL": "C", "GIT_ASKPASS": "true",
        }  # fmt: skip
        command = ["git", *self._options, *words]
        try:
            done = subprocess.run(
                command, cwd=self._place, env=environment, capture_output=True, timeout=SECONDS, check=False
            )
        except subprocess.TimeoutExpired:
            raise SourceUnreachable(f"git {words[0]} of {self._url} takes more than {SECONDS:g} seconds") from None
        if done.returncode:
            raise SourceUnreachable(f"{self._url}: git {words[0]}: {_reason(done.stderr)}")
        return done.stdout


def _reason(told: bytes) -> str:
    """What git says is wrong: the line that it marks as such, or the last."""
    lines = told.decode("utf-8", "replace").strip().splitlines() or ["it failed"]
    return next((line for line in lines if line.startswith("fatal:")), lines[-1]).removeprefix("fatal: ")[:300]


PLUGIN = GitSource()
