"""Prompts in the store: OCI artifacts with one layer, the file as it was written, so that they travel as models do.

A name is ``support`` (kept as ``prompts/support`` of the default registry), or a whole reference. Each change is a
version ``v1``, ``v2`` …, a tag that never moves; ``latest`` is the one that counts, and rolling back moves it. A
version names the one before it as its parent.
"""

from __future__ import annotations

import difflib
import re
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from dockyard.artifact import media
from dockyard.artifact.digest import of_bytes
from dockyard.artifact.document import Manifest, encode
from dockyard.artifact.manifest import Lineage, Parent
from dockyard.artifact.reference import familiar
from dockyard.errors import Conflict, InvalidRequest, ModelNotFound, NotFound
from dockyard.prompt.model import Prompt, read
from dockyard.stack import EMPTY, Stack
from dockyard.types import Reference

if TYPE_CHECKING:
    from dockyard.artifact.store import Entry, Store

TYPE = "application/vnd.dockyard.prompt.v1+yaml"
FILE = "prompt.yaml"
NAMESPACE = "prompts"
LATEST = "latest"
_VERSION = re.compile(r"v([1-9][0-9]{0,8})")


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """A prompt that was looked up: ``name`` and ``version`` as people say them, and its text. ``digest`` is that of the
    artifact, or of the text where it is a file of the stack."""

    name: str
    version: str
    digest: str
    prompt: Prompt
    text: str


class Version(msgspec.Struct, frozen=True, kw_only=True):
    """One version in a list; ``tags`` are all names of it, and ``current`` says that ``latest`` is among them."""

    version: str
    digest: str
    tags: tuple[str, ...]
    current: bool
    created: float
    description: str = ""


class Library:
    """The prompts of a store, and those that the stack names. Methods block on files; call them in a thread."""

    def __init__(self, store: Store, stack: Stack = EMPTY) -> None:
        self._store = store
        self._stack = stack
        self._kept: dict[str, Prompt] = {}

    def reference(self, name: str) -> Reference:
        """The whole name of a prompt. Raises InvalidReference."""
        text = name if "/" in name else f"{NAMESPACE}/{name}"
        return self._store.named(text)

    def find(self, name: str, version: str = "") -> Found:
        """``name`` may be ``name:version`` or a name of the stack; ``version`` goes over the one in the name.

        Raises NotFound with near names, and InvalidRequest for what is no prompt.
        """
        base, _, tag = _split(name)
        tag = version or tag
        if base in self._stack.prompts:
            if (path := self._stack.prompt_path(base)) is not None:
                return self._file(base, path, tag)
            target, _, inner = _split(self._stack.prompts[base])
            return self._stored(target, tag or inner, shown=base)
        return self._stored(base, tag, shown=base)

    def names(self) -> list[str]:
        """All names: those of the stack, then those of the store, each once."""
        stored = {self._familiar(entry) for entry in self._entries() if entry.reference is not None}
        return list(dict.fromkeys([*self._stack.prompts, *sorted(stored)]))

    def versions(self, name: str) -> list[Version]:
        """The versions of a stored prompt, oldest first. Raises NotFound."""
        wanted = self.reference(_split(name)[0])
        rows: dict[str, list[Entry]] = {}
        for entry in self._entries():
            if entry.reference is not None and _place(entry.reference) == _place(wanted):
                rows.setdefault(entry.descriptor.digest, []).append(entry)
        if not rows:
            raise self._missing(name)
        found = []
        for digest, entries in rows.items():
            tags = tuple(sorted(each.reference.tag or "" for each in entries if each.reference is not None))
            own = [tag for tag in tags if _VERSION.fullmatch(tag)] or [tag for tag in tags if tag != LATEST] or [LATEST]
            found.append(
                Version(
                    version=min(own, key=lambda tag: (len(tag), tag)),
                    digest=digest,
                    tags=tags,
                    current=LATEST in tags,
                    created=max(each.created for each in entries),
                    description=self._load(digest)[0].description,
                )
            )
        return sorted(found, key=lambda each: (_number(each.version), each.created))

    def create(self, name: str, text: str, *, tags: tuple[str, ...] = ()) -> Found:
        """Keep a text as the next version, which becomes ``latest``; the version it has already if nothing changed.

        Raises InvalidRequest for a text that is no prompt, or a name that has a version.
        """
        base, colon, _ = _split(name)
        if colon:
            raise InvalidRequest(
                f"{name!r} names a version, which is given by counting", param="name", hint=f"say {base!r}"
            )
        for tag in tags:
            if _VERSION.fullmatch(tag):
                raise InvalidRequest(
                    f"tag {tag!r} looks like a version", param="tag", hint="take a word such as stable"
                )
        prompt = read(text, name)
        reference = self.reference(base)
        try:
            before = self.versions(base)
        except NotFound:
            before = []
        latest = next((each for each in before if each.current), before[-1] if before else None)
        known = next((each for each in before if self._load(each.digest)[1] == text), None)
        if known is not None:
            digest, version = known.digest, known.version
        else:
            digest = self._write(text, prompt, latest.digest if latest is not None else None)
            version = f"v{max([_number(each.version) for each in before], default=0) + 1}"
        for tag in (version, LATEST, *tags):
            self._store.tag(_tagged(reference, tag), digest)
        return Found(name=base, version=version, digest=digest, prompt=prompt, text=text)

    def tag(self, name: str, tag: str) -> Found:
        """Give a version a further tag, or move that tag to it. Versions themselves don't move: Conflict."""
        if _VERSION.fullmatch(tag):
            raise Conflict(f"{tag!r} is a version, and versions do not move", hint="take a word such as stable")
        found = self.find(name)
        self._store.tag(_tagged(self.reference(_split(name)[0]), tag), found.digest)
        return found

    def rollback(self, name: str, to: str = "", *, tag: str = LATEST) -> tuple[Version, Version]:
        """Move ``tag`` back to the version ``to``, or to the one before; what it was and what it is now.

        Raises NotFound for an unknown version, and Conflict where there is none before.
        """
        base = _split(name)[0]
        versions = self.versions(base)
        place = next((n for n, each in enumerate(versions) if tag in each.tags), None)
        if place is None:
            raise NotFound(f"no version of {base!r} has the tag {tag!r}", param="tag")
        if to:
            wanted = next((each for each in versions if to == each.version or to in each.tags), None)
            if wanted is None:
                told = ", ".join(each.version for each in versions)
                raise NotFound(f"{base!r} has no version {to!r}", param="version", hint=f"versions: {told}")
        elif place == 0:
            raise Conflict(f"{versions[0].version} is the first version of {base!r}: there is none before it")
        else:
            wanted = versions[place - 1]
        self._store.tag(_tagged(self.reference(base), tag), wanted.digest)
        return versions[place], wanted

    def text(self, digest: str) -> str:
        """The text of an artifact. Raises InvalidRequest where it is no prompt."""
        return self._load(digest)[1]

    def remove(self, name: str) -> list[str]:
        """Take away a version, or without one the whole prompt; what is gone, by name and tag. Raises NotFound."""
        base, colon, tag = _split(name)
        versions = self.versions(base)
        reference = self.reference(base)
        gone = [each for each in versions if not colon or tag == each.version or tag in each.tags]
        if not gone:
            raise self._missing(name)
        told = []
        for each in gone:
            for word in each.tags:
                self._store.delete(_tagged(reference, word))
                told.append(f"{base}:{word}")
        left = [each for each in versions if each not in gone]
        if left and any(each.current for each in gone):
            self._store.tag(_tagged(reference, LATEST), left[-1].digest)
        return told

    def diff(self, one: str, other: str) -> str:
        """What changed from one text to another, as a unified diff; empty if nothing did."""
        first, second = self.find(one), self.find(other)
        lines = difflib.unified_diff(
            first.text.splitlines(),
            second.text.splitlines(),
            f"{first.name}:{first.version}",
            f"{second.name}:{second.version}",
            lineterm="",
        )
        return "\n".join(lines)

    # inside

    def _file(self, name: str, path: Path, tag: str) -> Found:
        if tag:
            raise NotFound(
                f"prompt {name!r} is the file {path}, which has no version {tag!r}",
                param="prompt",
                hint=f"`dockyard prompt create {name} {path}` keeps versions",
            )
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise NotFound(f"prompt {name!r}: {path}: {error}", param="prompt") from None
        digest = of_bytes(text.encode())
        prompt = self._kept.get(digest)
        if prompt is None:
            prompt = self._kept[digest] = read(text, str(path))
        return Found(name=name, version="file", digest=digest, prompt=prompt, text=text)

    def _stored(self, name: str, tag: str, *, shown: str) -> Found:
        reference = self.reference(name)
        try:
            digest = self._store.resolve(_tagged(reference, tag or LATEST)).digest
        except ModelNotFound:
            raise self._missing(f"{name}:{tag}" if tag else name) from None
        prompt, text = self._load(digest)
        tags = [each.tag or "" for each in self._store.names(digest) if _place(each) == _place(reference)]
        version = next((each for each in sorted(tags, key=len) if _VERSION.fullmatch(each)), tag or LATEST)
        return Found(name=shown, version=version, digest=digest, prompt=prompt, text=text)

    def _load(self, digest: str) -> tuple[Prompt, str]:
        manifest = self._store.parsed(digest)
        if not isinstance(manifest, Manifest) or manifest.kind != TYPE or not manifest.layers:
            raise InvalidRequest(f"{digest} is no prompt", param="prompt", hint="`dockyard prompt ls` lists prompts")
        text = self._store.read(manifest.layers[0].digest).decode("utf-8", "replace")
        prompt = self._kept.get(digest)
        if prompt is None:
            prompt = self._kept[digest] = read(text, digest)
        return prompt, text

    def _write(self, text: str, prompt: Prompt, parent: str | None) -> str:
        parents = (Parent(digest=parent, role="before"),) if parent is not None else ()
        lineage = Lineage(parents=parents, operation="prompt", version="1")
        notes = {media.LINEAGE: msgspec.json.encode(lineage, order="sorted").decode()} if parents else {}
        if prompt.description:
            notes["org.opencontainers.image.description"] = prompt.description
        with self._store.lease():
            config = self._store.add_bytes(b"{}", media_type=media.OCI_EMPTY)
            layer = self._store.add_bytes(text.encode(), media_type=TYPE)
            layer = msgspec.structs.replace(layer, annotations={media.TITLE: FILE})
            manifest = Manifest(
                media_type=media.OCI_MANIFEST, artifact_type=TYPE, config=config, layers=(layer,), annotations=notes
            )
            return self._store.put_manifest(encode(manifest)).digest

    def _entries(self) -> list[Entry]:
        return [entry for entry in self._store.entries() if entry.descriptor.artifact_type == TYPE]

    def _familiar(self, entry: Entry) -> str:
        assert entry.reference is not None
        bare = msgspec.structs.replace(entry.reference, tag=LATEST, digest=None)
        text = familiar(bare, registry=self._store.registry, namespace=NAMESPACE)
        return _split(text)[0]

    def _missing(self, name: str) -> NotFound:
        near = difflib.get_close_matches(_split(name)[0], self.names(), n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}?" if near else "`dockyard prompt ls` lists prompts"
        return NotFound(f"there is no prompt {name!r}", param="prompt", hint=hint)


def _split(name: str) -> tuple[str, str, str]:
    """``support:v2`` as name and version; the port of a registry is no version."""
    base, colon, tag = name.rpartition(":")
    return (base, colon, tag) if colon and "/" not in tag else (name, "", "")


def _tagged(reference: Reference, tag: str) -> Reference:
    return msgspec.structs.replace(reference, tag=tag, digest=None)


def _place(reference: Reference) -> tuple[str, str]:
    return reference.registry, reference.repository


def _number(version: str) -> int:
    match = _VERSION.fullmatch(version)
    return int(match[1]) if match else 0
