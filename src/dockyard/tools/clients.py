"""MCP clients that can be told of the gateway: where their files are, and one entry written into them or taken out.

Which clients there are is data: ``clients.json``. A file is edited as text, so that comments and order stay, and the
result is parsed and compared with what was meant before anything is written. As long as an entry is in it, the file as
it was before the first is kept beside it: when the last is taken out, nothing is left of us.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

import msgspec

from dockyard.errors import InvalidRequest, NotFound
from dockyard.tools import clients_text
from dockyard.tools.profiles import DEFAULT, profile_name

NAME = "dockyard"
BACKUP = ".before-dockyard"


class Client(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One client: ``key`` leads to its table of servers, ``names`` are its words for command, args and env, ``extra``
    goes into each entry, ``named`` is the field that repeats an entry's name. ``project`` is relative to a project.
    """

    title: str
    format: Literal["json", "toml", "yaml"]
    key: tuple[str, ...]
    paths: dict[str, tuple[str, ...]]
    project: str = ""
    names: dict[str, str] = {}
    extra: dict[str, Any] = {}
    named: str = ""


class Connection(msgspec.Struct, frozen=True, kw_only=True):
    """A file of a client and the entries of Dockyard in it, by name with their profile. ``problem``: why not."""

    client: str
    title: str
    path: str
    exists: bool
    entries: dict[str, str] = {}
    problem: str = ""


@cache
def known() -> dict[str, Client]:
    """All clients by name."""
    data = (files("dockyard.tools") / "clients.json").read_bytes()
    return msgspec.json.decode(data, type=dict[str, Client])


def client(name: str) -> Client:
    """Raises NotFound."""
    found = known().get(name)
    if found is None:
        raise NotFound(f"there is no client {name!r}", param="client", hint=f"one of: {', '.join(known())}")
    return found


def place(name: str, project: Path | None, environ: Mapping[str, str] = os.environ, system: str = sys.platform) -> Path:
    """The client's file: of a project, or its user's. Raises InvalidRequest where it has none."""
    one = client(name)
    if project is not None:
        if not one.project:
            raise InvalidRequest(f"{one.title} has no file in projects", param="client", hint="use --global")
        return project / one.project
    paths = []
    for path in one.paths.get("linux" if system.startswith("linux") else system, ()):
        first = path.split("/")[0]
        if first.startswith("$"):
            if not environ.get(first[1:]):
                continue
            paths.append(Path(environ[first[1:]]) / path.partition("/")[2])
        else:
            paths.append(Path(environ.get("HOME") or Path.home()) / path.removeprefix("~/"))
    if not paths:
        raise InvalidRequest(f"where {one.title} keeps its file on {system} is not known", param="client")
    return paths[0]


def entry_name(profile: str) -> str:
    return NAME if profile == DEFAULT else f"{NAME}-{profile}"


def entry(name: str, profile: str, environ: Mapping[str, str] = os.environ) -> dict[str, Any]:
    """What is written for a profile: the command that speaks MCP over stdio."""
    one = client(name)
    program = shutil.which("dockyard")
    command, first = (program, []) if program else (sys.executable, ["-m", "dockyard"])
    said: dict[str, Any] = {"command": command, "args": [*first, "mcp", "gateway", "run", "--profile", profile]}
    kept = {key: environ[key] for key in ("DOCKYARD_HOME", "DOCKYARD_CONFIG") if environ.get(key)}
    if kept:
        said["env"] = kept
    found = {**one.extra, **{one.names.get(key, key): value for key, value in said.items()}}
    if one.named:
        found[one.named] = entry_name(profile)
    return found


def connect(name: str, profile: str, path: Path) -> None:
    """Write the profile's entry into a client's file, in the place of an older one.

    Raises InvalidRequest if the file is not what its format says, or can't be edited without loss.
    """
    profile_name(profile)
    _edit(name, path, entry_name(profile), entry(name, profile))


def disconnect(name: str, profile: str, path: Path) -> bool:
    """Take the profile's entry out of a client's file; whether there was one. Raises as ``connect`` does."""
    profile_name(profile)
    if not path.exists() or entry_name(profile) not in _table(client(name), _parsed(client(name), path)):
        return False
    _edit(name, path, entry_name(profile), None)
    return True


def connection(name: str, path: Path) -> Connection:
    """What a client's file says of Dockyard."""
    one = client(name)
    bare = Connection(client=name, title=one.title, path=str(path), exists=path.exists())
    if not bare.exists:
        return bare
    try:
        found = _table(one, _parsed(one, path))
    except InvalidRequest as error:
        return msgspec.structs.replace(bare, problem=error.message)
    return msgspec.structs.replace(bare, entries=_entries(one, found))


def _entries(one: Client, table: dict[str, Any]) -> dict[str, str]:
    return {key: profile for key, value in table.items() if (profile := _profile(one, value)) is not None}


def _profile(one: Client, value: Any) -> str | None:
    """The profile that an entry is for, if it starts our gateway."""
    args = value.get(one.names.get("args", "args")) if isinstance(value, dict) else None
    if not isinstance(args, list) or not any(args[at : at + 3] == ["mcp", "gateway", "run"] for at in range(len(args))):
        return None
    command = str(value.get(one.names.get("command", "command")))
    if "dockyard" not in (*args, Path(command).name, Path(command).stem):
        return None
    return str(args[args.index("--profile") + 1]) if "--profile" in args[:-1] else DEFAULT


def _edit(name: str, path: Path, key: str, value: dict[str, Any] | None) -> None:
    one = client(name)
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    before = clients_text.parse(one.format, text, str(path))
    meant = _meant(one, before, key, value)
    changed = clients_text.put(one.format, text, (*one.key, key), value)
    if _bare(one, clients_text.parse(one.format, changed, str(path))) != _bare(one, meant):
        raise InvalidRequest(
            f"{path} is laid out in a way that can't be edited without changing more than this entry",
            param="client",
            hint=f"put {key} under {'.'.join(one.key)} by hand: {msgspec.json.encode(value).decode()}",
        )
    backup = path.resolve().with_name(path.resolve().name + BACKUP)
    if value is not None:
        first = text and not _entries(one, _table(one, before))
        _replace(path, changed, backup=text if first else "")
    elif _entries(one, _table(one, meant)):
        _replace(path, changed)
    else:
        _clear(one, path, changed, backup)


def _meant(one: Client, before: dict[str, Any], key: str, value: dict[str, Any] | None) -> dict[str, Any]:
    table = dict(_table(one, before))
    if value is None:
        table.pop(key, None)
    else:
        table[key] = value
    return {**before, one.key[0]: table}


def _bare(one: Client, document: dict[str, Any]) -> dict[str, Any]:
    """The document; a table of servers that is empty is as good as none."""
    return document if document.get(one.key[0]) else {key: each for key, each in document.items() if key != one.key[0]}


def _clear(one: Client, path: Path, text: str, backup: Path) -> None:
    """Write the file without its last entry, and take away what was made for the first: table, backup, the file."""
    before = backup.read_text(encoding="utf-8") if backup.exists() else ""
    bare = clients_text.without_empty(one.format, text, one.key[0])
    if before and _dense(before) in (_dense(text), _dense(bare)):
        _replace(path, before)
    elif not before and not path.is_symlink() and _dense(bare) in ("", "{}"):
        path.unlink()
    else:
        _replace(path, text if _had(one, before, backup) else bare)
    backup.unlink(missing_ok=True)


def _dense(text: str) -> str:
    return "".join(text.split())


def _had(one: Client, text: str, path: Path) -> bool:
    """Whether a backup has the table of servers; one that nobody can read is taken to have it."""
    try:
        return one.key[0] in clients_text.parse(one.format, text, str(path))
    except InvalidRequest:
        return True


def _replace(path: Path, after: str, *, backup: str = "") -> None:
    from dockyard.artifact.index import write_synced

    target = path.resolve()
    target.parent.mkdir(parents=True, exist_ok=True)
    mode = target.stat().st_mode & 0o7777 if target.exists() else 0o600
    if backup:
        kept = target.with_name(target.name + BACKUP)
        kept.touch(mode=mode)
        write_synced(kept, backup.encode())
        kept.chmod(mode)
    write_synced(target, after.encode())
    target.chmod(mode)


def _parsed(one: Client, path: Path) -> dict[str, Any]:
    return clients_text.parse(one.format, path.read_text(encoding="utf-8"), str(path))


def _table(one: Client, document: dict[str, Any]) -> dict[str, Any]:
    found: Any = document
    for key in one.key:
        found = found.get(key) or {}
        if not isinstance(found, dict):
            raise InvalidRequest(f"{key} is no table in {one.title}'s file", param="client")
    return dict(found)
