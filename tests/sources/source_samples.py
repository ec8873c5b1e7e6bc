"""Small files that are models by their headers, and wheels that carry them."""

from __future__ import annotations

import base64
import hashlib
import json
import random
import struct
import zipfile
from pathlib import Path

from dockyard.artifact.manifest import Artifact, read_artifact
from dockyard.artifact.store import Entry, Store

LICENCE = b"Apache License\nVersion 2.0\n"


def gguf(name: str = "tiny", size: int = 1000, split: tuple[int, int] | None = None) -> bytes:
    """A header, and noise where tensors would be; ``split`` is a shard's number and how many there are."""

    def text(value: str) -> bytes:
        return struct.pack("<Q", len(value)) + value.encode()

    fields = {"general.architecture": "llama", "general.name": name}
    shard = {"split.no": split[0], "split.count": split[1]} if split else {}
    head = b"GGUF" + struct.pack("<IQQ", 3, 0, len(fields) + len(shard))
    for key, value in fields.items():
        head += text(key) + struct.pack("<I", 8) + text(value)
    for key, number in shard.items():
        head += text(key) + struct.pack("<IH", 2, number)
    return head + bytes(-len(head) % 32) + random.Random(name).randbytes(size)


def safetensors(size: int = 4000) -> bytes:
    header = json.dumps({"w": {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}}).encode()
    return struct.pack("<Q", len(header)) + header + random.Random(size).randbytes(size)


CONFIG = json.dumps({"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 8}).encode()


def wheel(folder: Path, project: str, version: str, files: dict[str, bytes]) -> Path:
    """A wheel that pip accepts, with these files in it and nothing to run."""
    stem = f"{project.replace('-', '_')}-{version}"
    info = f"{stem}.dist-info"
    content = {
        **files,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {project}\nVersion: {version}\n".encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/LICENSE": LICENCE,
    }
    rows = []
    for name, data in content.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
        rows.append(f"{name},sha256={digest},{len(data)}")
    content[f"{info}/RECORD"] = "\n".join([*rows, f"{info}/RECORD,,"]).encode()
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{stem}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in content.items():
            archive.writestr(name, data)
    return path


def read(store: Store, entry: Entry) -> tuple[Artifact, dict[str, bytes]]:
    """An artifact, and its files by path."""
    artifact = read_artifact(store, entry.descriptor.digest)
    return artifact, {layer.path: store.blob_path(layer.descriptor.digest).read_bytes() for layer in artifact.layers}
