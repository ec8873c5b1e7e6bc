"""Questions to the store's index, and changes to its rows: pure functions over lists of rows."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

import msgspec

from dockyard.artifact import digest as digests
from dockyard.artifact.document import Index
from dockyard.artifact.index import Row, reference_of
from dockyard.artifact.reference import familiar, named
from dockyard.errors import DockyardError, InvalidReference, ModelNotFound
from dockyard.types import Descriptor, Reference

if TYPE_CHECKING:
    from dockyard.artifact.store import Store

_ID = re.compile(r"(?:sha256:)?([0-9a-f]{12,64})")


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """A row of ``dockyard ls``. ``size`` is bytes of config and layers; ``created`` when it came into the store (Unix
    seconds, 0 if another tool put it there); ``subject`` the digest of what it is attached to."""

    reference: Reference | None
    descriptor: Descriptor
    pinned: bool = False
    size: int = 0
    created: float = 0.0
    subject: str | None = None


def entry(row: Row, reference: Reference | None, size: int) -> Entry:
    """A row as callers see it."""
    return Entry(
        reference=reference,
        descriptor=bare(row.descriptor),
        pinned=row.pinned,
        size=size,
        created=row.added,
        subject=row.subject,
    )


def text_of(reference: Reference) -> str:
    """How a row's name is compared: a tag without the digest that may pin it, or the digest where there is no tag."""
    if reference.tag is not None and reference.digest is not None:
        return str(msgspec.structs.replace(reference, digest=None))
    return str(reference)


def insert(rows: list[Row], new: Row) -> None:
    """Add a row, or move its name to a new manifest. The manifest that loses its last name stays as a nameless row."""
    reference = reference_of(new.name)
    if reference is not None:
        new = msgspec.structs.replace(new, name=text_of(reference))
    if any(each.pinned for each in rows if each.digest == new.digest):
        new = new.change(pinned="true")
    if new.name is None:
        if not any(each.digest == new.digest for each in rows):
            rows.append(new)
        return
    old = next((each for each in rows if _is_named(each, new.name)), None)
    if old is not None and old.digest == new.digest:
        rows[rows.index(old)] = new.change(added=old.descriptor.annotations.get("io.dockyard.added") or None)
        return
    if old is not None:
        rows.remove(old)
        if not any(each.digest == old.digest for each in rows):
            rows.append(msgspec.structs.replace(old, name=None))
    rows[:] = [each for each in rows if not (each.digest == new.digest and each.name is None)]
    rows.append(new)


def absorb(rows: list[Row], children: set[str]) -> None:
    """Drop the nameless rows of manifests that an index now holds."""
    rows[:] = [
        each
        for each in rows
        if not (each.name is None and each.digest in children and not each.pinned and not each.subject)
    ]


def remove_name(rows: list[Row], reference: Reference) -> None:
    found = row_named(rows, reference)
    if found is None:
        raise not_found(reference, rows)
    rows.remove(found)
    if not any(each.digest == found.digest for each in rows):
        rows.append(msgspec.structs.replace(found, name=None))


def row_named(rows: Iterable[Row], name: str | Reference) -> Row | None:
    """The row with exactly this name; None for ids, digests and unknown names."""
    try:
        reference = named(name) if isinstance(name, str) else name
    except InvalidReference:
        return None
    wanted = text_of(reference)
    return next((each for each in rows if _is_named(each, wanted)), None)


def resolve(rows: Sequence[Row], name: str | Reference, describe: Callable[[str], Descriptor]) -> Descriptor:
    """See ``Store.resolve``; ``describe`` finds manifests that have no row of their own."""
    if isinstance(name, str):
        found = _by_id(rows, name.strip(), describe)
        if found is not None:
            return found
        reference = named(name)
    else:
        reference = name
    if reference.digest is not None:
        known = next((each for each in rows if each.digest == reference.digest), None)
        return bare(known.descriptor) if known else describe(reference.digest)
    row = row_named(rows, reference)
    if row is None:
        raise not_found(reference, rows)
    return bare(row.descriptor)


def bare(found: Descriptor) -> Descriptor:
    """A row's descriptor without our own bookkeeping."""
    kept = {key: value for key, value in found.annotations.items() if not key.startswith("io.dockyard.")}
    return msgspec.structs.replace(found, annotations=kept)


def not_found(reference: Reference, rows: Iterable[Row]) -> ModelNotFound:
    name = familiar(reference)
    known = [familiar(found) for each in rows if (found := reference_of(each.name)) is not None]
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.6)
    last = name.rpartition("/")[2].partition(":")[0]
    near += [each for each in known if last and last == each.rpartition("/")[2].partition(":")[0] and each not in near]
    hint = f"did you mean {' or '.join(near[:3])}?" if near else f"`dockyard pull {name}` fetches it"
    return ModelNotFound(f"there is no {name!r} in the store", hint=hint)


def drop_referrers(rows: list[Row], gone: set[str]) -> None:
    """Drop nameless, unpinned rows attached to manifests that are gone, and those attached to them in turn."""
    while True:
        dead = {r.digest for r in rows if r.subject in gone and r.name is None and not r.pinned}
        if not dead:
            return
        rows[:] = [each for each in rows if each.digest not in dead or each.name is not None or each.pinned]
        gone = dead


def drop_unnamed(rows: list[Row], *, older_than: float, store: Store) -> None:
    """Drop nameless, unpinned rows that were added before ``older_than`` and are not attached to something kept."""
    roots = [r.digest for r in rows if r.name is not None or r.pinned or r.added > older_than]
    kept = reach(store, roots)
    attached = True
    while attached:
        more = {r.digest for r in rows if r.subject in kept} - kept
        attached = bool(more)
        kept |= reach(store, more)
    rows[:] = [each for each in rows if each.name is not None or each.pinned or each.digest in kept]


def reach(store: Store, digest_roots: Iterable[str], *, foreign: bool = True) -> set[str]:
    """All digests that these manifests need: themselves, configs, layers, children of indexes, and so on down.

    ``foreign`` counts layers with ``urls`` too, which live elsewhere but may be here."""
    found: set[str] = set()
    waiting = list(digest_roots)
    while waiting:
        digest = waiting.pop()
        if digest in found:
            continue
        found.add(digest)
        try:
            manifest = store.parsed(digest)
        except DockyardError:
            continue
        if isinstance(manifest, Index):
            waiting.extend(child.digest for child in manifest.manifests)
        else:
            found.update(blob.digest for blob in manifest.blobs())
            found.update(layer.digest for layer in manifest.layers if foreign)
    return found


def is_id(name: str, rows: Iterable[Row]) -> bool:
    """Whether a text is a digest or the beginning of one, rather than a name that happens to be hex digits."""
    found = _ID.fullmatch(name)
    if not found:
        return digests.valid(name)
    return ":" in name or len(found[1]) == 64 or any(each.digest.startswith(f"sha256:{name}") for each in rows)


def _is_named(row: Row, wanted: str) -> bool:
    if row.name is None:
        return False
    if row.name == wanted:
        return True
    reference = reference_of(row.name)
    return reference is not None and text_of(reference) == wanted


def _by_id(rows: Sequence[Row], name: str, describe: Callable[[str], Descriptor]) -> Descriptor | None:
    if digests.valid(name):
        known = next((each for each in rows if each.digest == name), None)
        return bare(known.descriptor) if known else describe(name)
    found = _ID.fullmatch(name)
    if not found:
        return None
    matches = {each.digest: each for each in rows if each.digest.startswith(f"sha256:{found[1]}")}
    if len(matches) > 1:
        raise InvalidReference(f"the id {name!r} fits {len(matches)} artifacts", hint="give more of its digits")
    if matches:
        return bare(next(iter(matches.values())).descriptor)
    if name.startswith("sha256:") or len(found[1]) == 64:
        raise ModelNotFound(f"no artifact in the store has an id that begins with {found[1]}")
    return None
