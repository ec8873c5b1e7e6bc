"""Which adapters of the store belong to which base model, and what ``base:adapter`` stands for. Blocking.

An adapter is an artifact that holds an adapter and no weights of its own. Its base is the parent that its lineage
names; of one that has no lineage, the model that its own configuration names, as far as a name can tell.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from dockyard.errors import DockyardError, InvalidReference, InvalidRequest, ModelNotFound
from dockyard.types import Adapter, ModelFiles

if TYPE_CHECKING:
    from dockyard.artifact.store import Store


class Stored(msgspec.Struct, frozen=True, kw_only=True):
    """An adapter of the store: its names as people write them, and what it says of its base."""

    digest: str
    names: tuple[str, ...]
    parents: tuple[str, ...]
    base: str | None
    path: str

    @property
    def short(self) -> str:
        """What it is called after the base's name and a colon."""
        return _last(self.names[0]) if self.names else self.digest.partition(":")[2][:12]

    def answers_to(self, name: str) -> bool:
        return name in self.names or name == self.short or name in {_last(each) for each in self.names}

    def offer(self, scale: float = 1.0) -> Adapter:
        return Adapter(name=self.short, path=self.path, digest=self.digest, scale=scale)


def stored(store: Store) -> list[Stored]:
    """All adapters, by name. An artifact that can't be read is none: whoever asks for it by name is told."""
    from dockyard.artifact.manifest import read_artifact
    from dockyard.artifact.materialize import model_files
    from dockyard.artifact.reference import familiar

    found: dict[str, Stored] = {}
    for entry in store.entries():
        digest = entry.descriptor.digest
        if digest in found:
            continue
        try:
            artifact = read_artifact(store, digest)
            if not artifact.of("adapter") or artifact.of("weight"):
                continue
            files = model_files(store, digest)
        except DockyardError:
            continue
        parents = artifact.lineage.parents if artifact.lineage is not None else ()
        found[digest] = Stored(
            digest=digest,
            names=tuple(familiar(name) for name in store.names(digest)),
            parents=tuple(parent.digest for parent in parents if parent.role == "base"),
            base=files.facts.base,
            path=_path(files),
        )
    return sorted(found.values(), key=lambda adapter: adapter.short)


def belong(store: Store, adapters: list[Stored], base: ModelFiles) -> list[Stored]:
    """The adapters that were made for this model, or for one that it was made from."""
    return [adapter for adapter in adapters if _fits(store, adapter, base)]


def base_of(store: Store, adapter: Stored) -> str:
    """The digest of the base of an adapter that is asked for by its own name. Raises InvalidRequest if none is here."""
    from dockyard.artifact.manifest import read_artifact

    for digest in adapter.parents:
        if store.has(digest):
            return digest
    if not adapter.parents and adapter.base:
        for entry in store.entries():
            names = [str(name) for name in store.names(entry.descriptor.digest)]
            try:
                about = read_artifact(store, entry.descriptor.digest)
            except DockyardError:
                continue
            if about.of("weight") and _same(adapter.base, [*names, about.about.name or ""]):
                return entry.descriptor.digest
    told = adapter.base or ", ".join(adapter.parents) or "no model that it names"
    raise InvalidRequest(
        f"{adapter.short} is an adapter for {told}, which is not in the store",
        param="model",
        hint=f"pull its base; or ask for `BASE:{adapter.short}`",
    )


def chosen(store: Store, adapters: list[Stored], base: ModelFiles, name: str) -> Stored:
    """The adapter that ``base:name`` asks for. Raises ModelNotFound with near names."""
    fitting = belong(store, adapters, base)
    found = next((adapter for adapter in fitting if adapter.answers_to(name)), None)
    if found is not None:
        return found
    other = next((adapter for adapter in adapters if adapter.answers_to(name)), None)
    if other is not None and not other.parents and not other.base:
        return other  # it does not say whose it is: the caller does
    if other is not None:
        raise InvalidRequest(
            f"{name} is an adapter of {other.base or other.parents[0]}, not of {base.reference}", param="model"
        )
    known = [adapter.short for adapter in fitting]
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.4) or known[:3]
    raise ModelNotFound(
        f"{base.reference} has neither a tag nor an adapter {name!r}",
        param="model",
        hint=f"did you mean {' or '.join(f'{base.reference}:{each}' for each in near)}?"
        if near
        else "adapters are artifacts whose lineage names their base; `dockyard ls` shows what is here",
    )


def split(name: str) -> Iterator[tuple[str, str]]:
    """The ways to read a name as base and adapter; only colons after the last slash count, the last of them first."""
    place = name.rfind(":")
    while place > 0 and "/" not in name[place:]:
        if name[place + 1 :]:
            yield name[:place], name[place + 1 :]
        place = name.rfind(":", 0, place)


def _fits(store: Store, adapter: Stored, base: ModelFiles) -> bool:
    if adapter.parents:
        return base.digest in adapter.parents or bool(set(adapter.parents) & _ancestors(store, base.digest))
    return adapter.base is not None and _same(adapter.base, [base.reference, base.facts.name or ""])


def _ancestors(store: Store, digest: str) -> set[str]:
    from dockyard.artifact.lineage import history

    try:
        return {each.digest for each in history(store, digest) if each.role in ("", "base")}
    except (DockyardError, InvalidReference):
        return {digest}


def _same(told: str, names: list[str]) -> bool:
    """Whether an adapter's word for its base, such as ``HuggingFaceTB/SmolLM2-135M``, may mean a model so named."""
    wanted = _plain(told.rstrip("/").rpartition("/")[2])
    return bool(wanted) and any(wanted in (_plain(_last(name)), _plain(name)) for name in names if name)


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _last(name: str) -> str:
    """The last part of a name, without tag and digest."""
    return name.partition("@")[0].rpartition("/")[2].partition(":")[0]


def _path(files: ModelFiles) -> str:
    """A PEFT adapter is its folder, a GGUF one its file."""
    first = Path(files.weights[0])
    return str(first.parent) if files.format == "peft" else str(first)
