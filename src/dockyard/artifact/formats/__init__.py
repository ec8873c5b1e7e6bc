"""What a model's files say of it, read from their headers: ``detect`` and ``read_facts``.

Each file here reads one format and binds ``PLUGIN`` to a ``FormatReader``. Weights are never loaded, nothing in a file
is executed, and lengths that a file states are checked against its real size before anything is allocated for them.
Pickles are refused by name, whatever else lies beside them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol, cast

from dockyard import plugins
from dockyard.artifact.formats._pickles import is_pickle, refuse_pickles
from dockyard.errors import ArtifactError, NotFound, UnsupportedFormat
from dockyard.types import Format, ModelFacts

__all__ = ["FormatReader", "detect", "expand", "is_pickle", "read_facts", "refuse_pickles", "weight_files"]

MAX_FILES = 10_000


class FormatReader(Protocol):
    """One format. At most one reader claims a file, so the order in which they are asked does not matter."""

    name: Format

    def weights(self, files: Sequence[Path]) -> list[Path]:
        """Those of ``files`` that hold weights in this format, first shard first; may look at a file's first bytes."""
        ...

    def read(self, weights: Sequence[Path], files: Sequence[Path]) -> ModelFacts:
        """The facts in the headers of ``weights`` and in what lies beside them.

        Raises UnsupportedFormat for what is malformed, TruncatedContent for what is cut short.
        """
        ...


def detect(path: Path) -> Format:
    """The format of a file, or of the model in a folder; "unknown" where no reader claims it."""
    found = _claims(expand([path]))
    return found[0][0].name if found else "unknown"


def weight_files(paths: Sequence[Path]) -> tuple[Format, list[Path]]:
    """The format of a model's files and which of them hold its weights, first shard first.

    Where several formats are present the one with the most bytes counts. Folders are searched, hidden files skipped.
    """
    found = _claims(expand(paths))
    return (found[0][0].name, found[0][1]) if found else ("unknown", [])


def read_facts(paths: Sequence[Path]) -> ModelFacts:
    """What the headers of a model's files say; ``paths`` are files, folders or both.

    Raises NotFound for a path that is not there, UnsafeContent for a pickle, UnsupportedFormat where no file is in a
    format that is known here or one is malformed, TruncatedContent where one is cut short.
    """
    files = expand(paths)
    refuse_pickles(files)
    found = _claims(files)
    if not found:
        names = ", ".join(path.name for path in files[:5]) or "nothing"
        raise UnsupportedFormat(
            f"no model weights among the {len(files)} files given ({names})",
            hint="GGUF, safetensors, ONNX, OpenVINO IR and PEFT adapters can be read",
        )
    reader, weights = found[0]
    return reader.read(weights, files)


def expand(paths: Sequence[Path]) -> list[Path]:
    """All files named or inside named folders, sorted within a folder, without hidden files and doubles."""
    found: dict[Path, None] = {}
    for path in paths:
        if not path.exists():
            raise NotFound(f"{path}: there is no such file or folder", param=str(path))
        for file in _walk(path):
            found[file] = None
            if len(found) > MAX_FILES:
                raise ArtifactError(f"{path}: more than {MAX_FILES} files", hint="name the model's own folder")
    return list(found)


def _walk(path: Path) -> Iterator[Path]:
    if not path.is_dir():
        yield path
        return
    for inner in sorted(path.iterdir()):
        if not inner.name.startswith("."):
            yield from _walk(inner) if inner.is_dir() and not inner.is_symlink() else [inner] * inner.is_file()


def _claims(files: Sequence[Path]) -> list[tuple[FormatReader, list[Path]]]:
    """Readers that found weights, the one with the most bytes first."""
    readers = [cast(FormatReader, plugin.load()) for plugin in plugins.find("artifact.formats").values()]
    found = [(reader, weights) for reader in readers if (weights := reader.weights(files))]
    return sorted(found, key=lambda pair: -sum(path.stat().st_size for path in pair[1]))
