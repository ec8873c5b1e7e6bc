"""Suites as artifacts: the YAML and its data in one manifest, which any registry carries; the digest is the suite."""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path

import msgspec

from dockyard.artifact import media
from dockyard.artifact.document import Manifest, encode
from dockyard.artifact.reference import familiar
from dockyard.artifact.safety import contained
from dockyard.artifact.store import Store
from dockyard.errors import InvalidRequest, ModelNotFound, NotFound
from dockyard.ops.evaluate.suite import Loaded, Suite, load, parse
from dockyard.types import Reference

TYPE = "application/vnd.dockyard.suite.v1+yaml"
"""artifactType of the manifest, and media type of its YAML."""
DATA_TYPE = "application/octet-stream"
FILE = "suite.yaml"


def pack(store: Store, path: Path, reference: Reference | None = None) -> str:
    """Put a suite and its data into the store and name it; the manifest's digest. Raises what ``load`` raises."""
    loaded = load(path)
    data = loaded.folder / loaded.suite.data
    name = contained(Path(loaded.suite.data).name)
    spoken = msgspec.yaml.encode(msgspec.structs.replace(loaded.suite, data=name))
    notes = {"org.opencontainers.image.title": loaded.suite.name}
    if loaded.suite.description:
        notes["org.opencontainers.image.description"] = loaded.suite.description
    with store.lease():
        config = store.add_bytes(b"{}", media_type=media.OCI_EMPTY)
        suite = store.add_bytes(spoken, media_type=TYPE)
        content = store.add_file(data)
        layers = (
            msgspec.structs.replace(suite, annotations={media.TITLE: FILE}),
            msgspec.structs.replace(content, media_type=DATA_TYPE, annotations={media.TITLE: name}),
        )
        manifest = Manifest(
            media_type=media.OCI_MANIFEST, artifact_type=TYPE, config=config, layers=layers, annotations=notes
        )
        digest = store.put_manifest(encode(manifest)).digest
        if reference is not None:
            store.tag(reference, digest)
        return digest


def lay_out(store: Store, name: str, folder: Path) -> Path:
    """The suite of the store with this name as files in ``folder``; the path of its YAML.

    Raises ModelNotFound, and InvalidRequest for another kind of artifact.
    """
    digest = store.resolve(name).digest
    manifest = store.parsed(digest)
    if not isinstance(manifest, Manifest) or manifest.kind != TYPE or len(manifest.layers) != 2:
        raise InvalidRequest(f"{name} is no suite", param=name, hint="`dockyard eval push SUITE.yaml NAME` makes one")
    target = folder / digest.replace(":", "-")
    target.mkdir(parents=True, exist_ok=True)
    for layer in manifest.layers:
        inside = target / contained(layer.annotations.get(media.TITLE, FILE))
        data = store.read(layer.digest, limit=1 << 30)
        if not inside.exists() or inside.read_bytes() != data:
            part = inside.with_name(f".{inside.name}.part")
            part.write_bytes(data)
            part.replace(inside)
    return target / FILE


def find(store: Store, text: str, folder: Path, *, limit: int | None = None) -> Loaded:
    """The suite that is meant: a file, a folder with ``suite.yaml``, or an artifact of the store."""
    path = Path(text)
    if path.exists():
        return load(path, limit=limit)
    if text.endswith((".yaml", ".yml")):
        raise NotFound(f"{text}: there is no such suite", param=text, hint=_near(text, store))
    try:
        return load(lay_out(store, text, folder), limit=limit)
    except ModelNotFound:
        raise NotFound(
            f"there is no suite {text!r}, neither a file nor in the store",
            param=text,
            hint=_near(text, store) or "`dockyard pull` fetches one from a registry",
        ) from None


def _near(text: str, store: Store) -> str | None:
    """What may have been meant: a file of the folder, or a suite of the store."""
    folder = Path(text).parent
    files = [path for path in folder.glob("*") if path.suffix in (".yaml", ".yml") or (path / FILE).is_file()]
    named = [each.reference for each in store.entries() if each.descriptor.artifact_type == TYPE and each.reference]
    known = {str(path): str(path) for path in sorted(files)}
    for one in named:
        short = familiar(one, registry=store.registry, namespace=store.namespace)
        known |= dict.fromkeys((short, str(one)), short)
    found = dict.fromkeys(known[each] for each in get_close_matches(text, known, 6))
    return f"did you mean {' or '.join(list(found)[:2])}?" if found else None


def stored(store: Store) -> list[tuple[str, str, Suite]]:
    """The suites in the store: name, digest, and what they say."""
    found = []
    for entry in store.entries():
        if entry.descriptor.artifact_type != TYPE or entry.reference is None:
            continue
        manifest = store.parsed(entry.descriptor.digest)
        if isinstance(manifest, Manifest) and manifest.layers:
            suite = parse(store.read(manifest.layers[0].digest), str(entry.reference))
            found.append((str(entry.reference), entry.descriptor.digest, suite))
    return found
