"""``mcp.lock.json``: what a profile's servers and their tools were when somebody agreed to them.

For each server the digest of its image or the hashes of its packages, a digest of its entry, and the fingerprint of
every tool definition that the profile lets through. A locked run uses exactly these images and packages, and does not
begin if anything else is another than it was; ``differences`` says what.
"""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from dockyard.errors import Conflict, DockyardError, InvalidRequest, NotFound
from dockyard.tools.model import Enabled, Profile, Server, ToolFailed
from dockyard.types import Principal

if TYPE_CHECKING:
    from dockyard.settings import Settings
    from dockyard.tools.toolbox import Toolbox

FILE = "mcp.lock.json"
VERSION = 1
STATIC = ("server", "kind", "command", "image", "package", "url", "entry")
"""What can be told from a profile alone, before anything is started."""


class LockedServer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One server. ``entry`` is a digest of its entry, ``digest`` of its image; ``tools`` are fingerprints by name."""

    kind: str
    entry: str
    command: str = ""
    image: str = ""
    digest: str = ""
    package: str = ""
    hashes: tuple[str, ...] = ()
    url: str = ""
    tools: dict[str, str] = {}


class Lock(msgspec.Struct, frozen=True, kw_only=True):
    """The lock of one profile."""

    version: int = VERSION
    profile: str
    servers: dict[str, LockedServer]


class Drift(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that is another than it was locked; "" stands for nothing."""

    server: str
    what: str
    locked: str
    found: str

    def __str__(self) -> str:
        return f"{self.server}: {self.what}\n- {self.locked or '(nothing)'}\n+ {self.found or '(nothing)'}"


def read(path: Path) -> Lock:
    """Raises NotFound, and InvalidRequest for what is no lock of ours."""
    try:
        lock = msgspec.json.decode(path.read_bytes(), type=Lock)
    except FileNotFoundError:
        raise NotFound(f"there is no {path}", param="lock", hint="`dockyard mcp lock` writes it") from None
    except msgspec.DecodeError as error:
        raise InvalidRequest(f"{path}: {error}", param="lock") from error
    if lock.version != VERSION:
        raise InvalidRequest(f"{path} is of version {lock.version}, and this Dockyard reads {VERSION}", param="lock")
    return lock


def write(path: Path, lock: Lock) -> None:
    """The same lock is always the same bytes."""
    from dockyard.artifact.index import write_synced

    data = msgspec.json.encode(lock, order="sorted")
    write_synced(path, msgspec.json.format(data, indent=2) + b"\n")


def differences(lock: Lock, now: Lock) -> list[Drift]:
    """What is another; nothing if all is as it was locked."""
    found: list[Drift] = []
    for name in sorted({*lock.servers, *now.servers}):
        was, there = lock.servers.get(name), now.servers.get(name)
        if was is None or there is None:
            found += _differs(name, "server", was.kind if was else "", there.kind if there else "")
            continue
        told = [
            one
            for what in ("kind", "command", "image", "digest", "package", "url")
            for one in _differs(name, what, getattr(was, what), getattr(there, what))
        ]
        found += told or _differs(name, "entry", was.entry, there.entry)
        gone, come = set(was.hashes) - set(there.hashes), set(there.hashes) - set(was.hashes)
        found += _differs(name, "hashes", ", ".join(sorted(gone)), ", ".join(sorted(come)))
        for tool in sorted({*was.tools, *there.tools}):
            found += _differs(name, f"tool {tool}", was.tools.get(tool, ""), there.tools.get(tool, ""))
    return found


def _differs(server: str, what: str, locked: str, found: str) -> list[Drift]:
    return [] if locked == found else [Drift(server=server, what=what, locked=locked, found=found)]


def refuse(path: Path, drift: list[Drift]) -> None:
    """Raise Conflict that shows the differences, if there are any."""
    if drift:
        raise Conflict(
            f"{len(drift)} things are others than {path.name} says:\n" + "\n".join(str(one) for one in drift),
            param="lock",
            hint="look at each, then write the lock anew with `dockyard mcp lock`",
        )


def entry_digest(server: Server) -> str:
    """A digest of what an entry makes run; texts for people and where it came from do not count."""
    bare = msgspec.structs.replace(server, title="", description="", source="", extra={}, hashes=())
    return "sha256:" + hashlib.sha256(msgspec.json.encode(bare, order="sorted")).hexdigest()


def locked(
    one: Enabled, *, digest: str = "", hashes: tuple[str, ...] = (), tools: Mapping[str, str] | None = None
) -> LockedServer:
    """What is locked of a server, as the profile has it."""
    server = one.server
    return LockedServer(
        kind=server.kind,
        entry=entry_digest(server),
        command=shlex.join(server.command),
        image=server.image,
        digest=digest,
        package=server.package,
        hashes=tuple(sorted(hashes)),
        url=server.url if server.kind in ("remote", "openapi") else "",
        tools=dict(sorted((tools or {}).items())),
    )


def pinned(profile: Profile, lock: Lock) -> Profile:
    """The profile with images by the digests and packages by the hashes of the lock."""
    servers = []
    for one in profile.servers:
        known, server = lock.servers.get(one.server.name), one.server
        if known is not None and known.digest and "@" not in server.image:
            server = msgspec.structs.replace(server, image=f"{server.image}@{known.digest}")
        if known is not None and known.hashes:
            server = msgspec.structs.replace(server, hashes=known.hashes)
        servers.append(msgspec.structs.replace(one, server=server))
    return msgspec.structs.replace(profile, servers=tuple(servers))


async def current(box: Toolbox, profile: Profile, settings: Settings, *, lock: Lock | None = None) -> Lock:
    """The lock that would be written now. Servers are started to list their tools, from ``lock``'s pins if given.

    Raises ToolFailed naming a server whose tools can't be listed, and what asking a registry raises.
    """
    run = pinned(profile, lock) if lock is not None else profile
    session = box.session(Principal(name="lock", scopes=frozenset({"infer", "manage"})), profile.name)
    tools = await _tools(box, session, run)
    servers = {}
    for one in profile.servers:
        name = one.server.name
        before = lock.servers.get(name) if lock is not None else None
        digest = before.digest if before is not None else await _digest(one.server, settings)
        started = next(each.server for each in run.servers if each.server.name == name)
        servers[name] = locked(one, digest=digest, hashes=_hashes(started, settings), tools=tools.get(name))
    return Lock(profile=profile.name, servers=servers)


async def _tools(box: Toolbox, session: Any, run: Profile) -> dict[str, dict[str, str]]:
    """Fingerprints by server and tool of what is let through, what is held for review among them."""
    session.given = run
    listed = await box.tools(session)
    for state in await box.status(run.name):
        flaws = state.get("flaws") or {}
        if "tools" in flaws:
            raise ToolFailed(f"server {state['name']!r} does not list its tools: {flaws['tools']}")
    found: dict[str, dict[str, str]] = {}
    for tool in listed:
        found.setdefault(tool.server, {})[tool.name] = tool.fingerprint
    quarantine = getattr(box.safety, "quarantine", None)
    let = {one.server.name: one.tools for one in run.servers}
    for held in quarantine() if quarantine is not None else ():
        patterns = let.get(held.server, ())
        if patterns is None or any(fnmatchcase(held.tool, pattern) for pattern in patterns):
            found.setdefault(held.server, {})[held.tool] = held.fingerprint
    return found


def _hashes(server: Server, settings: Settings) -> tuple[str, ...]:
    from dockyard.tools.runners import runner

    record = getattr(runner(server.kind, settings), "locked", None) if server.kind == "package" else None
    return (record(server) if record is not None else None) or server.hashes


async def _digest(server: Server, settings: Settings) -> str:
    """The digest that an image's name stands for now. Raises what asking its registry raises."""
    import asyncio

    from dockyard.artifact.reference import parse
    from dockyard.artifact.registry.client import Registry

    if server.kind != "container" or not server.image:
        return ""
    reference = parse(server.image, namespace="library")
    if reference.digest:
        return reference.digest

    def ask() -> str | None:
        registry = Registry(reference.registry, insecure=settings.insecure_registries)
        with registry:
            return registry.manifest_digest(reference.repository, reference.tag or "latest")

    found = await asyncio.to_thread(ask)
    if found is None:
        raise NotFound(f"server {server.name!r}: there is no image {server.image}", param="image")
    return found


async def check(box: Toolbox, profile: Profile, settings: Settings, path: Path) -> Lock:
    """Read a lock and refuse what is another now, with the differences; else the lock. Raises Conflict, NotFound."""
    lock = read(path)
    if lock.profile != profile.name:
        raise InvalidRequest(f"{path} locks the profile {lock.profile!r}, not {profile.name!r}", param="profile")
    static = Lock(profile=profile.name, servers={one.server.name: locked(one) for one in profile.servers})
    early = [one for one in differences(_bare(lock), static) if one.what in STATIC]
    refuse(path, early)  # nothing that differs is started
    try:
        refuse(path, differences(lock, await current(box, profile, settings, lock=lock)))
    except Conflict:
        raise
    except DockyardError as error:
        raise Conflict(f"{path.name} can't be kept to: {error.message}", hint=error.hint) from error
    return lock


def _bare(lock: Lock) -> Lock:
    servers = {name: msgspec.structs.replace(one, digest="", hashes=(), tools={}) for name, one in lock.servers.items()}
    return msgspec.structs.replace(lock, servers=servers)
