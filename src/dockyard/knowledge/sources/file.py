"""Files and folders of this machine. Hidden files, version control and what programs build are passed over."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path

import msgspec

from dockyard.errors import InvalidRequest, NotFound, PayloadTooLarge, UnsafeContent
from dockyard.knowledge.model import Problem, Sighted
from dockyard.knowledge.sources import Job, wanted

ACCESS = ".dockyard-access.yaml"
"""In a source's folder: who may read which of its documents, as `pattern: [reader, …]`; the first that fits counts."""

PASSED_OVER = frozenset({"node_modules", "__pycache__", "venv", "target", "dist", "build"})


class FileSource:
    """A path."""

    def claims(self, text: str) -> str | None:
        path = Path(text.removeprefix("file://")).expanduser()
        return str(path.resolve()) if path.exists() else None

    @contextlib.contextmanager
    def open(self, job: Job) -> Iterator[Folder]:
        yield Folder(Path(job.source.place), job)


class Folder:
    """A folder or a file, open. Links that lead out of the folder are not followed."""

    def __init__(self, root: Path, job: Job) -> None:
        self._root = root
        self._job = job
        self._single = root.is_file()

    def sight(self) -> Iterator[Sighted | Problem]:
        if not self._root.exists():
            raise NotFound(
                f"{self._root} is gone: what the index has of it is kept",
                hint="bring it back, or `dockyard knowledge rm NAME --source PATH` to forget it",
            )
        if self._single:
            yield self._sighted(self._root, self._job.source.named or self._root.name)
            return
        rules = access_rules(self._root / ACCESS)
        for path in sorted(self._walk(self._root)):
            name = path.relative_to(self._root).as_posix()
            if not wanted(name, self._job.source):
                continue
            try:
                yield msgspec.structs.replace(self._sighted(path, name), readers=readers_of(name, rules))
            except OSError as error:
                yield Problem(source=self._job.source.id, path=name, message=error.strerror or str(error))

    def _sighted(self, path: Path, name: str) -> Sighted:
        stat = path.stat()
        mark = f"{stat.st_size}-{stat.st_mtime_ns}-{stat.st_ino}"
        return Sighted(path=name, fingerprint=mark, size=stat.st_size, modified=stat.st_mtime)

    def _walk(self, folder: Path) -> Iterator[Path]:
        for place, folders, files in os.walk(folder):
            folders[:] = sorted(name for name in folders if not name.startswith(".") and name not in PASSED_OVER)
            for name in files:
                path = Path(place) / name
                if not name.startswith(".") and (path.is_file() or path.is_symlink()):
                    yield path

    def read(self, sighted: Sighted) -> bytes:
        path = self._root if self._single else self._root / sighted.path
        if not self._single and not path.resolve().is_relative_to(self._root.resolve()):
            raise UnsafeContent("it is a link that leads out of the folder", hint="add what it leads to as a source")
        with path.open("rb") as file:
            data = file.read(self._job.most + 1)
        if len(data) > self._job.most:
            raise PayloadTooLarge(
                f"it has more than {self._job.most} bytes", hint="split it, or raise `knowledge_max_document`"
            )
        return data


def access_rules(path: Path) -> list[tuple[str, tuple[str, ...]]] | None:
    """The rules of a folder; None where it has none. Raises InvalidRequest: with wrong rules nothing is read."""
    try:
        found = msgspec.yaml.decode(path.read_bytes(), type=dict[str, list[str]])
    except FileNotFoundError:
        return None
    except (msgspec.DecodeError, msgspec.ValidationError, OSError) as error:
        raise InvalidRequest(
            f"{path}: {error}", hint="write lines as `hr/*: [alice, team-hr]`; nothing is read until it is right"
        ) from error
    return [(pattern, tuple(readers)) for pattern, readers in found.items()]


def readers_of(name: str, rules: list[tuple[str, tuple[str, ...]]] | None) -> tuple[str, ...] | None:
    """Who may read a document; None: whoever may read the source."""
    return next((readers for pattern, readers in rules or () if fnmatchcase(name, pattern)), None)


PLUGIN = FileSource()
