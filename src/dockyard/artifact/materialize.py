"""A model laid out for an engine: a run directory of hard links to the store's blobs, made once, checked at each use.

    <home>/run/<manifest hex>/files/…       the model's files under the paths that its artifact gives them
    <home>/run/<manifest hex>/complete.json what must be there; a directory that differs is built again
    <home>/run/<manifest hex>/facts.json    what the weights' headers say, so that they are parsed once

It is built aside and renamed into place, under a lock of its own, so many processes may ask for the same model at once.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from filelock import FileLock

from dockyard import __version__
from dockyard.artifact import defaults, media
from dockyard.artifact.manifest import Artifact, Layer, read_artifact
from dockyard.artifact.reference import familiar
from dockyard.artifact.safety import is_pickle, refuse_pickle
from dockyard.artifact.unpack import unpack
from dockyard.errors import ArtifactError, UnsafeContent, UnsupportedFormat
from dockyard.types import ModelFacts, ModelFiles, Reference

if TYPE_CHECKING:
    from dockyard.artifact.store import Store

READER = f"{__version__}/1"
"""Who read the facts; count up when ``formats`` learns to say more between two versions."""

MAX_TEMPLATE = 1 << 20
_SHARD = re.compile(r"(.*)-(\d{5})-of-(\d{5})\.gguf", re.IGNORECASE)
_XML_FIRST = ("openvino_model.xml", "openvino_language_model.xml", "openvino_decoder_model.xml")


class Laid(msgspec.Struct, frozen=True):
    """One file of a run directory: its path, what it is for, and how to see that it is still the same. ``mtime`` is 0
    for a link to a blob, whose time the store changes."""

    path: str
    role: media.Role
    size: int
    inode: int
    mtime: int = 0


class Noted(msgspec.Struct, frozen=True):
    """Facts that were read from these weights by that reader."""

    reader: str
    weights: tuple[str, ...]
    facts: ModelFacts


def model_files(store: Store, name: str | Reference, *, only_look: bool = False) -> ModelFiles:
    """Lay the model out, if it is not yet, and say where its parts are.

    Raises ModelNotFound, ArtifactError for blobs that are missing, UnsafeContent for pickles and paths that escape,
    UnsupportedFormat for an artifact without weights that any engine knows, and Untrusted for one that does not satisfy
    the store's policy: that is for whoever will load it, not for who will ``only_look``.
    """
    found = store.resolve(name)
    if store.policy is not None and not only_look:
        from dockyard.artifact.proof.policy import enforce

        enforce(store, found.digest, store.policy, what=str(name))
    artifact = read_artifact(store, found.digest)
    directory, laid = lay_out(store, artifact)
    weights = _weights(laid)
    adapters = [each for each in laid if each.role == "adapter" and each.path not in weights]
    projectors = sorted((each.path for each in laid if each.role == "projector"), key=_projector_rank)
    facts = _facts(directory, weights)
    names = store.names(found.digest)
    told = str(name) if isinstance(name, Reference) else (familiar(names[0]) if names else name)
    return ModelFiles(
        reference=told,
        digest=artifact.digest,
        directory=str(directory),
        format=facts.format,
        weights=tuple(str(directory / path) for path in weights),
        facts=facts,
        projector=str(directory / projectors[0]) if projectors else None,
        adapters=tuple(str(directory / each.path) for each in adapters if not each.path.endswith(".json")),
        chat_template=_template(directory, laid),
        context=artifact.context,
        defaults=defaults.read(artifact.manifest.annotations),
    )


def lay_out(store: Store, artifact: Artifact) -> tuple[Path, tuple[Laid, ...]]:
    """The run directory of an artifact and what is in it; built if it is missing, incomplete or changed."""
    home = store.run_root / artifact.digest.split(":")[1]
    laid = _intact(home)
    if laid is None:
        store.run_root.mkdir(parents=True, exist_ok=True)
        with FileLock(str(home.with_suffix(".lock"))).acquire(poll_interval=0.05):
            laid = _intact(home)
            if laid is None:
                laid = _build(store, artifact, home)
    return home / "files", laid


def _build(store: Store, artifact: Artifact, home: Path) -> tuple[Laid, ...]:
    aside = store.run_root / f".building-{uuid.uuid4().hex}"
    files = aside / "files"
    files.mkdir(parents=True)
    try:
        laid: list[Laid] = []
        for layer in artifact.layers:
            laid.extend(_place(store, layer, files))
        if not laid:
            raise UnsupportedFormat("the artifact holds no files")
        (aside / "complete.json").write_bytes(msgspec.json.encode(laid))
        if home.exists():
            broken = store.run_root / f".building-{uuid.uuid4().hex}"
            home.replace(broken)
            shutil.rmtree(broken, ignore_errors=True)
        aside.replace(home)
        return tuple(laid)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _place(store: Store, layer: Layer, files: Path) -> list[Laid]:
    """Put one layer's files in place. Pickles among the weights are refused; other pickles are left out."""
    blob = store.blob_path(layer.descriptor.digest)
    if not store.has(layer.descriptor.digest, layer.descriptor.size):
        raise ArtifactError(
            f"{layer.path} is missing from the store or has the wrong size ({layer.descriptor.digest})",
            hint="`dockyard pull` the model again",
        )
    if layer.packed:
        done = []
        for path in unpack(blob, layer.packed, files):
            role = media.role_of_path(path) if layer.role in ("weight", "config", "adapter") else layer.role
            if _admitted(files / path, path, role):
                state = (files / path).stat()
                done.append(Laid(path, role, state.st_size, state.st_ino, state.st_mtime_ns))
            else:
                (files / path).unlink()
        return done
    if not _admitted(blob, layer.path, layer.role):
        return []
    place = files / layer.path
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        if place.exists():
            raise FileExistsError
    except (FileExistsError, NotADirectoryError):
        raise UnsafeContent(f"two layers both hold {layer.path}, or one holds it as a folder") from None
    try:
        place.hardlink_to(blob)
        mtime = 0
    except OSError:
        shutil.copyfile(blob, place)
        mtime = place.stat().st_mtime_ns
    state = place.stat()
    return [Laid(layer.path, layer.role, state.st_size, state.st_ino, mtime)]


def _admitted(file: Path, path: str, role: media.Role) -> bool:
    """Whether a file may lie in a run directory."""
    if role in ("weight", "adapter", "projector"):
        refuse_pickle(file, path)
        return True
    with file.open("rb") as opened:
        return not is_pickle(path, opened.read(256))


def _intact(home: Path) -> tuple[Laid, ...] | None:
    """What a run directory holds, if that is all that it should."""
    try:
        laid = msgspec.json.decode((home / "complete.json").read_bytes(), type=tuple[Laid, ...])
        for each in laid:
            state = (home / "files" / each.path).lstat()
            if state.st_size != each.size or state.st_ino != each.inode or each.mtime not in (0, state.st_mtime_ns):
                return None
    except (OSError, msgspec.DecodeError):
        return None
    return laid


def _facts(files: Path, weights: tuple[str, ...]) -> ModelFacts:
    """The headers' facts, from the note of an earlier reading if it was of these files and by this reader."""
    note = files.parent / "facts.json"
    try:
        noted = msgspec.json.decode(note.read_bytes(), type=Noted)
        if noted.reader == READER and noted.weights == weights:
            return noted.facts
    except (OSError, msgspec.DecodeError):
        pass
    from dockyard.artifact.formats import read_facts

    facts = read_facts([files / path for path in weights])
    part = note.with_name(f"facts.{uuid.uuid4().hex}.part")
    with contextlib.suppress(OSError):  # a note that can't be kept only costs the next reading
        part.write_bytes(msgspec.json.encode(Noted(READER, weights, facts)))
        part.replace(note)
    return facts


def _weights(laid: Iterable[Laid]) -> tuple[str, ...]:
    """The files that an engine opens, first shard first; of several formats the one that most engines run."""
    laid = tuple(laid)
    weights = [each.path for each in laid if each.role == "weight"]
    ggufs = [path for path in weights if path.lower().endswith(".gguf")]
    if ggufs:
        return _shards(ggufs)
    everything = {each.path for each in laid}
    irs = [path for path in everything if path.endswith(".xml") and f"{path[:-4]}.bin" in everything]
    if irs:
        return tuple(sorted(irs, key=_xml_rank))
    for suffix in (".safetensors", ".onnx", ".dduf"):
        found = sorted(path for path in weights if path.lower().endswith(suffix))
        if found:
            return tuple(found)
    adapters = sorted(e.path for e in laid if e.role == "adapter" and e.path.endswith((".safetensors", ".gguf")))
    if adapters:
        return tuple(adapters)
    held = ", ".join(sorted(everything)[:8])
    raise UnsupportedFormat(
        f"the artifact holds no weights that an engine can read, only {held}",
        hint="GGUF, safetensors, ONNX and OpenVINO IR are read",
    )


def _shards(paths: list[str]) -> tuple[str, ...]:
    """All parts of the first model among GGUF files. A part that is missing is an ArtifactError."""
    first = _SHARD.fullmatch(paths[0])
    if not first:
        return (paths[0],)
    parts = {}
    for path in paths:
        found = _SHARD.fullmatch(path)
        if found and (found[1], found[3]) == (first[1], first[3]):
            parts[int(found[2])] = path
    missing = [number for number in range(1, int(first[3]) + 1) if number not in parts]
    if missing:
        raise ArtifactError(f"part {missing[0]} of {int(first[3])} of {paths[0]} is missing from the artifact")
    return tuple(parts[number] for number in sorted(parts))


def _xml_rank(path: str) -> tuple[int, int, str]:
    name = os.path.basename(path)  # noqa: PTH119 - a path inside an artifact, not on this machine
    place = _XML_FIRST.index(name) if name in _XML_FIRST else len(_XML_FIRST)
    return place, "token" in name, path


def _projector_rank(path: str) -> tuple[bool, str]:
    """F16 first: the precision that projectors are published and tested in."""
    return "f16" not in path.lower().replace("bf16", ""), path


def _template(directory: Path, laid: Iterable[Laid]) -> str | None:
    """The chat template's text, where the artifact brings one as a file."""
    found = sorted(each.path for each in laid if each.role == "template" and each.size <= MAX_TEMPLATE)
    found.sort(key=lambda path: not path.endswith("chat_template.jinja"))
    if not found:
        return None
    try:
        return (directory / found[0]).read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise ArtifactError(f"the chat template {found[0]} is not UTF-8 text") from None
