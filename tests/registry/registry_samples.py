"""Artifacts for tests of transfers: real manifests over random bytes, small or large."""

from __future__ import annotations

import hashlib
import random
import struct

from dockyard.artifact.manifest import Content, Pack, modelpack
from dockyard.artifact.reference import parse
from dockyard.artifact.registry.memory import MemoryRegistry
from dockyard.artifact.registry.transport import Policy
from dockyard.artifact.store import Store
from dockyard.types import Descriptor

QUICK = Policy(base=0.01, cap=0.05, connect=2.0, read=5.0, longest_retry_after=0.5)


def noise(size: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(size)


def digest_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def keep(store: Store, name: str, *layers: bytes, subject: Descriptor | None = None, **pack: object) -> Descriptor:
    """An artifact with these layers in the store, under ``name``."""
    contents = []
    for number, layer in enumerate(layers):
        kept = store.add_bytes(layer)
        contents.append(Content(digest=kept.digest, size=kept.size, path=f"layer-{number}.gguf", role="weight"))
    manifest, config = modelpack(Pack(contents=tuple(contents), subject=subject, **pack))  # type: ignore[arg-type]
    store.add_bytes(config)
    return store.put_manifest(manifest, reference=parse(name) if name else None)


def publish(registry: MemoryRegistry, repository: str, tag: str, *layers: bytes) -> str:
    """The same straight into an in-memory registry; returns the manifest's digest."""
    contents = []
    for number, layer in enumerate(layers):
        digest = registry.add_blob(repository, layer)
        contents.append(Content(digest=digest, size=len(layer), path=f"layer-{number}.gguf", role="weight"))
    manifest, config = modelpack(Pack(contents=tuple(contents)))
    registry.add_blob(repository, config)
    return registry.add_manifest(repository, manifest, tag=tag)


def tiny_gguf(name: str = "tiny", size: int = 1000) -> bytes:
    """The smallest file that is a GGUF: a header, and noise where tensors would be."""

    def text(value: str) -> bytes:
        return struct.pack("<Q", len(value)) + value.encode()

    fields = {"general.architecture": "llama", "general.name": name}
    head = b"GGUF" + struct.pack("<IQQ", 3, 0, len(fields))
    for key, value in fields.items():
        head += text(key) + struct.pack("<I", 8) + text(value)
    return head + bytes(-len(head) % 32) + noise(size, len(name))
