"""What of the machine a tool server is given: paths and a policy in, what the sandbox binds out."""

from __future__ import annotations

import os
from pathlib import Path

from dockyard.errors import InvalidRequest
from dockyard.tools.model import Server

_NEVER = (
    "/proc",
    "/sys",
    "/dev",
    "/run",
    "/var/run",
    "/boot",
    "/etc/shadow",
    "/etc/gshadow",
    "/etc/ssh",
    "/etc/sudoers",
)
_PRIVATE = (".ssh", ".gnupg", ".aws", ".azure", ".kube", ".docker", ".netrc", ".config/gcloud", ".local/share/keyrings")


def shared(server: Server, home: Path) -> dict[str, tuple[Path, bool]]:
    """Where a server sees what of the machine: path inside, real path, and whether it may write there.

    ``home`` is Dockyard's own folder. Raises InvalidRequest for what is missing, and for what no server gets: the root,
    kernel and device folders, credentials, and Dockyard's own home.
    """
    wanted = [(path, False) for path in server.sandbox.read] + [(path, True) for path in server.sandbox.write]
    if server.cwd and server.cwd not in server.sandbox.write:
        wanted.insert(0, (server.cwd, False))
    found = {}
    for text, write in wanted:
        field = "sandbox.write" if write else ("cwd" if text == server.cwd else "sandbox.read")
        path = Path(text).expanduser()
        if not path.is_absolute():
            raise InvalidRequest(f"server {server.name!r}: {field} {text!r} is not absolute", param=field)
        real = path.resolve()
        if not real.exists():
            raise InvalidRequest(f"server {server.name!r}: {field} {text!r} does not exist", param=field)
        secret = _touches(real, home) or _touches(Path(os.path.normpath(path)), home)
        if secret:
            raise InvalidRequest(
                f"server {server.name!r}: {field} {text!r} would give it {secret}",
                param=field,
                hint="name the folders that it works on",
            )
        found[os.path.normpath(path)] = (real, write)
    return found


def _touches(path: Path, home: Path) -> str:
    """The first path among those that no server gets which is in ``path``, or holds it."""
    user = Path.home()
    closed = [Path(text) for text in _NEVER] + [user / name for name in _PRIVATE] + [home.resolve()]
    for each in closed:
        if path.is_relative_to(each) or each.is_relative_to(path):
            return str(each)
    return ""
