"""Servers that are packages: ``pypi:name==version`` and ``npm:name@version``, installed once, run in the sandbox.

Each has an environment of its own in Dockyard's home, named by a digest of what was asked. Nothing of a package runs
when it is installed: wheels only from PyPI, no scripts from npm. What was installed is recorded with its hashes, one
``name==version sha256:…`` (npm: ``name@version sha512-…``) a package; an entry that has ``hashes`` gets those and
nothing else. A lone hash is that of the package itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import re
import shutil
import sys
from collections.abc import AsyncIterator
from importlib.metadata import distributions
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from dockyard.errors import DigestMismatch, EngineUnavailable, InvalidRequest
from dockyard.settings import Settings
from dockyard.tools.model import Server, ToolFailed
from dockyard.tools.runners._command import ran
from dockyard.tools.runners.process import Process, unavailable

INSTALL_SECONDS = 600.0
_PYPI = re.compile(r"^([A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)(?:\[[A-Za-z0-9,._-]+\])?==([A-Za-z0-9.!+_-]+)$")
_NPM = re.compile(r"^((?:@[a-z0-9][a-z0-9._-]*/)?[a-z0-9][a-z0-9._-]*)@([0-9][A-Za-z0-9.+-]*)$")


class Wanted(NamedTuple):
    kind: str
    spec: str
    name: str
    version: str


class Package:
    name = "package"

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._folder = settings.home_path / "tools" / "packages"
        self._process = Process(settings)

    def refuses(self, server: Server) -> str | None:
        try:
            wanted = parse(server)
        except InvalidRequest as error:
            return error.message
        if wanted.kind == "npm" and not (shutil.which("npm") and shutil.which("node")):
            return f"server {server.name!r} is an npm package, and there is no npm and node here"
        return unavailable()

    @contextlib.asynccontextmanager
    async def connect(self, server: Server, secrets: dict[str, str]) -> AsyncIterator[Any]:
        reason = self.refuses(server)
        if reason is not None:
            raise EngineUnavailable(reason, hint="apt-get install bubblewrap nodejs npm")
        wanted = parse(server)
        folder = await self.install(server)
        program = _script(folder, wanted) if wanted.kind == "pypi" else _bin(folder, wanted)
        async with self._process.launch(server, secrets, [*program, *server.command], [folder]) as transport:
            yield transport

    def locked(self, server: Server) -> tuple[str, ...] | None:
        """What is installed for it, in the form of ``Server.hashes``; None if nothing is."""
        record = self._place(server) / "lock.json"
        return tuple(msgspec.json.decode(record.read_bytes(), type=list[str])) if record.is_file() else None

    async def install(self, server: Server) -> Path:
        """Its environment, made if there is none. Raises ToolFailed, DigestMismatch for other hashes than declared."""
        from filelock import AsyncFileLock

        folder = self._place(server)
        if (folder / "lock.json").is_file():
            return folder
        if self._settings.offline:
            raise ToolFailed(f"server {server.name!r}: {server.package} is not installed, and Dockyard is offline")
        folder.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        async with AsyncFileLock(folder.with_suffix(".lock")):
            if not (folder / "lock.json").is_file():
                await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
                try:
                    await self._make(folder, server)
                except BaseException:
                    shutil.rmtree(folder, ignore_errors=True)
                    raise
        return folder

    async def _make(self, folder: Path, server: Server) -> None:
        wanted = parse(server)
        await asyncio.to_thread(folder.mkdir, mode=0o700)
        made = _pypi(folder, wanted, server.hashes) if wanted.kind == "pypi" else _npm(folder, wanted, server.hashes)
        found = await made
        verify(wanted, server.hashes, found)
        (folder / "lock.json").write_bytes(msgspec.json.encode(found))

    def _place(self, server: Server) -> Path:
        python = f"{sys.version_info[0]}.{sys.version_info[1]}"
        asked = "\n".join((server.package, python, *sorted(server.hashes)))
        return self._folder / hashlib.sha256(asked.encode()).hexdigest()[:32]


def parse(server: Server) -> Wanted:
    """Raises InvalidRequest for anything but one exact version of one package."""
    kind, _, spec = server.package.partition(":")
    match = {"pypi": _PYPI, "npm": _NPM}.get(kind, _PYPI).match(spec) if kind in ("pypi", "npm") else None
    if match is None:
        raise InvalidRequest(
            f"server {server.name!r}: package {server.package!r} is not pypi:name==version or npm:name@version",
            param="package",
        )
    return Wanted(kind, spec, match.group(1), match.group(2))


def verify(wanted: Wanted, hashes: tuple[str, ...], found: list[str]) -> None:
    """Whether what was installed is what was declared. Raises DigestMismatch."""
    lone = [each for each in hashes if " " not in each]
    whole = {each for each in hashes if " " in each}
    own = next((each.split(" ", 1)[1] for each in found if _named(each, wanted)), "")
    if lone and own not in lone:
        raise DigestMismatch(f"{wanted.spec} has the hash {own or 'none'}, and the entry says {', '.join(lone)}")
    other = sorted(set(found) ^ whole)
    if whole and other:
        raise DigestMismatch(
            f"{wanted.spec} and what it needs are not what the entry has hashes of: {', '.join(other[:4])}",
            hint="lock the server anew, and look at what changed",
        )


def _named(line: str, wanted: Wanted) -> bool:
    name, _, version = line.split(" ")[0].rpartition("==" if wanted.kind == "pypi" else "@")
    return _canonical(name) == _canonical(wanted.name) and version == wanted.version


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower() if not name.startswith("@") else name


async def _pypi(folder: Path, wanted: Wanted, hashes: tuple[str, ...]) -> list[str]:
    await _do([sys.executable, "-I", "-m", "venv", "--without-pip", str(folder / "env")], wanted)
    asked = folder / "requirements.txt"
    lines = [each.split(" ") for each in hashes if " " in each]
    pinned = [f"{name} {' '.join(f'--hash={each}' for each in rest)}" for name, *rest in lines]
    asked.write_text("\n".join(pinned or [wanted.spec]) + "\n")
    report = folder / "report.json"
    argv = [sys.executable, "-I", "-m", "pip", "--python", str(folder / "env" / "bin" / "python"), "install"]
    argv += ["--only-binary", ":all:", "--no-input", "--disable-pip-version-check", "--quiet", "--ignore-installed"]
    argv += ["--require-hashes"] if pinned else []
    await _do([*argv, "--report", str(report), "--requirement", str(asked)], wanted)
    told = msgspec.json.decode(report.read_bytes())
    return sorted(
        f"{_canonical(each['metadata']['name'])}=={each['metadata']['version']} "
        f"sha256:{each['download_info']['archive_info']['hashes']['sha256']}"
        for each in told["install"]
    )


async def _npm(folder: Path, wanted: Wanted, hashes: tuple[str, ...]) -> list[str]:
    asked = {"name": "dockyard-tool", "private": True, "dependencies": {wanted.name: wanted.version}}
    pinned = [each.split(" ")[0].rpartition("@") for each in hashes if " " in each]
    names = [name for name, _, _ in pinned]
    # A name with two versions is left to npm, which can't be told both here; verify() decides in any case.
    versions = {name: version for name, _, version in pinned if names.count(name) == 1 and name != wanted.name}
    (folder / "package.json").write_bytes(msgspec.json.encode({**asked, "overrides": versions}))
    argv = ["npm", "install", "--ignore-scripts", "--no-audit", "--no-fund", "--omit=dev", "--install-links=false"]
    await _do([*argv, "--prefix", str(folder)], wanted, cwd=str(folder))
    told = msgspec.json.decode((folder / "package-lock.json").read_bytes())
    found = set()
    for place, each in told["packages"].items():
        if place and not each.get("link"):
            name = place.rpartition("node_modules/")[2]
            if (folder / place).is_dir():
                found.add(f"{name}@{each['version']} {each.get('integrity', 'none')}")
    if any(each.endswith(" none") for each in found):
        raise ToolFailed(f"{wanted.spec} needs packages that have no integrity hash")
    return sorted(found)


async def _do(argv: list[str], wanted: Wanted, cwd: str | None = None) -> None:
    status, out, err = await ran(argv, seconds=INSTALL_SECONDS, cwd=cwd)
    if status:
        last = " ".join((err or out).split())[-1500:]
        raise ToolFailed(f"{wanted.kind}:{wanted.spec} can't be installed: {last}", param="package")


def _script(folder: Path, wanted: Wanted) -> list[str]:
    """The command of a Python package: that of its own name, or its only one."""
    site = next((folder / "env" / "lib").glob("python3*/site-packages"))
    found: list[str] = []
    for each in distributions(path=[str(site)]):
        if _canonical(each.metadata["Name"]) == _canonical(wanted.name):
            found = [point.name for point in each.entry_points if point.group == "console_scripts"]
    chosen = _chosen(wanted, found)
    return [str(folder / "env" / "bin" / chosen)]


def _bin(folder: Path, wanted: Wanted) -> list[str]:
    """The command of an npm package: that of its own name, or its only one."""
    home = folder / "node_modules" / wanted.name
    told = msgspec.json.decode((home / "package.json").read_bytes()).get("bin") or {}
    if isinstance(told, str):
        told = {wanted.name.rpartition("/")[2]: told}
    path = (home / told[_chosen(wanted, list(told))]).resolve()
    if not path.is_relative_to(folder.resolve()):
        raise ToolFailed(f"the command of {wanted.spec} is outside of it")
    return [shutil.which("node") or "node", str(path)]


def _chosen(wanted: Wanted, names: list[str]) -> str:
    short = wanted.name.rpartition("/")[2]
    for name in names:
        if _canonical(name) == _canonical(short):
            return name
    if len(names) != 1:
        told = f"has the commands {', '.join(sorted(names))}" if names else "has no command"
        raise ToolFailed(f"{wanted.spec} {told}, none of its own name", param="package")
    return names[0]


PLUGIN = Package
