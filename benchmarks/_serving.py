"""Starting servers for a measurement, and small HTTP helpers that cost little of the two cores."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.error import URLError
from urllib.request import ProxyHandler, Request, build_opener

DOCKYARD = Path(sys.executable).with_name("dockyard")
OPENER = build_opener(ProxyHandler({}))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def process(
    command: list[str], *, core: int | None = None, env: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a command in its own session, on one core if asked; ended, then killed, at the end."""
    if core is not None:
        command = ["taskset", "-c", str(core), *command]
    with tempfile.NamedTemporaryFile("w+", suffix=".log") as log:
        child = subprocess.Popen(
            command, stdout=log, stderr=subprocess.STDOUT, start_new_session=True, env={**os.environ, **(env or {})}
        )
        child.log = log.name  # type: ignore[attr-defined]
        try:
            yield child
        finally:
            child.terminate()
            try:
                child.wait(15)
            except subprocess.TimeoutExpired:
                os.killpg(child.pid, signal.SIGKILL)
                child.wait()


def wait_ready(url: str, child: subprocess.Popen[bytes], *, seconds: float = 120) -> float:
    """Poll until ``url`` answers 200; seconds it took."""
    began = time.monotonic()
    while time.monotonic() - began < seconds:
        if child.poll() is not None:
            raise RuntimeError(f"server ended with {child.returncode}: {Path(child.log).read_text()[-800:]}")  # type: ignore[attr-defined]
        try:
            with OPENER.open(url, timeout=2) as reply:
                if reply.status == 200:
                    return time.monotonic() - began
        except (URLError, OSError):
            time.sleep(0.01)
    raise RuntimeError(f"{url} not ready in {seconds} s: {Path(child.log).read_text()[-800:]}")  # type: ignore[attr-defined]


@contextmanager
def dockyard(
    home: Path, *arguments: str, core: int | None = None, env: Mapping[str, str] | None = None
) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """A Dockyard server of its own home; yields its address and process."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = [str(DOCKYARD), "serve", "--port", str(port), *arguments]
    with process(command, core=core, env={**home_env(home), "DOCKYARD_IDLE_SECONDS": "-1", **(env or {})}) as child:
        wait_ready(f"{url}/health", child)
        yield url, child


def home_env(home: Path) -> dict[str, str]:
    """This process's environment with a Dockyard home of its own."""
    return {**os.environ, "DOCKYARD_HOME": str(home), "DOCKYARD_CONFIG": str(home / "none.yaml")}


def pull_starter(home: Path) -> None:
    """Put the starter model into the store of ``home``."""
    subprocess.run(
        [str(DOCKYARD), "pull", "smollm2"],
        check=True,
        env=home_env(home),
        stderr=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        timeout=600,
    )


def post(url: str, body: object, *, timeout: float = 120) -> bytes:
    data = json.dumps(body).encode()
    with OPENER.open(Request(url, data, {"content-type": "application/json"}), timeout=timeout) as reply:
        return bytes(reply.read())


@dataclass(frozen=True)
class Load:
    """What wrk saw: requests a second, and the median latency in milliseconds."""

    rate: float
    p50: float
    errors: int


def wrk(url: str, body: object, *, connections: int, seconds: float = 5, core: int = 1) -> Load:
    """POST ``body`` from ``connections`` connections with wrk on one core."""
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        script.write(
            'wrk.method = "POST"\nwrk.headers["content-type"] = "application/json"\n'
            f"wrk.body = [==[{json.dumps(body)}]==]\n"
        )
        script.flush()
        command = ["taskset", "-c", str(core), "wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency"]
        command += ["--timeout", "10s", "-s", script.name, url]
        text = subprocess.run(command, check=True, capture_output=True, text=True, timeout=seconds + 60).stdout
    rate = re.search(r"Requests/sec:\s+([\d.]+)", text)
    half = re.search(r"50%\s+([\d.]+)(us|ms|s)", text)
    if rate is None or half is None:
        raise RuntimeError(f"wrk said: {text}")
    bad = sum(int(n) for n in re.findall(r"(?:Non-2xx or 3xx responses|connect|read|write|timeout):? (\d+)", text))
    return Load(float(rate[1]), float(half[1]) * {"us": 0.001, "ms": 1.0, "s": 1000.0}[half[2]], bad)


def tree_rss(pid: int) -> int:
    """Resident bytes of a process and its descendants."""
    import psutil

    top = psutil.Process(pid)
    return sum(p.memory_info().rss for p in [top, *top.children(recursive=True)])
