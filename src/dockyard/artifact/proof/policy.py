"""What an artifact must have to be pulled or loaded: a YAML file, checked here and nowhere else.

keys: [release.pub]          # PEM files beside this one, or PEM text; any of them may have signed
signature: true              # the manifest is signed
content: true                # every blob is hashed again
lineage:
  complete: true             # all ancestors are in the store
  signed: true               # and signed too
  bases: ["sha256:…"]        # the oldest ancestors are among these
licences: [apache-2.0, mit]  # the artifact's and its ancestors'
gates: [{file: gate.yaml}]   # the newest signed verdict of just this gate file is "passed"
reports: true                # a signed evaluation report is attached, whole
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from dockyard.artifact import digest as digests
from dockyard.artifact.lineage import Ancestor, history
from dockyard.artifact.manifest import read_artifact
from dockyard.artifact.proof import statement as statements
from dockyard.artifact.proof.keys import PublicKey, read_public
from dockyard.artifact.proof.signing import Signed, corrupt, parts_of, signed, trusted, vouched
from dockyard.artifact.proof.statement import Statement
from dockyard.errors import DockyardError, SettingsError, Untrusted
from dockyard.types import Json

if TYPE_CHECKING:
    from dockyard.artifact.store import Store


class Ancestry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the lineage must be; ``bases`` are digests."""

    complete: bool = False
    signed: bool = False
    bases: tuple[str, ...] = ()


class GateFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A gate whose signed verdict is asked for: the file of its rules, beside the policy's."""

    file: str


class Policy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A policy as its file says it; see the module's words."""

    keys: tuple[str, ...] = ()
    signature: bool = True
    content: bool = True
    lineage: Ancestry = Ancestry()
    licences: tuple[str, ...] = ()
    gates: tuple[GateFile, ...] = ()
    reports: bool = False

    def __post_init__(self) -> None:
        if (self.signature or self.gates or self.reports or self.lineage.signed) and not self.keys:
            raise ValueError("signatures, gates and reports need `keys` to be checked with")


class Rules(msgspec.Struct, frozen=True, kw_only=True):
    """A policy with all that its file names read: keys, and the digest of each gate's file by its name."""

    policy: Policy
    keys: tuple[PublicKey, ...] = ()
    gates: dict[str, str] = {}


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """What came of one rule of a policy."""

    rule: str
    ok: bool
    told: str


def read(path: Path) -> Rules:
    """The policy in a file, with its keys and gates. Raises SettingsError that names the file and what is wrong."""
    try:
        policy = msgspec.yaml.decode(path.read_bytes(), type=Policy)
    except FileNotFoundError:
        raise SettingsError(f"there is no policy in {path}", param="policy") from None
    except (msgspec.ValidationError, msgspec.DecodeError) as error:
        raise SettingsError(f"{path}: {error}", param="policy") from error
    keys, gates = [], {}
    for text in policy.keys:
        inline = text.lstrip().startswith("-----BEGIN")
        where = f"a key of {path}" if inline else str(path.parent / text)
        keys.append(read_public(text.encode() if inline else _bytes(path.parent / text), where))
    for gate in policy.gates:
        gates[gate.file] = digests.of_bytes(_bytes(path.parent / gate.file))
    return Rules(policy=policy, keys=tuple(keys), gates=gates)


def with_key(key: PublicKey) -> Rules:
    """The policy that only asks for a signature by this key and for content that is as its digests say."""
    return Rules(policy=Policy(keys=(key.pem.decode(),)), keys=(key,))


def check(store: Store, digest: str, rules: Rules) -> list[Finding]:
    """Every rule of the policy against the artifact with this manifest digest; the order is the policy's."""
    policy, found = rules.policy, []
    names = parts_of(store, digest)
    said = [each for name in sorted(names) for each in signed(store, name, rules.keys)]
    if policy.content:
        found.append(_content(store, digest))
    if policy.signature:
        found.append(_signature(said))
        if files := [each for each in said if each.statement and each.statement.predicate_type == statements.FILES]:
            bad = next((each for each in files if each.key and each.problem), None)
            found.append(Finding(rule="files", ok=bad is None, told=bad.problem if bad else "the files are as signed"))
    if policy.lineage != Ancestry():
        found += _lineage(store, digest, rules)
    if policy.licences:
        found.append(_licences(store, digest, policy.licences))
    found += [_gate(said, name, wanted) for name, wanted in rules.gates.items()]
    if policy.reports:
        found.append(_reports(store, names, said))
    return found


def enforce(store: Store, digest: str, path: Path, *, what: str) -> None:
    """Raise Untrusted, naming the rules that failed, unless the artifact satisfies the policy in ``path``."""
    failed = [each for each in check(store, digest, read(path)) if not each.ok]
    if failed:
        told = "; ".join(f"{each.rule}: {each.told}" for each in failed)
        raise Untrusted(
            f"{what} does not satisfy the policy {path}: {told}",
            hint=f"`dockyard verify {what} --policy {path}` shows every rule",
        )


def _content(store: Store, digest: str) -> Finding:
    try:
        problems = corrupt(store, digest)
    except DockyardError as error:
        problems = [error.message]
    return Finding(rule="content", ok=not problems, told="; ".join(problems) or "every blob is as its digest says")


def _signature(said: list[Signed]) -> Finding:
    if trusted(said, statements.SIGNED):
        keys = sorted({each.key[:12] for each in said if each.key and not each.problem})
        return Finding(rule="signature", ok=True, told=f"signed with key {', '.join(keys)}")
    problems = [each.problem for each in said if each.problem]
    others = sorted({each.hint[:12] for each in said if not each.key and each.hint})
    told = problems[0] if problems else f"signed with other keys only: {', '.join(others)}" if others else "not signed"
    return Finding(rule="signature", ok=False, told=told)


def _lineage(store: Store, digest: str, rules: Rules) -> list[Finding]:
    wanted, found = rules.policy.lineage, []
    ancestors = history(store, digest)
    if wanted.complete:
        missing = [each.digest[:19] for each in ancestors if not each.here]
        told = f"not in the store: {', '.join(missing)}" if missing else f"{len(ancestors) - 1} ancestors, all here"
        found.append(Finding(rule="lineage.complete", ok=not missing, told=told))
    if wanted.signed:
        unsigned = [each.digest[:19] for each in ancestors[1:] if not _is_signed(store, each, rules.keys)]
        told = f"not signed with a key of the policy: {', '.join(unsigned)}" if unsigned else "all ancestors are signed"
        found.append(Finding(rule="lineage.signed", ok=not unsigned, told=told))
    if wanted.bases:
        roots = [each.digest for each in ancestors if not _parents(store, each)]
        strange = [each[:19] for each in roots if each not in wanted.bases]
        told = (
            f"comes from {', '.join(strange)}, no base of the policy" if strange else "comes from a base of the policy"
        )
        found.append(Finding(rule="lineage.bases", ok=not strange, told=told))
    return found


def _is_signed(store: Store, ancestor: Ancestor, keys: tuple[PublicKey, ...]) -> bool:
    if not ancestor.here:
        return False
    said = [each for name in parts_of(store, ancestor.digest) for each in signed(store, name, keys)]
    return bool(trusted(said, statements.SIGNED))


def _parents(store: Store, ancestor: Ancestor) -> bool:
    if not ancestor.here:
        return False
    made = read_artifact(store, ancestor.digest).lineage
    return bool(made and made.parents)


def _licences(store: Store, digest: str, allowed: tuple[str, ...]) -> Finding:
    permitted = {each.casefold() for each in allowed}
    for each in history(store, digest):
        if not each.here:
            continue
        stated = read_artifact(store, each.digest).about.licenses
        whose = "the artifact" if each.depth == 0 else f"its ancestor {each.digest[:19]}"
        if each.depth == 0 and not stated:
            return Finding(rule="licences", ok=False, told="the artifact states no licence")
        if wrong := [name for name in stated if name.casefold() not in permitted]:
            return Finding(rule="licences", ok=False, told=f"{whose} is under {', '.join(wrong)}")
    return Finding(rule="licences", ok=True, told="all stated licences are allowed")


def _gate(said: list[Signed], name: str, wanted: str) -> Finding:
    text = wanted.partition(":")[2]
    verdicts = [each for each in trusted(said, statements.TESTED) if text in _configured(each)]
    if not verdicts:
        return Finding(rule=f"gate {name}", ok=False, told="there is no signed verdict of these rules")
    # Of the same second the one that was attached last.
    newest = sorted(verdicts, key=lambda each: str(each.predicate.get("evaluatedOn", "")))[-1]
    failed = _texts(newest.predicate.get("failedTests"))
    passed = newest.predicate.get("result") == "PASSED"
    return Finding(
        rule=f"gate {name}",
        ok=passed,
        told=f"passed on {newest.predicate.get('evaluatedOn', 'an unknown day')}" if passed else f"failed: {failed}",
    )


def _configured(verdict: Statement) -> set[str]:
    """The SHA-256 digests of the rules that a verdict is of."""
    rows: Json = verdict.predicate.get("configuration")
    found = set()
    for row in rows if isinstance(rows, list) else []:
        digest = row.get("digest") if isinstance(row, dict) else None
        if isinstance(digest, dict) and isinstance(digest.get("sha256"), str):
            found.add(digest["sha256"])
    return found


def _texts(value: Json) -> str:
    return ", ".join(str(each) for each in value) if isinstance(value, list) else "?"


def _reports(store: Store, names: set[str], said: list[Signed]) -> Finding:
    signed_ones = vouched(said)
    here = [each for name in names for each in store.referrers(name) if each.digest in signed_ones]
    if not here:
        return Finding(rule="reports", ok=False, told="there is no signed evaluation report")
    for referrer in here:
        try:
            if problems := corrupt(store, referrer.digest):
                return Finding(rule="reports", ok=False, told=problems[0])
        except DockyardError as error:
            return Finding(rule="reports", ok=False, told=error.message)
    return Finding(rule="reports", ok=True, told=f"{len(here)} signed and whole")


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise SettingsError(
            f"{path}, which the policy names, can't be read: {error.strerror}", param="policy"
        ) from error
