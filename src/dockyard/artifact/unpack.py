"""Layers that are tar archives, plain or compressed, opened without trusting them.

Only regular files and folders come out, below the folder that was given. A link inside the archive to a file that the
archive holds becomes that file; every other link, absolute path, ``..``, device, and archive that swells beyond reason
is refused with UnsafeContent before anything outside the folder is touched.
"""

from __future__ import annotations

import contextlib
import gzip
import os
import posixpath
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import msgspec
import zstandard

from dockyard.artifact.media import Packed
from dockyard.artifact.partial import full
from dockyard.artifact.safety import contained
from dockyard.errors import ArtifactError, TruncatedContent, UnsafeContent

_EXTENDED = (
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
)
_MAX_HEADER = 1 << 20
_BLOCK = 256 << 10
_MAX_WINDOW = 128 << 20


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """How far an archive may swell: at most ``ratio`` times its packed bytes, but ``floor`` bytes always; and how many
    entries it may have."""

    ratio: int = 50
    floor: int = 256 << 20
    entries: int = 100_000

    def bytes_of(self, packed: int) -> int:
        return max(self.floor, self.ratio * packed)


def unpack(source: Path, packed: Packed, folder: Path, *, limits: Limits | None = None) -> list[str]:
    """Unpack an archive below ``folder``, which exists; returns the files' relative paths in the archive's order.

    Files that are there already are never replaced: that is an error. On an error ``folder`` may hold a part.
    """
    limits = limits or Limits()
    with source.open("rb") as file:
        return list(_extract(file, packed, folder, limits, limits.bytes_of(source.stat().st_size)))


@contextlib.contextmanager
def opened(file: BinaryIO, packed: Packed, most: int) -> Iterator[tarfile.TarFile]:
    """A tar archive to read once from front to back; more than ``most`` bytes of content raise UnsafeContent."""
    stream: Any = file
    if packed == "tar+gzip":
        stream = gzip.GzipFile(fileobj=file, mode="rb")
    elif packed == "tar+zstd":
        stream = zstandard.ZstdDecompressor(max_window_size=_MAX_WINDOW).stream_reader(file, read_across_frames=True)
    bounded: Any = _Bounded(stream, most)
    try:
        with tarfile.open(
            fileobj=bounded, mode="r|", tarinfo=_Header, errorlevel=2, encoding="utf-8", bufsize=_BLOCK
        ) as archive:
            yield archive
    except (EOFError, zlib.error, gzip.BadGzipFile, zstandard.ZstdError) as error:
        raise TruncatedContent(f"the archive is cut short or damaged: {error}") from error
    except tarfile.TarError as error:
        raise ArtifactError(f"the archive is not a readable tar: {error}") from error


def packing(file: BinaryIO) -> Packed:
    """How an archive is packed, by its first bytes; the file is left at its start."""
    head = file.read(4)
    file.seek(0)
    if head[:2] == b"\x1f\x8b":
        return "tar+gzip"
    return "tar+zstd" if head == b"\x28\xb5\x2f\xfd" else "tar"


def _extract(file: BinaryIO, packed: Packed, folder: Path, limits: Limits, most: int) -> Iterator[str]:
    written = count = 0
    late: list[tuple[str, str]] = []
    with opened(file, packed, most) as archive:
        for member in archive:
            count += 1
            if count > limits.entries:
                raise UnsafeContent(f"the archive has more than {limits.entries} entries")
            if member.isdir() and posixpath.normpath(member.name) == ".":
                continue
            name = contained(member.name, "the archive")
            if member.isdir():
                _folder(folder, name)
            elif member.islnk() or member.issym():
                late.append((name, _link_target(member, name)))
            elif member.isreg():
                written += member.size
                if written > most:
                    raise UnsafeContent(f"the archive swells to more than {most} bytes")
                content = archive.extractfile(member)
                if content is None:
                    raise ArtifactError(f"{name} in the archive has no content")
                _write(folder, name, content, member.size)
                yield name
            else:
                raise UnsafeContent(f"{name} in the archive is a device, a pipe or something else that is no file")
    for name, target in late:
        _link(folder, name, target)
        yield name


class _Header(tarfile.TarInfo):
    """A tar header that refuses what tarfile takes in silence: damaged ones in the middle, and huge extensions."""

    @classmethod
    def fromtarfile(cls, tarfile: tarfile.TarFile) -> _Header:
        try:
            return super().fromtarfile(tarfile)
        except (_INVALID, _TRUNCATED) as error:
            raise ArtifactError(f"the archive has a damaged header: {error}") from error

    def _proc_member(self, tarfile: tarfile.TarFile) -> Any:
        if self.size < 0:
            raise UnsafeContent(f"{self.name} in the archive has the size {self.size}")
        if self.type in _EXTENDED and self.size > _MAX_HEADER:
            raise UnsafeContent(f"the archive has an extended header of {self.size} bytes")
        return super()._proc_member(tarfile)  # type: ignore[misc]


_INVALID: type[Exception] = getattr(tarfile, "InvalidHeaderError")  # noqa: B009 - not in the stubs
_TRUNCATED: type[Exception] = getattr(tarfile, "TruncatedHeaderError")  # noqa: B009


class _Bounded:
    """A stream that ends in UnsafeContent after ``most`` bytes, with room for the archive's own headers."""

    def __init__(self, stream: Any, most: int) -> None:
        self._stream = stream
        self._left = most + most // 8 + (64 << 20)

    def read(self, size: int) -> bytes:
        data: bytes = self._stream.read(size)
        self._left -= len(data)
        if self._left < 0:
            raise UnsafeContent("the archive swells far beyond its packed size")
        return data


def _link_target(member: tarfile.TarInfo, name: str) -> str:
    """The file of this archive that a link means. A symbolic link starts at its own folder, a hard one at the top."""
    target = member.linkname
    if target.startswith("/"):
        raise UnsafeContent(f"{name} in the archive links to {target!r}, outside the archive")
    if member.issym():
        target = posixpath.normpath(posixpath.join(posixpath.dirname(name), target))
    if target == ".." or target.startswith("../"):
        raise UnsafeContent(f"{name} in the archive links to {member.linkname!r}, outside the archive")
    return contained(target, f"the link {name}")


def _link(folder: Path, name: str, target: str) -> None:
    source, place = folder / target, folder / name
    if not source.is_file():
        raise UnsafeContent(f"{name} in the archive links to {target!r}, which is no file of the archive")
    _folder(folder, posixpath.dirname(name))
    try:
        os.link(source, place)
    except FileExistsError:
        raise UnsafeContent(f"the archive holds {name} twice") from None
    except OSError as error:
        raise full(error, place) from error


def _folder(folder: Path, name: str) -> None:
    try:
        (folder / name).mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise UnsafeContent(f"the archive holds {name} as a file and as a folder") from None


def _write(folder: Path, name: str, content: Any, size: int) -> None:
    place = folder / name
    _folder(folder, posixpath.dirname(name))
    try:
        with place.open("xb") as file:
            left = size
            while left:
                data = content.read(min(left, _BLOCK))
                if not data:
                    raise TruncatedContent(f"{name} in the archive is cut short by {left} bytes")
                file.write(data)
                left -= len(data)
    except FileExistsError:
        raise UnsafeContent(f"the archive holds {name} twice") from None
    except (IsADirectoryError, NotADirectoryError):
        raise UnsafeContent(f"the archive holds {name} as a file and as a folder") from None
    except OSError as error:
        raise full(error, place) from error
