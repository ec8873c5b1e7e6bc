"""A gate: rules that an artifact's evaluations must satisfy before it gets a name that counts.

    against: parent            # or the name of an artifact; what relative rules compare with
    level: 0.95                # of the intervals that decide
    rules:
      - {metric: exact_match, max_loss: 2%}      # at worst 2 % worse than the other, the whole interval
      - {metric: perplexity, suite: prose, max_loss: 1%}
      - {metric: judge, min_gain: 0%}            # better for certain
      - {metric: exact_match, min: 0.5}          # by itself: the interval's low end
      - {metric: ttft_p95, max: 0.3}             # a figure of the run's speed

A comparison is of the same items, by paired bootstrap, and its interval decides: a difference that happens to be small
passes nothing. A metric that is missing, or could not be computed for an item (``max_errors``), fails its rule.
``decide`` is the one door for the command line, recipes and rollouts.
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
from msgspec import Meta

from dockyard.artifact.digest import of_bytes
from dockyard.artifact.lineage import attach, lineage_of
from dockyard.artifact.proof import statement as statements
from dockyard.artifact.proof.keys import PrivateKey, PublicKey
from dockyard.artifact.proof.signing import attest, signed, vouched
from dockyard.artifact.reference import familiar, parse
from dockyard.errors import InvalidRequest, NotFound
from dockyard.ops._yaml import decoded
from dockyard.ops.evaluate.result import Run, digest_of
from dockyard.ops.report import moment, newest, reports
from dockyard.types import Json, Reference

if TYPE_CHECKING:
    from dockyard.artifact.store import Store

VERDICT = "application/vnd.dockyard.gate.v1+json"
"""artifactType and media type of an attached decision."""
_PERCENT = re.compile(r"\s*(-?\d+(?:\.\d+)?)\s*(%?)\s*")


class Rule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """One rule; ``suite`` is needed where several reports have the metric. Shares are numbers, or text such as "2%".

    ``max_loss``: how much worse than the other at worst, relative. ``min_gain``: how much better at least. ``min``,
    ``max``: of the artifact by itself. ``max_errors``: items that may have failed.
    """

    metric: str
    suite: str | None = None
    max_loss: str | float | None = None
    min_gain: str | float | None = None
    min: float | None = None
    max: float | None = None
    max_errors: Annotated[int, Meta(ge=0)] = 0

    def __post_init__(self) -> None:
        for value in (self.max_loss, self.min_gain):
            if value is not None:
                share(value)
        if self.max_loss is None and self.min_gain is None and self.min is None and self.max is None:
            raise ValueError(f"the rule for {self.metric} asks for nothing: max_loss, min_gain, min or max")

    @property
    def told(self) -> str:
        """The rule in words, by which a decision names it."""
        where = f"{self.suite}/{self.metric}" if self.suite else self.metric
        asks = [("max_loss", self.max_loss), ("min_gain", self.min_gain), ("min", self.min), ("max", self.max)]
        plain = [(name, f"{value:g}" if isinstance(value, float) else value) for name, value in asks]
        return f"{where} " + ", ".join(f"{name} {value}" for name, value in plain if value is not None)


class Gate(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The rules. ``against`` is "parent", a name, or a digest."""

    rules: Annotated[tuple[Rule, ...], Meta(min_length=1)]
    against: str = "parent"
    level: Annotated[float, Meta(gt=0.5, lt=1)] = 0.95
    name: str = ""


class Outcome(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What came of one rule. ``value`` is what was held against it, with ``low`` and ``high`` its interval."""

    rule: str
    passed: bool
    told: str
    value: float | None = None
    low: float | None = None
    high: float | None = None


class Decision(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Whether the artifact passed. ``gate_digest`` is the digest of the rules' file; ``reports`` those that were read;
    ``tag`` the name that the artifact was given; ``at`` in RFC 3339."""

    gate: str
    gate_digest: str
    subject: str
    against: str | None
    passed: bool
    outcomes: tuple[Outcome, ...]
    reports: tuple[str, ...] = ()
    tag: str | None = None
    at: str = ""

    @property
    def failed(self) -> tuple[Outcome, ...]:
        return tuple(each for each in self.outcomes if not each.passed)


class Given(msgspec.Struct, frozen=True, kw_only=True):
    """What a gate is applied to, beside the artifact: ``against`` goes over the gate's own; ``runs`` and ``others``
    stand for the reports that are attached, where the caller has them at hand. Of attached ones only those count that a
    ``trusted`` key signed, if there are such keys: anybody may attach a report to an artifact that they can push to.
    ``tag`` is given on a pass alone."""

    against: str | None = None
    runs: tuple[Run, ...] | None = None
    others: tuple[Run, ...] | None = None
    tag: str | None = None
    key: PrivateKey | None = None
    trusted: tuple[PublicKey, ...] = ()
    record: bool = True


def share(value: str | float) -> float:
    """A share as a number: 0.02 of "2%". Raises ValueError."""
    if isinstance(value, int | float):
        return float(value)
    found = _PERCENT.fullmatch(value)
    if found is None:
        raise ValueError(f"{value!r} is no share, such as 2% or 0.02")
    return float(found[1]) / (100 if found[2] else 1)


def read(path: Path) -> tuple[Gate, str]:
    """The gate in a YAML file, and the file's digest. Raises NotFound, and InvalidRequest that names the place."""
    try:
        data = path.read_bytes()
        found = decoded(data, Gate)
    except FileNotFoundError:
        raise NotFound(f"there is no gate in {path}", param=str(path)) from None
    except (msgspec.ValidationError, msgspec.DecodeError) as error:
        raise InvalidRequest(f"{path}: {error}", param=str(path), hint="see docs/concepts/proof.md") from error
    return (found if found.name else msgspec.structs.replace(found, name=path.stem)), of_bytes(data)


def decide(
    store: Store, name: str | Reference, gate: Gate, *, digest: str | None = None, given: Given | None = None
) -> Decision:
    """Apply a gate to an artifact, by the newest reports that are attached to it and to what it is compared with.

    ``digest`` is that of the gate's file, as ``read`` gives it. With ``given.record`` the decision is attached to the
    artifact, and signed where there is a key. Raises ModelNotFound and InvalidRequest; a rule that can't be decided
    fails, and says why.
    """
    from dockyard.ops.gate.rules import Sides, apply

    given = given or Given()
    found = store.resolve(name)
    if given.tag is not None:
        target(store, name, given.tag)
    other = _other(store, found.digest, given.against or gate.against, gate)
    mine, read_here = _runs(store, found.digest, given.runs, given.trusted)
    theirs, read_there = _runs(store, other, given.others, given.trusted) if other or given.others else ([], [])
    sides = Sides(mine=tuple(mine), theirs=tuple(theirs), compared=other is not None or given.others is not None)
    outcomes = tuple(apply(rule, sides, gate.level) for rule in gate.rules)
    passed = all(each.passed for each in outcomes)
    decision = Decision(
        gate=gate.name or "gate",
        gate_digest=digest or digest_of(msgspec.to_builtins(gate)),
        subject=found.digest,
        against=other,
        passed=passed,
        outcomes=outcomes,
        reports=(*read_here, *read_there),
        tag=str(target(store, name, given.tag)) if passed and given.tag else None,
        at=moment(time.time()),
    )
    if given.record:
        _record(store, decision, given.key)
    if decision.tag is not None and given.tag is not None:
        store.tag(target(store, name, given.tag), found.digest)
    return decision


def target(store: Store, name: str | Reference, tag: str) -> Reference:
    """The name that a pass gives: a whole one, or a tag of the artifact's own repository. Raises InvalidReference."""
    if "/" in tag or ":" in tag:
        return parse(tag, registry=store.registry, namespace=store.namespace)
    names = store.names(store.resolve(name).digest)
    if not names:
        raise InvalidRequest(f"{name} has no name of which {tag!r} could be a tag", hint="give a whole name in --tag")
    named = next((each for each in names if str(name) in (str(each), familiar(each))), names[0])
    return parse(f"{named.registry}/{named.repository}:{tag}")


def _other(store: Store, digest: str, against: str, gate: Gate) -> str | None:
    """The manifest to compare with; None where no rule compares. Raises InvalidRequest where there is none, and
    ModelNotFound for a name that is none, whether or not a rule needs it."""
    named = store.resolve(against).digest if against != "parent" else None
    if not any(rule.max_loss is not None or rule.min_gain is not None for rule in gate.rules):
        return None
    if named is not None:
        return named
    parents = [each for each in lineage_of(store, digest).parents if each.role != "dataset"]
    base = next((each for each in parents if each.role == "base"), parents[0] if len(parents) == 1 else None)
    if base is None:
        raise InvalidRequest(
            f"{digest[:19]} names no parent to compare with", param="against", hint="name an artifact: --against NAME"
        )
    return base.digest


def _runs(
    store: Store, digest: str | None, given: Sequence[Run] | None, keys: tuple[PublicKey, ...]
) -> tuple[list[Run], list[str]]:
    if given is not None:
        return list(given), []
    attached = reports(store, digest) if digest else []
    if keys and digest:
        known = vouched(signed(store, digest, keys))
        attached = [each for each in attached if each.descriptor.digest in known]
    found = newest(attached)
    return [each.run for each in found], [each.descriptor.digest for each in found]


def _record(store: Store, decision: Decision, key: PrivateKey | None) -> None:
    data = msgspec.json.encode(decision, order="sorted")
    attach(store, decision.subject, data, artifact_type=VERDICT, media_type=VERDICT)
    if key is not None:
        attest(store, decision.subject, key, statements.TESTED, predicate(decision))


def predicate(decision: Decision) -> dict[str, Json]:
    """The decision as in-toto's test-result (v0.1) says it; its ``outcomes`` are beyond that."""
    configuration: list[Any] = [statements.resource(decision.gate, decision.gate_digest)]
    configuration += [statements.resource("report", each) for each in decision.reports]
    if decision.against:
        configuration.append(statements.resource("against", decision.against))
    return {
        "result": "PASSED" if decision.passed else "FAILED",
        "configuration": msgspec.to_builtins(configuration),
        "passedTests": [each.rule for each in decision.outcomes if each.passed],
        "failedTests": [each.rule for each in decision.failed],
        "evaluatedOn": decision.at,
        "outcomes": msgspec.to_builtins(decision.outcomes),
    }
