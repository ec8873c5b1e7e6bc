"""A store to fill with small models."""

from __future__ import annotations

from pathlib import Path

from dockyard.artifact.document import dump
from dockyard.artifact.manifest import About, Content, Lineage, Pack, modelpack
from dockyard.artifact.store import Store
from dockyard.types import Descriptor


class Shelf:
    """A store and how to fill it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = Store(folder / "store")

    def put(
        self,
        name: str | None,
        weights: bytes = b"weights",
        *,
        lineage: Lineage | None = None,
        licences: tuple[str, ...] = ("apache-2.0",),
    ) -> Descriptor:
        """A model of three files under a name."""
        files = {"sub/model.gguf": ("weight", weights), "config.json": ("config", b"{}"), "README.md": ("doc", b"# m")}
        contents = []
        for path, (role, data) in files.items():
            blob = self.store.add_bytes(data)
            contents.append(Content(digest=blob.digest, size=blob.size, path=path, role=role))  # type: ignore[arg-type]
        pack = Pack(contents=tuple(contents), about=About(licenses=licences), lineage=lineage)
        manifest, config = modelpack(pack)
        self.store.add_bytes(config)
        return self.store.put_manifest(manifest, reference=self.store.named(name) if name else None)

    def policy(self, **fields: object) -> Path:
        """A policy file beside the keys."""
        path = self.folder / "policy.yaml"
        path.write_bytes(dump(fields))
        return path

    def flip(self, digest: str) -> None:
        """Change one byte of a blob on disk."""
        path = self.store.blob_path(digest)
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.chmod(0o644)
        path.write_bytes(bytes(data))
