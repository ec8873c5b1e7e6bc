"""Catalogues and profiles as OCI artifacts: an empty config and one JSON layer, as Docker packs them.

They live in the store like models, so ``dockyard push``, ``pull``, ``tag`` and ``rm`` know them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dockyard.errors import UnsupportedFormat

if TYPE_CHECKING:
    from dockyard.artifact.store import Store
    from dockyard.settings import Settings
    from dockyard.types import OnProgress

PROFILE_TYPES = {
    "dockyard": "application/vnd.dockyard.mcp.profile.v1+json",
    "docker": "application/vnd.docker.mcp.profile.v1+json",
}
CATALOGUE = "application/vnd.docker.mcp.catalog.v1+json"
OWN_CATALOGUE = "application/vnd.dockyard.mcp.catalog.v1+json"
CATALOGUE_TYPES = frozenset({CATALOGUE, OWN_CATALOGUE, "application/vnd.docker.mcp.server"})
MOST_BYTES = 32 << 20


def push(
    store: Store, reference: str, data: bytes, kind: str, settings: Settings, on_progress: OnProgress | None = None
) -> str:
    """Keep JSON as an artifact of this type under this name and send it to its registry; its digest."""
    from dockyard.artifact.transfer import push as send

    keep(store, reference, data, kind)
    return send(store, reference, settings, on_progress=on_progress).digest


def keep(store: Store, reference: str, data: bytes, kind: str) -> str:
    """The artifact in the store, without sending it; its digest."""
    from dockyard.artifact.document import Manifest, encode
    from dockyard.artifact.media import OCI_EMPTY, OCI_MANIFEST

    with store.lease():
        config = store.add_bytes(b"{}", media_type=OCI_EMPTY)
        layer = store.add_bytes(data, media_type="application/json")
        manifest = Manifest(media_type=OCI_MANIFEST, artifact_type=kind, config=config, layers=(layer,))
        return store.put_manifest(encode(manifest), reference=store.named(reference)).digest


def pull(
    store: Store,
    reference: str,
    kinds: frozenset[str],
    settings: Settings,
    on_progress: OnProgress | None = None,
) -> str:
    """Fetch an artifact of one of these types; its text. Raises UnsupportedFormat, and what pulling raises."""
    from dockyard.artifact.document import Manifest
    from dockyard.artifact.transfer import pull as get

    digest = get(store, reference, settings, on_progress=on_progress).descriptor.digest
    manifest = store.parsed(digest)
    kind = manifest.kind
    if not isinstance(manifest, Manifest) or kind not in kinds or not manifest.layers:
        raise UnsupportedFormat(
            f"{reference} is {kind}, not one of {', '.join(sorted(kinds))}",
            hint="name a catalogue or profile of tool servers",
        )
    return store.read(manifest.layers[0].digest, limit=MOST_BYTES).decode("utf-8", "replace")
