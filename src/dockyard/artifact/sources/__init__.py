"""Where a model comes from: an OCI registry, Hugging Face, a Python package, or files. One source a file here.

Each file binds ``PLUGIN`` to a ``Source``; ``choose`` asks them which one claims a text. OCI takes what no other does.
"""

from __future__ import annotations

from typing import Protocol, cast

import msgspec

from dockyard import plugins
from dockyard.artifact.progress import Meter
from dockyard.artifact.store import Entry, Store
from dockyard.errors import InvalidReference
from dockyard.settings import Settings
from dockyard.types import Reference

__all__ = ["SOURCE", "Job", "Source", "choose"]

SOURCE = "io.dockyard.source"
"""Annotation of the manifests that sources write: the pinned text that fetches the same bytes again."""


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """One pull: what was asked for, where to put it, under which name, and whom to tell."""

    store: Store
    text: str
    reference: Reference
    settings: Settings
    meter: Meter


class Source(Protocol):
    """One kind of place. Stateless; called from any thread."""

    name: str

    def claims(self, text: str) -> bool:
        """Whether this source fetches what ``text`` names. No I/O beyond looking at local paths."""
        ...

    def reference(self, text: str, settings: Settings) -> Reference:
        """The name under which the store keeps it. Raises InvalidReference."""
        ...

    def pull(self, job: Job) -> Entry:
        """Bring it into the store under ``job.reference``.

        Raises SourceUnreachable, SourceError, ModelNotFound and the ArtifactErrors; the store is then as before,
        except for blobs and partial blobs that the next attempt uses.
        """
        ...


def choose(text: str) -> Source:
    """The source that claims ``text``."""
    found = [cast(Source, plugin.load()) for name, plugin in plugins.find("artifact.sources").items() if name != "oci"]
    for source in found:
        if source.claims(text):
            return source
    oci = cast(Source, plugins.find("artifact.sources")["oci"].load())
    if not text.strip():
        raise InvalidReference("the name is empty", hint="a name reads [registry/]repository[:tag][@digest]")
    return oci
