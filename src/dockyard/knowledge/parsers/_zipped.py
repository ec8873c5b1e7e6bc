"""Looks into a ZIP before anybody opens it: Office files are ZIPs, and a small one can unpack to more than a disk."""

from __future__ import annotations

import io
import zipfile

from dockyard.errors import ArtifactError, UnsafeContent
from dockyard.knowledge.parsers import Bounds

MOST_ENTRIES = 20_000
SMALL = 8 << 20
_OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"


def check(data: bytes, what: str, bounds: Bounds) -> None:
    """Raises UnsafeContent for a bomb and for an encrypted file, ArtifactError for what is no such file.

    The sizes that the directory claims bind whoever reads the entries: no reader gets more of one than it says.
    """
    if data.startswith(_OLE):
        raise UnsafeContent(f"the {what} is encrypted, or of the old binary kind", hint="save it without a password")
    try:
        entries = zipfile.ZipFile(io.BytesIO(data)).infolist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        raise ArtifactError(f"the {what} is broken: {error}", hint="open it and save it again") from error
    total = sum(entry.file_size for entry in entries)
    if len(entries) > MOST_ENTRIES or total > bounds.unpacked:
        raise UnsafeContent(f"the {what} would unpack to {total} bytes in {len(entries)} parts: it is not opened")
    for entry in entries:
        if entry.file_size > SMALL and entry.file_size > bounds.ratio * max(entry.compress_size, 1):
            raise UnsafeContent(
                f"the {what} unpacks {entry.compress_size} bytes to {entry.file_size}: it is not opened"
            )
