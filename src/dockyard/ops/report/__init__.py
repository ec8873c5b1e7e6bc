"""Reports of evaluations, attached to the model that was measured: as JSON for programs, Markdown for people, a chart.

A report is an OCI referrer of the model's manifest, so it travels with the model and is found from it: by the referrers
API of a registry, or by the tag that stands in for it. ``card`` and ``bom`` make a model card and a bill of materials
of what the artifact and its reports say.
"""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

from dockyard.artifact import media
from dockyard.artifact.lineage import Part, attach_files, attached
from dockyard.artifact.proof import statement as statements
from dockyard.artifact.proof.keys import PrivateKey
from dockyard.artifact.proof.signing import REPORT, attest, report_predicate
from dockyard.errors import InvalidRequest, NotFound
from dockyard.ops.evaluate.result import MEDIA_TYPE, Run, decode, encode
from dockyard.ops.report.chart import chart
from dockyard.ops.report.markdown import markdown
from dockyard.types import Descriptor, Reference

if TYPE_CHECKING:
    from dockyard.artifact.store import Store

MARKDOWN = "text/markdown"
SVG = "image/svg+xml"
SUITE = "io.dockyard.suite"
RUN = "io.dockyard.run"
"""Annotations of an attached report: the suite's name, and the run's id."""


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """A report that is attached to a model: the referrer, and the run that it tells of."""

    descriptor: Descriptor
    run: Run


def attach_report(
    store: Store, name: str | Reference, run: Run, *, key: PrivateKey | None = None, although: bool = False
) -> Descriptor:
    """Attach the report of a run to the model that was measured, and sign it where there is a ``key``.

    Raises InvalidRequest where the run measured another artifact than ``name``; ``although`` attaches a run whose
    server did not tell which artifact answered.
    """
    found = store.resolve(name)
    measured = run.subject.digest
    if measured is None and not although:
        raise InvalidRequest(
            f"run {run.id} does not say which artifact it measured, only the name {run.subject.name!r}",
            hint="measure a Dockyard, which tells, or say --although",
        )
    if measured is not None and measured not in _within(store, found.digest):
        raise InvalidRequest(f"run {run.id} measured {measured}, and {name} is {found.digest}", param="model")
    made = attach_files(
        store,
        found.digest,
        [
            Part(content=encode(run), media_type=MEDIA_TYPE, title="report.json"),
            Part(content=markdown(run).encode(), media_type=MARKDOWN, title="report.md"),
            Part(content=chart(run).encode(), media_type=SVG, title="report.svg"),
        ],
        artifact_type=REPORT,
        annotations={SUITE: run.suite, RUN: run.id, media.CREATED: moment(run.began + run.seconds)},
    )
    if key is not None:
        attest(store, found.digest, key, statements.EVALUATED, report_predicate(made))
    return made


def reports(store: Store, digest: str) -> list[Report]:
    """The reports attached to a manifest, newest first. Raises DigestMismatch or InvalidRequest for a damaged one."""
    found = []
    for each in store.referrers(digest, REPORT):
        data = attached(store, each, MEDIA_TYPE)
        found.append(Report(descriptor=each, run=decode(data, f"report {each.digest}")))
    return sorted(found, key=lambda each: each.run.began + each.run.seconds, reverse=True)


def newest(found: Sequence[Report]) -> list[Report]:
    """Of several reports of one suite the newest."""
    kept: dict[str, Report] = {}
    for each in sorted(found, key=lambda one: one.run.began + one.run.seconds, reverse=True):
        kept.setdefault(each.run.suite, each)
    return list(kept.values())


def report_of(store: Store, digest: str, suite: str | None = None) -> Report:
    """The newest report, or the newest of a suite. Raises NotFound that lists what there is."""
    found = reports(store, digest)
    for each in found:
        if suite in (None, each.run.suite):
            return each
    known = ", ".join(sorted({each.run.suite for each in found}))
    told = f"no report of suite {suite!r}" if suite and found else "no report"
    raise NotFound(
        f"{digest[:19]} has {told}", param="suite", hint=f"it has: {known}" if known else "`dockyard report attach` one"
    )


def moment(seconds: float) -> str:
    """A Unix time as RFC 3339 in UTC, to the second."""
    return datetime.datetime.fromtimestamp(int(seconds), datetime.UTC).isoformat().replace("+00:00", "Z")


def _within(store: Store, digest: str) -> set[str]:
    """The manifest, and those that it lists where it is an index."""
    listed = getattr(store.parsed(digest), "manifests", ())
    return {digest, *(each.digest for each in listed)}
