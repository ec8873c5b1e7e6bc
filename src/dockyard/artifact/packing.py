"""Files become an artifact in the store: ``pack_files``, which sources and the packaging operation share.

The same files and options give the same manifest, byte for byte. Weights are looked at through their headers only, and
pickles are refused by name.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, TypeVar

import msgspec

from dockyard.artifact import media
from dockyard.artifact.formats import read_facts
from dockyard.artifact.manifest import (
    About,
    Content,
    Lineage,
    Pack,
    Parent,
    Spec,
    docker_v1,
    docker_v2,
    modelpack,
    spec_of,
)
from dockyard.artifact.safety import contained, refuse_pickle
from dockyard.artifact.store import Entry, Store
from dockyard.errors import ArtifactError, InvalidRequest
from dockyard.types import ModelFacts, OnProgress, Reference

Packaging = Literal["modelpack", "docker-v0.1", "docker-v0.2"]
_T = TypeVar("_T", About, Spec)
_WRITERS = {"modelpack": modelpack, "docker-v0.1": docker_v1, "docker-v0.2": docker_v2}


def pack_files(
    store: Store,
    files: Mapping[str, Path],
    *,
    reference: Reference | None = None,
    packaging: Packaging = "modelpack",
    roles: Mapping[str, media.Role] | None = None,
    about: About | None = None,
    spec: Spec | None = None,
    context: int | None = None,
    lineage: Lineage | None = None,
    parents: Sequence[Parent] = (),
    annotations: Mapping[str, str] | None = None,
    link: bool = False,
    check: bool = True,
    on_progress: OnProgress | None = None,
) -> Entry:
    """Put files into the store as one artifact and name it ``reference``; without one it stays nameless.

    ``files`` maps the path inside the artifact to a file; a file that is a blob of this store is used as it is.
    ``roles`` says what a file is for where its name does not. ``about``, ``spec`` and ``context`` go over what the
    headers say. ``link`` lets the store share the given files, which nobody may write to afterwards. ``check`` False
    skips reading headers, for artifacts that are no models. Raises what ``read_facts`` raises, and UnsafeContent for
    paths that leave the artifact and for pickles.
    """
    if not files:
        raise InvalidRequest("there is no file to package", param="files")
    named = {contained(path): Path(file) for path, file in sorted(files.items())}
    for path, file in named.items():
        refuse_pickle(file, path)
    facts = facts_of(named) if check else None
    with store.lease():
        contents = []
        for path, file in named.items():
            digest, size = _blob(store, file, link, on_progress)
            role = (roles or {}).get(path) or media.role_of_path(path)
            contents.append(Content(digest=digest, size=size, path=path, role=role))
        if parents:
            lineage = msgspec.structs.replace(lineage or Lineage(), parents=tuple(parents))
        pack = Pack(
            contents=tuple(contents),
            about=_merged(_about_of(facts), about),
            spec=_merged(spec_of(facts) if facts is not None else Spec(), spec),
            context=context,
            lineage=lineage,
            annotations=dict(annotations or {}),
        )
        manifest, config = _WRITERS[packaging](pack)
        store.add_bytes(config)
        described = store.put_manifest(manifest, reference=reference)
    return entry(store, reference, described.digest)


def facts_of(files: Mapping[str, Path]) -> ModelFacts:
    """What the headers say of files that have other names on disk than in the artifact."""
    with tempfile.TemporaryDirectory(prefix="dockyard-") as folder:
        links = {}
        for path, file in files.items():
            link = Path(folder) / path
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(os.path.abspath(file))  # noqa: PTH100 (resolve() would follow links)
            links[link] = file
        try:
            return read_facts(list(links))
        except ArtifactError as error:
            for link, file in links.items():
                error.message = error.message.replace(str(link), str(file))
            raise


def entry(store: Store, reference: Reference | None, digest: str) -> Entry:
    """The store's entry for a manifest, under this name if it has it."""
    found = [each for each in store.entries(everything=True) if each.descriptor.digest == digest]
    wanted = None if reference is None else (reference.registry, reference.repository, reference.tag)
    for each in found:
        name = each.reference
        if name is not None and (name.registry, name.repository, name.tag) == wanted:
            return each
    return found[0] if found else Entry(reference=reference, descriptor=store.resolve(digest))


def _blob(store: Store, file: Path, link: bool, on_progress: OnProgress | None) -> tuple[str, int]:
    digest = f"{file.parent.name}:{file.name}"
    if file.parent.parent == store.root / "blobs" and store.has(digest):
        return digest, file.stat().st_size
    found = store.add_file(file, link=link, on_progress=on_progress)
    return found.digest, found.size


def _about_of(facts: ModelFacts | None) -> About:
    if facts is None:
        return About()
    return About(
        name=facts.name,
        family=facts.architecture,
        licenses=(facts.licence,) if facts.licence else (),
    )


def _merged(under: _T, over: _T | None) -> _T:
    """``under`` with every field that ``over`` sets."""
    if over is None:
        return under
    fields = type(over).__struct_fields__
    empty = type(over)()
    changes = {name: value for name in fields if (value := getattr(over, name)) != getattr(empty, name)}
    return msgspec.structs.replace(under, **changes)
