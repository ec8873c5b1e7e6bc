"""Packaging: files, folders and changes of an existing artifact become an artifact.

``package`` is the door: it looks at what it is given, takes the files into the store as blobs, and runs the operation.
Layers of the artifact that is changed are shared, not copied.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from dockyard.artifact import defaults, media
from dockyard.artifact.formats import expand, refuse_pickles
from dockyard.artifact.formats.gguf import SHARD, complete, metadata
from dockyard.artifact.manifest import Artifact, read_artifact
from dockyard.artifact.materialize import lay_out
from dockyard.artifact.packing import facts_of, pack_files
from dockyard.artifact.safety import contained
from dockyard.artifact.store import Entry, Store
from dockyard.artifact.writers import About, Parent, Spec
from dockyard.errors import InvalidRequest, NotFound, UnsafeContent
from dockyard.ops import Done, Inputs, Job, Params, execute
from dockyard.types import Defaults, OnProgress, Reference

ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors", "README.md")


class PackParams(Params, frozen=True):
    """How to package."""

    format: Annotated[
        Literal["modelpack", "docker-v0.1", "docker-v0.2"], Meta(description="The packaging to write.")
    ] = "modelpack"
    context: Annotated[
        Annotated[int, Meta(ge=1, le=1 << 30)] | None,
        Meta(description="Window in tokens to serve with; the trained one stays as it is."),
    ] = None
    name: Annotated[str | None, Meta(description="What the model is called; else its own name.")] = None
    description: Annotated[str | None, Meta(description="A sentence on what it is.")] = None
    defaults: Annotated[
        Defaults | None, Meta(description="System prompt, first turns and sampling of requests that state none.")
    ] = None


class Sources(msgspec.Struct, frozen=True, kw_only=True):
    """Files to package: a model's ``weights`` (files or its folder) and what goes with them."""

    weights: tuple[Path, ...] = ()
    licences: tuple[Path, ...] = ()
    chat_template: Path | None = None
    projector: Path | None = None
    adapters: tuple[Path, ...] = ()


class Packer:
    """The operation. Files come as blobs; an artifact in the role "base" gives its layers, which files replace."""

    name = "package"
    version = "1"
    params = PackParams

    def run(self, job: Job, params: PackParams) -> Entry:
        files: dict[str, Path] = {}
        roles: dict[str, media.Role] = {}
        about, spec, context, kept = About(), Spec(), params.context, params.defaults
        for parent in job.inputs.artifacts:
            base = read_artifact(job.store, parent.digest)
            files, roles = _layers(job.store, base)
            about, spec = base.about, base.spec
            context = params.context or base.context
            kept = defaults.merged(defaults.read(base.manifest.annotations), params.defaults)
            if "template" in map(media.role_of_path, job.inputs.files):
                files = {path: file for path, file in files.items() if roles[path] != "template"}
        for path, digest in job.inputs.files.items():
            files[path] = job.store.blob_path(digest)
            roles[path] = media.role_of_path(path)
        changes = {key: value for key in ("name", "description") if (value := getattr(params, key)) is not None}
        if params.format != "modelpack":
            spec = msgspec.structs.replace(spec, headers=_headers(files))
        return pack_files(
            job.store,
            files,
            reference=job.reference,
            packaging=params.format,
            roles=roles,
            about=msgspec.structs.replace(about, **changes),
            spec=spec,
            context=context,
            lineage=job.lineage,
            annotations={**job.annotations, **_annotated(kept)},
            on_progress=job.on_progress,
        )


PLUGIN = Packer()


def package(
    store: Store,
    sources: Sources,
    params: PackParams | None = None,
    *,
    base: str | None = None,
    reference: Reference | None = None,
    link: bool = False,
    on_progress: OnProgress | None = None,
) -> Done:
    """Make an artifact of ``sources``, or of the artifact ``base`` with ``sources`` added, and name it ``reference``.

    The same files, base and params give the same manifest, byte for byte. ``link`` lets the store share the files,
    which nobody may write to afterwards. Raises NotFound for a path that is not there, UnsafeContent for pickles,
    UnsupportedFormat where no weights are known, ModelNotFound for ``base``; nothing is then left in the store.
    """
    params = params or PackParams()
    files = _collect(sources, alone=base is None)
    if base is None and not sources.weights:
        raise InvalidRequest(
            "there is nothing to package", hint="name a model's file or folder, or an artifact to change"
        )
    if base is None:
        facts_of(files)  # refuses what is no model before anything is copied
    with store.lease():
        parents = (Parent(digest=store.resolve(base).digest, role="base"),) if base is not None else ()
        blobs = {path: store.add_file(file, link=link, on_progress=on_progress).digest for path, file in files.items()}
        inputs = Inputs(artifacts=parents, files=blobs)
        return execute(store, PLUGIN, inputs, params, reference=reference, on_progress=on_progress)


def _collect(sources: Sources, *, alone: bool) -> dict[str, Path]:
    """Every file by the path that it gets inside the artifact. Raises InvalidRequest where two want the same."""
    found: dict[str, Path] = {}

    def take(path: str, file: Path) -> None:
        path = contained(path)
        if path in found and found[path].resolve() != file.resolve():
            raise InvalidRequest(
                f"{found[path]} and {file} would both be {path} in the artifact",
                param=str(file),
                hint="put one of them into a folder of its own, or package them apart",
            )
        found[path] = file

    for source in sources.weights:
        for path, file in _named(source).items():
            take(path, file)
    for number, source in enumerate(sources.licences):
        name = _file(source).name
        take(name if media.role_of_path(name) == "licence" else f"LICENSE{f'-{number + 1}' * bool(number)}", source)
    if sources.chat_template is not None:
        found = {path: file for path, file in found.items() if media.role_of_path(path) != "template"}
        take("chat_template.jinja", _file(sources.chat_template))
    if sources.projector is not None:
        name = _file(sources.projector).name
        take(name if media.role_of_path(name) == "projector" else f"mmproj-{name}", sources.projector)
    for source in sources.adapters:
        for path, file in _adapter(source).items():
            take(path, file)
    _refuse_pickles(found, alone)
    return found


def _named(source: Path) -> dict[str, Path]:
    """A folder's files by their path in it; a file by its name, with the other shards where it is one of several."""
    files = expand([source])
    if source.is_dir():
        if not files:
            raise NotFound(f"{source}: an empty folder", param=str(source))
        return {file.relative_to(source).as_posix(): file for file in files}
    return {file.name: file for file in (complete(files) if SHARD.fullmatch(source.name) else files)}


def _adapter(source: Path) -> dict[str, Path]:
    """A PEFT adapter goes into a folder of its name, since all have the same file names; a GGUF one lies at the top."""
    expand([source])
    if source.is_dir() or source.name == "adapter_model.safetensors":
        folder = source if source.is_dir() else source.parent
        name = folder.resolve().name
        present = {f"adapters/{name}/{file}": folder / file for file in ADAPTER_FILES if (folder / file).is_file()}
        if f"adapters/{name}/adapter_model.safetensors" not in present:
            refuse_pickles(expand([folder]))
            raise NotFound(
                f"{folder}: no adapter_model.safetensors", param=str(source), hint="name a PEFT adapter's folder"
            )
        return present
    name = source.name if media.role_of_path(source.name) == "adapter" else f"lora-{source.name}"
    return {name: source}


def _file(path: Path) -> Path:
    if not path.is_file():
        raise NotFound(f"{path}: there is no such file", param=str(path))
    return path


def _refuse_pickles(files: Mapping[str, Path], alone: bool) -> None:
    try:
        refuse_pickles(list(files.values()))
    except UnsafeContent as error:
        if alone and len(files) > 1:
            error.hint = f"{error.hint}: name the files to package instead of their folder"
        raise


def _layers(store: Store, base: Artifact) -> tuple[dict[str, Path], dict[str, media.Role]]:
    """The files of an artifact: its blobs themselves, or what is in them where they are archives."""
    if any(layer.packed for layer in base.layers):
        directory, laid = lay_out(store, base)
        return {each.path: directory / each.path for each in laid}, {each.path: each.role for each in laid}
    blobs = {layer.path: store.blob_path(layer.descriptor.digest) for layer in base.layers}
    return blobs, {layer.path: layer.role for layer in base.layers}


def _annotated(kept: Defaults | None) -> dict[str, str]:
    return {media.DEFAULTS: msgspec.json.encode(kept, order="sorted").decode()} if kept is not None else {}


def _headers(files: Mapping[str, Path]) -> dict[str, str]:
    """What a GGUF says of itself, for Docker's config; nothing for other formats."""
    first = next(
        (path for path in sorted(files) if media.role_of_path(path) == "weight" and path.endswith(".gguf")), None
    )
    return metadata(files[first]) if first else {}
