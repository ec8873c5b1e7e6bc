"""All that is attached to an artifact, in a line each."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from dockyard.artifact.lineage import attached
from dockyard.artifact.proof import statement as statements
from dockyard.artifact.proof.signing import REPORT
from dockyard.errors import DockyardError
from dockyard.ops.gate import VERDICT, Decision
from dockyard.ops.report import RUN, SUITE
from dockyard.ops.report.bom import BOM
from dockyard.ops.report.card import CARD
from dockyard.types import Descriptor, Reference

if TYPE_CHECKING:
    from dockyard.artifact.store import Store

STATEMENTS = {
    statements.SIGNED: "the manifest",
    statements.FILES: "the files",
    statements.TESTED: "a gate's verdict",
    statements.EVALUATED: "a report",
}


class Attachment(msgspec.Struct, frozen=True, kw_only=True):
    """One referrer: what it is, what it says, its digest, and the bytes of its files."""

    kind: str
    told: str
    digest: str
    size: int


def everything(store: Store, name: str | Reference) -> list[Attachment]:
    """What is attached to an artifact, in the order of its coming. A damaged one is told as such."""
    found = []
    for each in store.referrers(store.resolve(name).digest):
        try:
            kind, told = _told(store, each)
        except (DockyardError, msgspec.DecodeError) as error:
            kind, told = each.artifact_type or "unknown", f"damaged: {error}"
        manifest = store.parsed(each.digest)
        found.append(Attachment(kind=kind, told=told, digest=each.digest, size=getattr(manifest, "size", 0)))
    return found


def _told(store: Store, each: Descriptor) -> tuple[str, str]:
    if each.artifact_type == REPORT:
        return "report", f"{each.annotations.get(SUITE, '?')}, run {each.annotations.get(RUN, '?')}"
    if each.artifact_type == statements.BUNDLE:
        envelope = statements.read_bundle(attached(store, each))
        statement = statements.read_statement(envelope)
        what = STATEMENTS.get(statement.predicate_type, statement.predicate_type)
        return "signature", f"of {what}, with key {envelope.hint[:12] or '?'}"
    if each.artifact_type == VERDICT:
        decision = msgspec.json.decode(attached(store, each), type=Decision)
        return "gate", f"{decision.gate}: {'passed' if decision.passed else 'failed'}, {decision.at}"
    if each.artifact_type in (CARD, BOM):
        return ("card", "model card") if each.artifact_type == CARD else ("bom", "CycloneDX 1.6")
    return each.artifact_type or "unknown", ", ".join(each.annotations.values())
