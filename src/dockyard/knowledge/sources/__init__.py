"""Where documents come from: the protocol of a source, and the chooser.

A source is one file of this package, or an entry point of group ``dockyard.knowledge.sources``, that binds ``PLUGIN``.
``sight`` tells what there is before anything is read; an equal fingerprint means that a document need not be read.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

import msgspec

from dockyard import plugins
from dockyard.errors import InvalidRequest, NotFound
from dockyard.knowledge.model import Problem, Sighted, Source
from dockyard.settings import Settings


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """What a source may use: the settings, a ``folder`` that it may keep things in, and the most bytes of a document.

    ``known`` are the fingerprints of what the index has from this source, by path.
    """

    settings: Settings
    folder: Path
    source: Source
    most: int
    known: dict[str, str] = {}


class Opened(Protocol):
    """A source that is being read. Calls block and come from one thread at a time."""

    def sight(self) -> Iterator[Sighted | Problem]:
        """What there is. Raises DockyardError where the source can't be told: nothing is then removed."""
        ...

    def read(self, sighted: Sighted) -> bytes:
        """The bytes of a document. Raises DockyardError or OSError."""
        ...


class Reader(Protocol):
    """A kind of source. ``claims`` says whether a text that somebody wrote means one, and what its place is then."""

    def claims(self, text: str) -> str | None: ...

    def open(self, job: Job) -> AbstractContextManager[Opened]: ...


ORDER = ("s3", "git", "url", "file")
"""Who is asked first; entry points come before all."""


def choose(text: str, kind: str | None = None) -> tuple[str, str]:
    """Kind and place of what a text means. Raises NotFound for an unknown kind, InvalidRequest where none claims it."""
    known = plugins.find("knowledge.sources")
    if kind is not None and kind not in known:
        raise NotFound(f"there is no kind of source {kind!r}", param="kind", hint=f"there are {', '.join(known)}")
    names = [kind] if kind else sorted(known, key=lambda name: ORDER.index(name) if name in ORDER else -1)
    for name in names:
        if known[name].error is None and (place := reader(name).claims(text)) is not None:
            return name, place
    raise InvalidRequest(
        f"{text!r:.200} is no source",
        param="source",
        hint="name a file or folder that is there, https://…, git+https://…[#branch:folder], or s3://bucket/prefix",
    )


def reader(kind: str) -> Reader:
    found: Reader = plugins.find("knowledge.sources")[kind].load()  # by the kind's contract
    return found


def wanted(path: str, source: Source) -> bool:
    """Whether the source's patterns let this path through; ``**`` and ``*`` cross folders."""
    from fnmatch import fnmatchcase

    def matches(pattern: str) -> bool:
        return fnmatchcase(path, pattern) or fnmatchcase(path.rpartition("/")[2], pattern)

    if source.include and not any(map(matches, source.include)):
        return False
    return not any(map(matches, source.exclude))
