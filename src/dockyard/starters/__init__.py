"""Small working projects to start from: one folder each, found by its ``starter.yaml``; ``_shared`` goes into all.

A starter is plain files. ``PROJECT`` in their text becomes the name of the new project's folder.
"""

from __future__ import annotations

import difflib
import re
from importlib import resources
from pathlib import Path
from typing import Any

import msgspec

from dockyard.errors import Conflict, InvalidRequest, NotFound

ABOUT = "starter.yaml"
SHARED = "_shared"
_NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")


class Starter(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What can be started: ``title`` in a few words, ``model`` what it answers with, ``note`` what to know before."""

    name: str = ""
    title: str
    model: str
    note: str = ""


def starters() -> list[Starter]:
    """All of them, by name."""
    found = []
    for folder in resources.files(__name__).iterdir():
        about = folder.joinpath(ABOUT)
        if about.is_file():
            told = msgspec.yaml.decode(about.read_bytes(), type=Starter)
            found.append(msgspec.structs.replace(told, name=folder.name))
    return sorted(found, key=lambda one: one.name)


def write(name: str, folder: Path) -> list[Path]:
    """Write the starter into ``folder``, which is made; the files, relative to it.

    Raises NotFound for an unknown starter, Conflict for a folder that holds files already, InvalidRequest for a name
    that no project can have. Nothing is written then.
    """
    known = [one.name for one in starters()]
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"there is: {', '.join(known)}"
        raise NotFound(f"there is no starter {name!r}", param="usecase", hint=hint)
    project = re.sub(r"[^a-z0-9]+", "-", folder.absolute().name.lower()).strip("-")
    if not _NAME.fullmatch(project):
        raise InvalidRequest(f"{folder}: no project can be called so", param="dir", hint="letters and digits")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise Conflict(f"{folder} is there already, and not empty", hint="name a folder that is new or empty")
    root = resources.files(__name__)
    files = {**_files(root.joinpath(SHARED)), **_files(root.joinpath(name))}
    files.pop(ABOUT, None)
    for path, data in files.items():
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data.replace(b"PROJECT", project.encode()))
    return [Path(path) for path in sorted(files)]


def _files(folder: Any, under: str = "") -> dict[str, bytes]:
    """Every file below a folder, by its path; a leading ``dot-`` stands for the dot that packages leave out."""
    found: dict[str, bytes] = {}
    for each in folder.iterdir():
        if each.name == "__pycache__":
            continue
        path = under + (f".{each.name[4:]}" if each.name.startswith("dot-") else each.name)
        found.update(_files(each, f"{path}/") if each.is_dir() else {path: each.read_bytes()})
    return found
