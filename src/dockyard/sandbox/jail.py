"""What bubblewrap is told: which of the machine a program sees. Pure: paths and a policy in, arguments out."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

HOME = "/home/tool"
SCRATCH_BYTES = 256 << 20
FILE_BYTES = 1 << 30
TEMPORARY = "/tmp"  # noqa: S108 - of the sandbox, not of the machine
_SCRATCH = ("/dev/shm", TEMPORARY, "/var/tmp", HOME)  # noqa: S108 - these too
USER = 1000
RELAY = "/run/dockyard/relay.py"
SOCKET = "/run/dockyard/egress.sock"

_SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
_ETC = (
    "/etc/ld.so.cache",
    "/etc/ld.so.conf",
    "/etc/ld.so.conf.d",
    "/etc/alternatives",
    "/etc/ssl",
    "/etc/pki",
    "/etc/ca-certificates",
    "/etc/ca-certificates.conf",
    "/etc/localtime",
    "/etc/mime.types",
)
_KEYS = ("/etc/ssl/private", "/etc/pki/tls/private")
"""Within those, and nobody's business: a program that Dockyard starts as root could read them."""
FILES = {
    "/etc/passwd": f"tool:x:{USER}:{USER}:tool:{HOME}:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n",
    "/etc/group": f"tool:x:{USER}:\nnogroup:x:65534:\n",
    "/etc/hosts": "127.0.0.1 localhost\n::1 localhost\n",
    "/etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files\n",
}
"""Files that a sandbox has instead of the machine's."""


def needs(executable: str, depth: int = 3) -> list[Path]:
    """What a program needs beyond the system's folders: itself, its environment, and its interpreter's."""
    found: list[Path] = []
    for path in dict.fromkeys((Path(executable), Path(executable).resolve())):
        found.append(path)
        root = path.parent.parent
        if path.parent.name == "bin" and (root / "pyvenv.cfg").is_file():
            found.append(root)
            base = _base(root / "pyvenv.cfg")
            if base is not None and depth:
                found += needs(str(base), depth - 1)
        elif path.parent.name == "bin" and root != Path.home() / ".local" and _is_prefix(root):
            found.append(root / "lib")
    script = _interpreter(Path(executable))
    if script and depth:
        found += needs(script, depth - 1)
    outside = [path for path in found if not any(path.is_relative_to(each) for each in _SYSTEM)]
    return list(dict.fromkeys(outside))


def _is_prefix(root: Path) -> bool:
    return any(root.glob("lib/python3.*/os.py")) or (root / "lib/node_modules/npm").is_dir()


def _base(config: Path) -> Path | None:
    for line in config.read_text(errors="replace").splitlines():
        key, _, value = line.partition("=")
        if key.strip() == "home":
            found = sorted(Path(value.strip()).glob("python3*"))
            return found[0] if found else None
    return None


def _interpreter(script: Path) -> str:
    try:
        with script.open("rb") as file:
            line = file.readline(512)
    except OSError:
        return ""
    words = line[2:].decode(errors="replace").split() if line.startswith(b"#!") else []
    return words[0] if words and words[0].startswith("/") else ""


def python() -> str:
    """The interpreter that relays inside a sandbox: the one below ours, without its environment."""
    name = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    return str(Path(sys.base_prefix) / "bin" / name)


def arguments(
    binds: dict[str, tuple[Path, bool]], files: dict[str, int], *, cwd: str = "", relay: tuple[Path, Path] | None = None
) -> list[str]:
    """Arguments of bubblewrap before the command. ``files`` are descriptors by path; ``relay``: script and socket."""
    told = ["--unshare-user", "--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts"]
    told += ["--unshare-cgroup-try", "--disable-userns", "--die-with-parent", "--new-session"]
    told += ["--uid", str(USER), "--gid", str(USER), "--hostname", "tool", "--cap-drop", "ALL"]
    for path in _SYSTEM:
        if Path(path).is_symlink():
            told += ["--symlink", str(Path(path).readlink()), path]
        else:
            told += ["--ro-bind-try", path, path]
    for path in _ETC:
        told += ["--ro-bind-try", path, path]
    for path in _KEYS:
        told += ["--tmpfs", path] if Path(path).is_dir() else []
    for path, descriptor in files.items():
        told += ["--ro-bind-data", str(descriptor), path]
    size = str(SCRATCH_BYTES)
    # /proc/sys belongs to the first user of the machine: where Dockyard is root, only a read-only mount keeps it shut.
    told += ["--proc", "/proc", "--remount-ro", "/proc", "--dev", "/dev"]
    for path in _SCRATCH:
        told += ["--size", size, "--tmpfs", path]
    told += ["--remount-ro", "/dev"]
    for inside in sorted(binds):
        real, write = binds[inside]
        if any(str(above) in binds and binds[str(above)][1] >= write for above in Path(inside).parents):
            continue  # it is there already
        told += ["--bind" if write else "--ro-bind", str(real), inside]
    if relay is not None:
        told += ["--ro-bind", str(relay[0]), RELAY, "--ro-bind", str(relay[1]), SOCKET]
    return [*told, "--remount-ro", "/", "--chdir", cwd or HOME]


def limits(*, processes: int, memory: int, seconds: int) -> list[str]:
    """A prefix of the command that sets limits of each process (0: none)."""
    told = ["prlimit", "--core=0:0", f"--fsize={FILE_BYTES}:{FILE_BYTES}"]
    told += [f"--nproc={processes}:{processes}"] if processes else []
    told += [f"--data={memory}:{memory}"] if memory else []
    told += [f"--cpu={seconds}:{seconds}"] if seconds else []
    return [*told, "--"]


@contextlib.contextmanager
def content(text: str) -> Iterator[int]:
    """A descriptor that this text can be read from."""
    descriptor = os.memfd_create("dockyard")
    try:
        data = text.encode()
        while data:
            data = data[os.write(descriptor, data) :]
        os.lseek(descriptor, 0, os.SEEK_SET)
        yield descriptor
    finally:
        os.close(descriptor)


def found(name: str) -> str:
    """Where a program of the sandbox itself lies; empty if nowhere."""
    return shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/bin:/bin") or ""
