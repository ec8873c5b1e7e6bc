"""Small artifacts for tests."""

from __future__ import annotations

import struct
from collections.abc import Callable

from dockyard.artifact.manifest import Content, Lineage, Pack, Spec, modelpack
from dockyard.artifact.media import role_of_path
from dockyard.artifact.reference import parse
from dockyard.artifact.store import Store
from dockyard.types import Descriptor

Keep = Callable[..., Descriptor]


def package_into(
    store: Store,
    files: dict[str, bytes],
    name: str | None = None,
    *,
    lineage: Lineage | None = None,
    context: int | None = None,
) -> Descriptor:
    contents = []
    for path, data in files.items():
        blob = store.add_bytes(data)
        contents.append(Content(digest=blob.digest, size=blob.size, path=path, role=role_of_path(path)))
    manifest, config = modelpack(
        Pack(contents=tuple(contents), spec=Spec(format="gguf"), lineage=lineage, context=context)
    )
    store.add_bytes(config)
    return store.put_manifest(manifest, reference=parse(name) if name else None)


def tiny_gguf(architecture: str = "llama", **extra: str | int) -> bytes:
    """A GGUF file with metadata and one tensor of four F32 numbers."""

    def text(value: str) -> bytes:
        return struct.pack("<Q", len(value.encode())) + value.encode()

    values: dict[str, str | int] = {"general.architecture": architecture, **extra}
    head = b"GGUF" + struct.pack("<IQQ", 3, 1, len(values))
    for key, value in values.items():
        head += text(key)
        head += struct.pack("<II", 4, value) if isinstance(value, int) else struct.pack("<I", 8) + text(value)
    head += text("token_embd.weight") + struct.pack("<IQIQ", 1, 4, 0, 0)
    return head + bytes(-len(head) % 32) + struct.pack("<4f", 1, 2, 3, 4)
