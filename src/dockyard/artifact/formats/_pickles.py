"""Files that run code when they are loaded are recognised, never opened as what they are."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from dockyard.artifact import safety
from dockyard.errors import UnsafeContent

_SUFFIXES = frozenset({".pkl", ".pickle", ".pt", ".pth", ".ckpt", ".joblib", ".dill", ".cloudpickle"})
_NAMES = re.compile(r"(pytorch_model|adapter_model|training_args|optimizer|scheduler|consolidated|rng_state).*\.bin")
_HEAD = 1024


def is_pickle(path: Path) -> bool:
    """True for a pickle by its name, or by its first bytes where the name could hide one (``.bin`` or no suffix)."""
    suffix = path.suffix.lower()
    if suffix in _SUFFIXES or _NAMES.fullmatch(path.name.lower()):
        return True
    if suffix not in ("", ".bin", ".model", ".data") or not path.is_file():
        return False
    if suffix == ".bin" and path.with_suffix(".xml").is_file():
        return False  # weights of an OpenVINO IR: raw numbers, which may begin with any bytes
    with path.open("rb") as file:
        head = file.read(_HEAD)
    if head.startswith(b"PK\x03\x04"):  # torch.save: a zip whose first entry is the pickle
        return b"data.pkl" in head
    return safety.is_pickle("weights.bin", head)


def refuse_pickles(files: Sequence[Path]) -> None:
    """Raise UnsafeContent that names every pickle among ``files``."""
    found = [str(path) for path in files if is_pickle(path)]
    if found:
        raise UnsafeContent(
            f"{', '.join(found[:5])}{' and more' * (len(found) > 5)}: a pickle, which runs code when it is loaded",
            param=found[0],
            hint="convert the weights to safetensors or GGUF, and leave the pickle out",
        )
