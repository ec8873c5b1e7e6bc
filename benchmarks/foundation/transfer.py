"""Pulling a gigabyte beside curl, surviving kills, and trading artifacts with other people's tools."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import struct
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks._bars import Row, median, spread
from benchmarks._serving import DOCKYARD, OPENER, dockyard, free_port, home_env, process, wait_ready

ROUNDS = 5
KILLS = 20
GIGABYTE = 1 << 30


def rows() -> Iterator[Row]:
    with tempfile.TemporaryDirectory() as scratch, registry(Path(scratch)) as host:
        home = Path(scratch) / "home"
        reference = f"{host}/bench/big:v1"
        weights = _weights(Path(scratch) / "model.safetensors")
        _run(home, "package", str(weights), reference)
        _run(home, "push", reference)
        weights.unlink()
        blobs = _blobs(host)
        ours: list[float] = []
        curl: list[float] = []
        checked: list[float] = []
        for _ in range(ROUNDS):
            plain, verified = _curl(host, blobs, Path(scratch) / "curl")
            curl.append(plain)
            checked.append(verified)
            ours.append(_pull(Path(scratch) / "fresh", reference))
        ratio = median([b / a for a, b in zip(ours, curl, strict=True)])
        fair = median([b / a for a, b in zip(ours, checked, strict=True)])
        said = f"{ratio:.2f} of curl's speed ({spread(ours, '.2f')} s, curl {spread(curl, '.2f')} s)"
        said += f"; {fair:.2f} of curl and then sha256sum ({spread(checked, '.2f')} s)"
        yield Row("pull of 1 GiB from docker-registry, whole command", said, ">= 0.8", ratio >= 0.8)
        whole = _killed(Path(scratch) / "killed", reference, median(ours))
        yield Row(
            f"pulls killed {KILLS} times, then resumed to the right digest", str(whole), str(KILLS), whole == KILLS
        )


def _killed(home: Path, reference: str, seconds: float) -> int:
    """One home killed at random moments until it holds the artifact, over and over; how often it came out whole."""
    whole = 0
    dice = random.Random(7)
    for _ in range(KILLS):
        shutil.rmtree(home, ignore_errors=True)
        child = subprocess.Popen(
            [str(DOCKYARD), "pull", reference], env=home_env(home), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        time.sleep(dice.uniform(0.1, seconds))
        child.send_signal(signal.SIGKILL)
        child.wait()
        _run(home, "pull", reference)
        whole += subprocess.run([str(DOCKYARD), "fsck"], env=home_env(home), stdout=subprocess.DEVNULL).returncode == 0
    shutil.rmtree(home, ignore_errors=True)
    return whole


def interoperability_rows() -> Iterator[Row]:
    """What Dockyard pushed, skopeo and oras pull, from Debian's registry and from Dockyard's hub; and back."""
    with tempfile.TemporaryDirectory() as scratch, registry(Path(scratch)) as host:
        base = Path(scratch)
        weights = _weights(base / "model.safetensors", size=8 << 20)
        with dockyard(base / "hub") as (url, _):
            for name, place in (("docker-registry", host), ("Dockyard's hub", url.removeprefix("http://"))):
                home = base / f"home-{place.replace(':', '-')}"
                reference = f"{place}/trade/small:v1"
                _run(home, "package", str(weights), reference)
                _run(home, "push", reference)
                for tool, there_and_back in (("skopeo", _skopeo), ("oras", _oras)):
                    said = there_and_back(base / f"{tool}-{place.replace(':', '-')}", reference, weights)
                    yield Row(f"{tool} with {name}, there and back", said or "same bytes", "same bytes", not said)


def _skopeo(folder: Path, reference: str, weights: Path) -> str:
    folder.mkdir()
    copy = ["skopeo", "--insecure-policy", "copy", "-q"]
    back = reference.replace("/small:", "/skopeo:")
    layout = f"oci:{folder / 'layout'}:v1"
    subprocess.run([*copy, "--src-tls-verify=false", f"docker://{reference}", layout], check=True)
    subprocess.run([*copy, "--dest-tls-verify=false", layout, f"docker://{back}"], check=True)
    return _same(folder, back, weights)


def _oras(folder: Path, reference: str, weights: Path) -> str:
    import oras.client

    folder.mkdir()
    back = reference.replace("/small:", "/oras:")
    client = oras.client.OrasClient(insecure=True, hostname=reference.split("/")[0])
    pulled = [Path(p) for p in client.pull(target=reference, outdir=str(folder / "got"), allowed_media_type=[])]
    found = [p for p in pulled if p.name == weights.name or p.stat().st_size == weights.stat().st_size]
    if not found or found[0].read_bytes() != weights.read_bytes():
        return "oras pulled other bytes"
    files = [f"{found[0]}:application/vnd.cncf.model.weight.v1.raw"]
    client.push(target=back, files=files, disable_path_validation=True)
    home = folder / "home"
    _run(home, "pull", back)
    digest = json.loads(_run(home, "inspect", "--json", back))["layers"][0]["digest"]
    return (
        "" if (home / "store/blobs" / digest.replace(":", "/")).read_bytes() == weights.read_bytes() else "other bytes"
    )


def _same(folder: Path, reference: str, weights: Path) -> str:
    home = folder / "home"
    _run(home, "pull", reference)
    blobs = (home / "store" / "blobs").rglob("*")
    same = any(
        b.is_file() and b.stat().st_size == weights.stat().st_size and b.read_bytes() == weights.read_bytes()
        for b in blobs
    )
    return "" if same else "other bytes"


@contextmanager
def registry(scratch: Path) -> Iterator[str]:
    """Debian's docker-registry on a free loopback port; its ``host:port``."""
    host = f"127.0.0.1:{free_port()}"
    config = scratch / "registry.json"
    storage = {"filesystem": {"rootdirectory": str(scratch / "registry")}, "delete": {"enabled": True}}
    config.write_text(
        json.dumps({"version": "0.1", "log": {"level": "error"}, "storage": storage, "http": {"addr": host}})
    )
    with process(["docker-registry", "serve", str(config)]) as child:
        wait_ready(f"http://{host}/v2/", child)
        yield host


def _weights(path: Path, size: int = GIGABYTE) -> Path:
    """A safetensors file of one random tensor of ``size`` bytes."""
    head = json.dumps({"w": {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}}).encode()
    with path.open("wb") as sink:
        sink.write(struct.pack("<Q", len(head)) + head)
        for _ in range(size >> 20):
            sink.write(os.urandom(1 << 20))
    return path


def _run(home: Path, *arguments: str) -> str:
    done = subprocess.run([str(DOCKYARD), *arguments], env=home_env(home), capture_output=True, text=True, timeout=600)
    if done.returncode:
        raise RuntimeError(f"dockyard {' '.join(arguments)}: {done.stderr[-600:]}")
    return done.stdout


def _blobs(host: str) -> list[str]:
    from urllib.request import Request

    accept = {"accept": "application/vnd.oci.image.manifest.v1+json"}
    with OPENER.open(Request(f"http://{host}/v2/bench/big/manifests/v1", headers=accept)) as reply:
        manifest = json.load(reply)
    return [manifest["config"]["digest"], *(layer["digest"] for layer in manifest["layers"])]


def _curl(host: str, blobs: list[str], folder: Path) -> tuple[float, float]:
    """Seconds to fetch the blobs, and to fetch and check them, which is what a pull does."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    command = ["curl", "-sS", "--noproxy", "*", "--fail"]
    for number, blob in enumerate(blobs):
        command += ["-o", str(folder / str(number)), f"http://{host}/v2/bench/big/blobs/{blob}"]
    began = time.monotonic()
    subprocess.run(command, check=True)
    seconds = time.monotonic() - began
    subprocess.run(["sha256sum", *folder.iterdir()], check=True, stdout=subprocess.DEVNULL)
    checked = time.monotonic() - began
    shutil.rmtree(folder)
    return seconds, checked


def _pull(home: Path, reference: str) -> float:
    shutil.rmtree(home, ignore_errors=True)
    began = time.monotonic()
    _run(home, "pull", reference)
    seconds = time.monotonic() - began
    shutil.rmtree(home)
    return seconds
