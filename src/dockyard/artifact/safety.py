"""What the data plane refuses: paths that leave their folder, and pickles, which run code when they are opened."""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath

from dockyard.artifact.media import PICKLE_SUFFIXES
from dockyard.errors import UnsafeContent

_DRIVE = re.compile(r"[A-Za-z]:")
_TEXT_PICKLE = re.compile(rb"\(?(?:c[A-Za-z_][\w.]*\n[\w.]+\n|[dl]p\d|i[A-Za-z_][\w.]*\n)")
MAX_PATH = 1024
MAX_DEPTH = 32


def contained(path: str, where: str = "") -> str:
    """``path`` as a clean relative POSIX path below some folder.

    Raises UnsafeContent for absolute paths, ``..``, drive letters, back slashes, control characters, and names longer
    than file systems take; ``where`` says in the message what the path belongs to.
    """
    told = f"path {path!r}" + (f" of {where}" if where else "")
    if not path or len(path) > MAX_PATH:
        raise UnsafeContent(f"{told} is {'empty' if not path else 'too long'}")
    if any(ord(char) < 32 or ord(char) == 127 or 0xD800 <= ord(char) < 0xE000 for char in path):
        raise UnsafeContent(f"{told} has control characters")
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if "\\" in path or path.startswith("/") or (parts and (parts[0].startswith("~") or _DRIVE.match(parts[0]))):
        raise UnsafeContent(f"{told} is not relative", hint="paths in an artifact are relative, with `/` between parts")
    if ".." in parts:
        raise UnsafeContent(f"{told} leaves the artifact's folder")
    if not parts:
        raise UnsafeContent(f"{told} names no file")
    if len(parts) > MAX_DEPTH or any(len(part.encode()) > 255 for part in parts):
        raise UnsafeContent(f"{told} is too deep or has too long a part")
    return str(PurePosixPath(*parts))


def is_pickle(name: str, head: bytes) -> bool:
    """Whether a file is a pickle by its name, or for the ambiguous ``.bin`` by its first bytes.

    ``.bin`` is also what OpenVINO calls its raw weights, so there only the magic of pickles and zips counts.
    """
    lower = name.lower()
    if not lower.endswith(PICKLE_SUFFIXES):
        return False
    if not lower.endswith(".bin"):
        return True
    binary = len(head) > 1 and head[0] == 0x80 and 1 <= head[1] <= 5
    return binary or head.startswith((b"PK\x03\x04", b"PK\x05\x06")) or _TEXT_PICKLE.match(head) is not None


def refuse_pickle(path: Path, name: str | None = None) -> None:
    """Raise UnsafeContent naming the file if it is a pickle. Reads at most 256 bytes and never unpickles."""
    told = name or path.name
    if not told.lower().endswith(PICKLE_SUFFIXES):
        return
    with path.open("rb") as file:
        head = file.read(256)
    if is_pickle(told, head):
        raise UnsafeContent(
            f"{told} holds its weights as a pickle, which can run code when it is opened",
            hint="use a safetensors or GGUF version of this model",
            param=told,
        )
