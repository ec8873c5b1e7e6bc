"""Archives that try to escape, to swell or to confuse, and honest ones."""

from __future__ import annotations

import gzip
import io
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from dockyard.artifact.media import Packed
from dockyard.artifact.safety import contained, is_pickle
from dockyard.artifact.unpack import Limits, unpack
from dockyard.errors import ArtifactError, TruncatedContent, UnsafeContent

Entry = tuple[str, bytes | str | None, bytes]
Unpack = Callable[..., list[str]]
FILE, FOLDER, LINK, SYMLINK = tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.LNKTYPE, tarfile.SYMTYPE


def tar(*entries: Entry, kind: int = tarfile.PAX_FORMAT) -> bytes:
    """A tar of (name, content or link target, type)."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=kind) as archive:
        for name, content, what in entries:
            member = tarfile.TarInfo(name)
            member.type = what
            if isinstance(content, bytes):
                member.size = len(content)
            elif content is not None:
                member.linkname = content
            archive.addfile(member, io.BytesIO(content) if isinstance(content, bytes) else None)
    return out.getvalue()


@pytest.fixture
def opened(tmp_path: Path) -> Unpack:
    """Unpack bytes into ``tmp_path/out``; whatever happens, nothing may appear beside it."""

    def run(data: bytes, packed: Packed = "tar", limits: Limits | None = None) -> list[str]:
        source, out = tmp_path / "layer", tmp_path / "out"
        source.write_bytes(data)
        out.mkdir(exist_ok=True)
        try:
            return unpack(source, packed, out, limits=limits)
        finally:
            assert {path.name for path in tmp_path.iterdir()} == {"layer", "out"}
            assert not any(path.is_symlink() for path in out.rglob("*"))

    return run


@pytest.mark.parametrize("packed", ["tar", "tar+gzip", "tar+zstd"])
@pytest.mark.parametrize("kind", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
def test_an_honest_archive_is_unpacked(opened: Unpack, tmp_path: Path, packed: Packed, kind: int) -> None:
    long = "long/" + "n" * 80 + "/model.gguf"
    data = tar(
        (".", None, FOLDER), ("./a", None, FOLDER), ("./a/b.txt", b"hi", FILE), (long, b"w" * 99, FILE), kind=kind
    )
    if packed == "tar+gzip":
        data = gzip.compress(data[:700]) + gzip.compress(data[700:])
    if packed == "tar+zstd":
        data = zstandard.compress(data[:700]) + zstandard.compress(data[700:])
    assert opened(data, packed) == ["a/b.txt", long]
    assert (tmp_path / "out" / "a" / "b.txt").read_bytes() == b"hi"
    assert (tmp_path / "out" / long).stat().st_size == 99


@pytest.mark.parametrize(
    "name", ["../evil", "/evil", "a/../../evil", "..", "C:/evil", "a\\..\\evil", "~/evil", "a/" * 40 + "x", "n" * 300]
)
@pytest.mark.parametrize("what", [FILE, FOLDER, LINK, SYMLINK])
def test_a_name_that_leaves_the_folder_is_refused(opened: Unpack, name: str, what: bytes) -> None:
    content = b"x" if what == FILE else ("ok" if what in (LINK, SYMLINK) else None)
    with pytest.raises(UnsafeContent):
        opened(tar(("ok", b"x", FILE), (name, content, what)))


@pytest.mark.parametrize("target", ["/etc/passwd", "../../etc/passwd", "..", ".", "missing", "folder"])
@pytest.mark.parametrize("what", [LINK, SYMLINK])
def test_a_link_that_means_no_file_of_the_archive_is_refused(opened: Unpack, target: str, what: bytes) -> None:
    with pytest.raises(UnsafeContent):
        opened(tar(("folder", None, FOLDER), ("folder/link", target, what)))


def test_writing_through_a_link_is_refused(opened: Unpack) -> None:
    with pytest.raises(UnsafeContent):
        opened(tar(("door", "/tmp", SYMLINK), ("door/evil", b"x", FILE)))
    with pytest.raises(UnsafeContent):
        opened(tar(("file", b"x", FILE), ("file/evil", b"x", FILE)))


def test_a_link_to_a_file_of_the_archive_becomes_that_file(opened: Unpack, tmp_path: Path) -> None:
    names = opened(tar(("a/soft", "../b/real", SYMLINK), ("b/real", b"weights", FILE), ("a/hard", "b/real", LINK)))
    assert names == ["b/real", "a/soft", "a/hard"]
    assert {(tmp_path / "out" / name).read_bytes() for name in names} == {b"weights"}


@pytest.mark.parametrize("what", [tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE, b"Z"])
def test_devices_and_pipes_are_refused(opened: Unpack, what: bytes) -> None:
    with pytest.raises(UnsafeContent, match="device"):
        opened(tar(("x", None, what)))


def test_two_files_of_one_name_are_refused(opened: Unpack) -> None:
    with pytest.raises(UnsafeContent, match="twice"):
        opened(tar(("a", b"1", FILE), ("./a", b"2", FILE)))
    with pytest.raises(UnsafeContent, match=r"as a file and as a folder|twice"):
        opened(tar(("b/c", b"1", FILE), ("b", b"2", FILE)))


@pytest.mark.parametrize("packed", ["tar+gzip", "tar+zstd"])
def test_a_bomb_is_refused(opened: Unpack, packed: Packed, tmp_path: Path) -> None:
    data = tar(("zeros", bytes(8 << 20), FILE))
    data = gzip.compress(data) if packed == "tar+gzip" else zstandard.compress(data)
    limits = Limits(ratio=10, floor=1 << 20)
    with pytest.raises(UnsafeContent, match="swells"):
        opened(data, packed, limits)
    assert sum(path.stat().st_size for path in (tmp_path / "out").rglob("*")) <= 1 << 20
    with pytest.raises(UnsafeContent, match="3 entries"):
        opened(tar(*((str(number), b"", FILE) for number in range(4))), "tar", Limits(entries=3))


def test_a_sparse_file_can_not_swell(opened: Unpack) -> None:
    member = tarfile.TarInfo("sparse")
    member.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": str(1 << 40)}
    content = b"1\n0\n1\n" + bytes(506) + b"x"
    member.size = len(content)
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        archive.addfile(member, io.BytesIO(content))
    with pytest.raises(UnsafeContent, match="swells"):
        opened(out.getvalue(), "tar", Limits(floor=1 << 20))


def test_a_huge_extended_header_is_refused(opened: Unpack) -> None:
    with pytest.raises(UnsafeContent, match="extended header"):
        opened(tar(("x", bytes(2 << 20), tarfile.GNUTYPE_LONGNAME)))


def test_what_is_cut_short_or_damaged_is_refused(opened: Unpack) -> None:
    data = tar(("a", b"x" * 5000, FILE), ("b", b"y" * 5000, FILE))
    packed = gzip.compress(data, mtime=0)
    with pytest.raises(TruncatedContent):
        opened(packed[: len(packed) // 2], "tar+gzip")
    with pytest.raises(ArtifactError):
        opened(b"not gzip at all", "tar+gzip")
    with pytest.raises(ArtifactError):
        opened(b"not zstd at all", "tar+zstd")
    with pytest.raises(ArtifactError):
        opened(b"not a tar" * 100)


@pytest.mark.parametrize("cut", [600, 3000, 6000, 7000])
def test_a_tar_that_ends_early_is_refused(opened: Unpack, cut: int) -> None:
    with pytest.raises(ArtifactError):
        opened(tar(("a", b"x" * 5000, FILE), ("b", b"y" * 5000, FILE))[:cut])


def test_a_damaged_header_in_the_middle_is_refused(opened: Unpack) -> None:
    data = bytearray(tar(("a", b"x", FILE), ("b", b"y", FILE)))
    data[1024 + 10] ^= 0xFF
    with pytest.raises(ArtifactError, match="damaged header"):
        opened(bytes(data))


awkward = st.lists(st.sampled_from(["..", ".", "", "a", "b.txt", "~", "c:", "\\"]), max_size=6).map("/".join)


@given(st.text(max_size=40) | awkward)
def test_a_contained_path_stays_below_its_folder(path: str) -> None:
    try:
        clean = contained(path)
    except UnsafeContent:
        return
    folder = Path("/a/b/c")
    assert (folder / clean).resolve().is_relative_to(folder)
    assert clean != "."
    assert contained(clean) == clean


@pytest.mark.parametrize(
    ("name", "head", "pickle"),
    [
        ("pytorch_model.bin", b"\x80\x02}q\x00", True),
        ("pytorch_model.bin", b"PK\x03\x04", True),
        ("old.bin", b"ctorch._utils\n_rebuild\n", True),
        ("old.bin", b"(dp0\n", True),
        ("openvino_model.bin", bytes(64), False),
        ("openvino_model.bin", b"\x80\x3f\x00\x00", False),
        ("a.pt", b"", True),
        ("a.PTH", b"GGUF", True),
        ("a.ckpt", b"", True),
        ("a.joblib", b"", True),
        ("a.pkl", b"", True),
        ("a.gguf", b"\x80\x02", False),
        ("a.safetensors", b"PK\x03\x04", False),
    ],
)
def test_pickles_are_told_by_name_and_first_bytes(name: str, head: bytes, pickle: bool) -> None:
    assert is_pickle(name, head) is pickle
