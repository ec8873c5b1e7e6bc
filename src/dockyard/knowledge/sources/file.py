"""Files and folders of this machine. Hidden files, version control and what programs build are passed over."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
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

KINDS = {
    stat.S_IFIFO: "a FIFO", stat.S_IFSOCK: "a socket", stat.S_IFBLK: "a device", stat.S_IFCHR: "a device",
    stat.S_IFDIR: "a folder",
}  # fmt: skip


class FileSource:
    """A path."""

    def claims(self, text: str) -> str | None:
        path = Path(text.removeprefix("file://")).expanduser()
        return str(path.resolve()) if path.exists() else None

    @contextlib.contextmanager
    def open(self, job: Job) -> Iterator[Folder]:
        yield Folder(Path(job.source.place), job)


class Folder:
    """A folder or a file, open. Links to folders, and links that lead out of the folder, are not followed."""

    def __init__(self, root: Path, job: Job) -> None:
        self._root = root
        self._job = job
        self._single = root.exists() and not root.is_dir()

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
        closed: list[OSError] = []
        for path in sorted(self._walk(self._root, closed)):
            name = path.relative_to(self._root).as_posix()
            if not wanted(name, self._job.source):
                continue
            try:
                yield msgspec.structs.replace(self._sighted(path, name), readers=readers_of(name, rules))
            except OSError as error:
                yield self._problem(name, error.strerror or str(error))
            except UnsafeContent as error:
                yield self._problem(name, error.message, error.hint or "")
        for told in closed:
            yield from self._closed(told)

    def _sighted(self, path: Path, name: str) -> Sighted:
        """Raises UnsafeContent for what is no file, OSError for what can't be told."""
        if path.is_symlink() and not self._single:
            self._follow(path)
        found = path.stat()
        _regular(found.st_mode)
        mark = f"{found.st_size}-{found.st_mtime_ns}-{found.st_ino}"
        return Sighted(path=name, fingerprint=mark, size=found.st_size, modified=found.st_mtime)

    def _follow(self, link: Path) -> None:
        """Whether a link leads to something that may be read. Raises UnsafeContent where not."""
        try:
            target = link.resolve(strict=True)
        except FileNotFoundError:
            raise UnsafeContent("it is a link that leads to nothing that is there") from None
        except (RuntimeError, OSError) as error:  # Python up to 3.12 tells a loop by a RuntimeError
            if isinstance(error, OSError) and error.errno != errno.ELOOP:
                raise
            raise UnsafeContent("it is a link that leads to itself") from None
        root = self._root.resolve()
        if link.parent.resolve().is_relative_to(target):
            raise UnsafeContent("it is a link that leads back to a folder that holds it; it is not followed")
        if not target.is_relative_to(root):
            raise UnsafeContent("it is a link that leads out of the folder", hint="add what it leads to as a source")
        if target.is_dir():
            raise UnsafeContent(f"it is a link to the folder {target.relative_to(root)}; it is not followed")

    def _walk(self, folder: Path, closed: list[OSError]) -> Iterator[Path]:
        """Everything that is not passed over and no folder, links to folders among it."""
        for place, folders, files in os.walk(folder, onerror=closed.append):
            folders[:] = sorted(name for name in folders if not name.startswith(".") and name not in PASSED_OVER)
            links = [name for name in folders if os.path.islink(f"{place}/{name}")]  # noqa: PTH114 - never raises
            yield from (Path(place) / name for name in (*files, *links) if not name.startswith("."))

    def _closed(self, error: OSError) -> Iterator[Problem]:
        """A folder that can't be listed: told, and what the index has from below it stays."""
        path = Path(error.filename)
        below = "" if path == self._root else f"{path.relative_to(self._root).as_posix()}/"
        told = f"the folder can't be listed: {error.strerror}"
        yield self._problem(below or str(path), told)
        yield from (self._problem(name, told, "kept as it was") for name in self._job.known if name.startswith(below))

    def _problem(self, name: str, message: str, hint: str = "") -> Problem:
        return Problem(source=self._job.source.id, path=name, message=message, hint=hint)

    def read(self, sighted: Sighted) -> bytes:
        path = self._root if self._single else self._root / sighted.path
        if not self._single and not Path(os.path.realpath(path)).is_relative_to(self._root.resolve()):
            raise UnsafeContent("it is a link that leads out of the folder", hint="add what it leads to as a source")
        # Between then and now it may have become a FIFO, whose opening would wait for somebody who writes.
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
            _regular(os.fstat(file.fileno()).st_mode)
            data = file.read(self._job.most + 1)
        if len(data) > self._job.most:
            raise PayloadTooLarge(
                f"it has more than {self._job.most} bytes", hint="split it, or raise `knowledge_max_document`"
            )
        return data


def _regular(mode: int) -> None:
    """Raises UnsafeContent for what is no regular file."""
    if not stat.S_ISREG(mode):
        raise UnsafeContent(f"it is {KINDS.get(stat.S_IFMT(mode), 'something else')}, not a regular file")


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
