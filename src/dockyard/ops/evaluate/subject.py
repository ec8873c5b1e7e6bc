"""Which model answers: what a server says of it, and the parents that its lineage names."""

from __future__ import annotations

from dockyard.artifact.lineage import lineage_of
from dockyard.artifact.manifest import read_artifact
from dockyard.artifact.store import Store
from dockyard.client import AsyncClient
from dockyard.errors import DockyardError, Forbidden, NotFound, Unauthorized
from dockyard.ops.evaluate.result import Subject


async def subject_of(client: AsyncClient, model: str, store: Store | None = None, server: str | None = None) -> Subject:
    """The model that ``client`` serves under this name, loaded. Where the server is no Dockyard the name is all there
    is, and ``server`` tells such models apart. Raises what loading raises."""
    try:
        told = await client.load(model)
        rows = await client.ps()
    except DockyardError as error:
        # Another server has no such path, and a key may be for asking only; what else there is to say is of the model.
        other = isinstance(error, NotFound | Forbidden | Unauthorized) or type(error) is DockyardError
        if not other or error.code == "model_not_found":
            raise
        return Subject(name=model, server=server)
    asked = told.get("reference") or told.get("model") if isinstance(told, dict) else None
    row = next((each for each in rows if asked and asked in (each.get("reference"), each.get("digest"))), None)
    if row is None:
        return Subject(name=model, server=server)
    digest = _adapter(store, model) or str(row.get("digest") or "") or None
    return Subject(
        name=model,
        digest=digest if digest and digest.startswith("sha256:") else None,
        engine=row.get("engine"),
        server=server,
        parents=_parents(store, digest),
    )


def _adapter(store: Store | None, model: str) -> str | None:
    """The digest of an adapter that is asked for by its own name: what is loaded then is its base."""
    try:
        found = read_artifact(store, store.resolve(model).digest) if store is not None else None
    except DockyardError:
        return None
    return found.digest if found is not None and found.of("adapter") and not found.of("weight") else None


def _parents(store: Store | None, digest: str | None) -> tuple[str, ...]:
    if store is None or digest is None:
        return ()
    try:
        return tuple(parent.digest for parent in lineage_of(store, digest).parents)
    except DockyardError:
        return ()
