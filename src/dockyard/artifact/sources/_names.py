"""What the names of model files tell: shards, quantisation, and what belongs together. Pure."""

from __future__ import annotations

import re

_SHARD = re.compile(r"(.+)-(\d{5})-of-(\d{5})")
_QUANT = re.compile(
    r"(?:^|[-_./])((?:UD-)?(?:I?Q\d+(?:_[A-Z0-9]+)*|TQ\d_\d|MXFP\d(?:_[A-Z0-9]+)*|BF16|FP?16|FP?32))$", re.IGNORECASE
)


def shard_of(stem: str) -> tuple[str, int, int]:
    """(what the shards share, number, count) of a name without its suffix; number and count 0 if it is no shard."""
    found = _SHARD.fullmatch(stem)
    if not found or not 0 < int(found[2]) <= int(found[3]):
        return stem, 0, 0
    return found[1], int(found[2]), int(found[3])


def quantization(path: str) -> str | None:
    """The quantisation that a GGUF's name or folder says, in capitals: "Q4_K_M" of ``Model-Q4_K_M-00001-of-2.gguf``."""
    folder, _, name = path.rpartition("/")
    stem = shard_of(name.removesuffix(".gguf").removesuffix(".GGUF"))[0]
    for text in (stem, folder):
        found = _QUANT.search(text)
        if found:
            return found[1].upper()
    return None


def choose_gguf(paths: list[str], wanted: str | None) -> list[str]:
    """All shards of the variant ``wanted`` ("Q8_0", any case, or a file's name); default Q4_K_M, else the first.

    ``paths`` may hold other files. Returns [] where nothing fits.
    """
    groups = gguf_groups(paths)
    if wanted is None:
        groups_by_quant = {quantization(name): files for name, files in reversed(list(groups.items()))}
        return groups_by_quant.get("Q4_K_M") or next(iter(groups.values()), [])
    asked = wanted.upper()
    for name, files in groups.items():
        stem = name.rpartition("/")[2].upper()
        if asked in (quantization(name), stem, stem.removesuffix(".GGUF")):
            return files
    return []


def gguf_groups(paths: list[str]) -> dict[str, list[str]]:
    """GGUF files (no projectors) by model: each single file, and the shards of one in order; complete ones only."""
    groups: dict[str, list[str]] = {}
    counts: dict[str, int] = {}
    for path in sorted(paths):
        folder, slash, name = path.rpartition("/")
        if not name.lower().endswith(".gguf") or "mmproj" in name.lower():
            continue
        stem, number, count = shard_of(name[:-5])
        key = f"{folder}{slash}{stem}.gguf" if number else path
        groups.setdefault(key, []).append(path)
        counts[key] = count or 1
    return {key: files for key, files in groups.items() if len(files) == counts[key]}


def choose_projector(paths: list[str]) -> str | None:
    """The multimodal projector to take: F16 where there is one."""
    found = sorted(path for path in paths if path.lower().endswith(".gguf") and "mmproj" in path.lower())
    rank = {"F16": 0, "FP16": 0, "BF16": 1, "Q8_0": 2}
    return min(found, key=lambda path: (rank.get(_projector_type(path), 3), path), default=None)


def _projector_type(path: str) -> str:
    said = quantization(path)
    if said:
        return said
    found = re.search(r"(?:^|[-_.])(bf16|fp?16|q8_0)(?=[-_.])", path.rpartition("/")[2].lower())
    return found[1].upper() if found else ""
