"""``dockyard sign`` and ``dockyard verify``: who stands for an artifact, and whether it is what they stand for."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dockyard.cli._options import AsJson, Model, Models

if TYPE_CHECKING:
    from dockyard.artifact.proof.keys import PrivateKey
    from dockyard.artifact.proof.policy import Rules
    from dockyard.settings import Settings

Key = Annotated[
    Path | None,
    typer.Option("--key", metavar="FILE", help="Private key (PEM, elliptic curve); else this home's own."),
]


def sign(models: Models, key: Key = None, as_json: AsJson = False) -> None:
    """Sign MODEL's manifest, its files, and the reports attached to it, with a key that stays on this machine.

    Without --key this home's own key signs; it is made when it is first needed. Push the model to take its signatures
    along; other tools read them: cosign, and model_signing.
    """
    from dockyard.artifact.proof.signing import sign as attach
    from dockyard.cli._connect import open_store, read_settings
    from dockyard.cli._output import show_json

    settings = read_settings()
    store, signer = open_store(settings), signer_of(settings, key)
    rows = []
    for model in models:
        made = attach(store, model, signer)
        rows.append({"model": model, "digest": store.resolve(model).digest, "key": signer.public.hint,
                     "attached": [each.digest for each in made]})  # fmt: skip
    if as_json:
        return show_json(rows)
    for row in rows:
        print(f"{row['model']} {row['digest']} signed with key {signer.public.hint[:12]}")
    return None


def verify(
    model: Model,
    policy: Annotated[
        Path | None, typer.Option("--policy", metavar="FILE", help="What MODEL must have; else the setting `policy`.")
    ] = None,
    key: Annotated[
        Path | None, typer.Option("--key", metavar="FILE", help="Public key that must have signed; no policy then.")
    ] = None,
    as_json: AsJson = False,
) -> int:
    """Hold MODEL against a policy: signature, content, lineage, licences, gates; the exit code is 5 if a rule fails.

    Without --policy or --key it must be signed with this home's own key. Every blob is read and hashed.
    """
    from dockyard.artifact.proof.policy import check
    from dockyard.cli._connect import open_store, read_settings
    from dockyard.cli._output import show_json, show_table

    settings = read_settings()
    store = open_store(settings)
    digest = store.resolve(model).digest
    found = check(store, digest, _rules(settings, policy, key))
    satisfied = all(each.ok for each in found)
    if as_json:
        show_json({"model": model, "digest": digest, "satisfied": satisfied, "rules": found})
    else:
        show_table(("rule", "", "found"), [(each.rule, "ok" if each.ok else "FAILED", each.told) for each in found])
    return 0 if satisfied else 5


def signer_of(settings: Settings, key: Path | None) -> PrivateKey:
    """The key in a file, or this home's own, which is made if it is not there."""
    from dockyard.artifact.proof import keys
    from dockyard.cli._output import note
    from dockyard.errors import Conflict

    if key is not None:
        return keys.read_private(key)
    path = keys.own(settings.home_path)
    if not path.exists():
        try:
            made = keys.make(path)
            note(f"made a key to sign with: {path}; give {keys.public_path(path)} to those who verify")
            return made
        except Conflict:
            pass  # another process was first
    return keys.read_private(path)


def _rules(settings: Settings, policy: Path | None, key: Path | None) -> Rules:
    from dockyard.artifact.proof import keys
    from dockyard.artifact.proof.policy import read, with_key
    from dockyard.errors import InvalidRequest

    if policy is not None and key is not None:
        raise InvalidRequest("--policy or --key, not both", param="key", hint="a policy names its keys")
    if policy is not None:
        return read(policy)
    if key is None and settings.policy:
        return read(Path(settings.policy).expanduser())
    path = key or keys.public_path(keys.own(settings.home_path))
    try:
        return with_key(keys.read_public(path.read_bytes(), str(path)))
    except FileNotFoundError:
        raise InvalidRequest(
            f"there is no key in {path} to verify with",
            param="key",
            hint="give the signer's public key with --key, or a policy with --policy",
        ) from None


def own_key_or_none(settings: Settings, key: Path | None, *, wanted: bool) -> PrivateKey | None:
    """The key to sign something along with, if that was ``wanted`` or a file was named."""
    return signer_of(settings, key) if wanted or key is not None else None
