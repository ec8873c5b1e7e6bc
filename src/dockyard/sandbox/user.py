"""Which user of the machine a program in a sandbox is, where Dockyard is root.

Inside it is ``jail.USER`` in any case. Outside that is who Dockyard is; for root it shall be somebody who owns nothing,
so that whoever gets out of the sandbox is nobody. Root's files that are not for everybody are out of reach then: where
a program needs such, it stays root, without any of its powers.
"""

from __future__ import annotations

import os
import stat
import subprocess
import zlib
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path

from dockyard.sandbox import jail

FIRST = 0x6D000000
"""Far above the users of any machine, and below those that the kernel can't name."""
MANY = 1 << 20
_SECONDS = 10


def chosen(name: str, binds: Mapping[str, tuple[Path, bool]], more: Iterable[Path] = ()) -> int | None:
    """The user for a program of this name that sees ``binds`` (as in ``jail.arguments``) and ``more``; None: as we are.

    Who writes in a folder is the folder's owner. May start a program to see what the kernel allows, once.
    """
    if os.geteuid() != 0 or not jail.found("setpriv"):
        return None
    owners = {real.stat().st_uid for real, write in binds.values() if write}
    if len(owners) > 1 or 0 in owners:
        return None
    user = owners.pop() if owners else FIRST + zlib.crc32(name.encode()) % MANY
    paths = dict.fromkeys([*(real for real, _ in binds.values()), *more])
    return user if all(_reaches(user, path) for path in paths) and _allowed() else None


def prefix(user: int | None) -> list[str]:
    """What goes before bubblewrap to be that user."""
    if user is None:
        return []
    return [jail.found("setpriv"), f"--reuid={user}", f"--regid={user}", "--clear-groups", "--"]


def _reaches(user: int, path: Path) -> bool:
    """Whether this user may read it, as far as modes say."""
    for each in (path, *path.parents):
        told = each.stat()
        mode = told.st_mode >> 6 if told.st_uid == user else told.st_mode
        needed = stat.S_IXOTH if each != path else stat.S_IROTH
        if stat.S_ISDIR(told.st_mode):
            needed |= stat.S_IXOTH
        if mode & needed != needed:
            return False
    return True


@cache
def _allowed() -> bool:
    """Whether somebody who is not root can make a sandbox here."""
    inside = ["--unshare-user", "--disable-userns", "--uid", str(jail.USER), "--ro-bind", "/", "/", "true"]
    command = [*prefix(FIRST), jail.found("bwrap"), *inside]
    try:
        return subprocess.run(command, capture_output=True, timeout=_SECONDS, check=False).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False
