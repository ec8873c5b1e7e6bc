"""In-toto statements (v1), in DSSE envelopes, in Sigstore bundles (v0.3): bytes in, structs out, and back.

A statement says something (``predicate``, of a type named by a URI) about subjects, each a name and a digest. Formats:
in-toto/attestation ``spec/v1/statement.md``, secure-systems-lab/dsse ``protocol.md``, sigstore/protobuf-specs.
"""

from __future__ import annotations

import base64
import binascii
from typing import Any

import msgspec

from dockyard.errors import ArtifactError
from dockyard.types import Json

STATEMENT = "https://in-toto.io/Statement/v1"
PAYLOAD = "application/vnd.in-toto+json"
BUNDLE = "application/vnd.dev.sigstore.bundle.v0.3+json"
"""Media type of a bundle, and artifactType of a referrer that is one."""
PREDICATE = "dev.sigstore.bundle.predicateType"
"""Annotation of such a referrer: what the statement inside is of, so that it need not be fetched to be passed over."""

SIGNED = "https://sigstore.dev/cosign/sign/v1"
"""Predicate: the manifest is signed, nothing else is said."""
FILES = "https://model_signing/signature/v1.0"
"""Predicate: these are the model's files and their digests, as ``model_signing`` writes it."""
TESTED = "https://in-toto.io/attestation/test-result/v0.1"
"""Predicate: rules were applied to the artifact; which, and whether they passed. A gate's verdict."""
EVALUATED = "urn:dockyard:predicate:evaluation:v1"
"""Predicate: a report of an evaluation, by digest, with its figures."""


class Resource(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    """A thing and its digest: ``{"sha256": "<hex>"}``. In-toto's ResourceDescriptor."""

    name: str = ""
    uri: str = ""
    digest: dict[str, str] = {}
    media_type: str = ""


class Statement(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What is signed."""

    type: str = msgspec.field(name="_type", default=STATEMENT)
    subject: tuple[Resource, ...]
    predicate_type: str
    predicate: dict[str, Json] = {}


class Envelope(msgspec.Struct, frozen=True, kw_only=True):
    """A payload and what was signed with which key. ``hint`` is the SHA-256 of the public key's PEM, in hex."""

    payload: bytes
    payload_type: str
    signature: bytes
    hint: str = ""


def resource(name: str, digest: str, media_type: str = "") -> Resource:
    """A resource from a digest of ours, ``sha256:<hex>``."""
    algorithm, _, text = digest.partition(":")
    return Resource(name=name, digest={algorithm: text}, media_type=media_type)


def encode(statement: Statement) -> bytes:
    """The payload: JSON with sorted keys, so that the same statement is the same bytes."""
    return msgspec.json.encode(statement, order="sorted")


def pae(payload: bytes, payload_type: str = PAYLOAD) -> bytes:
    """What a DSSE signature is computed over."""
    return b"DSSEv1 %d %s %d %s" % (len(payload_type), payload_type.encode(), len(payload), payload)


def bundle(envelope: Envelope) -> bytes:
    """The Sigstore bundle of an envelope that was signed with a key: no certificate, no transparency log."""
    return msgspec.json.encode(
        {
            "mediaType": BUNDLE,
            "verificationMaterial": {"publicKey": {"hint": envelope.hint}, "tlogEntries": []},
            "dsseEnvelope": {
                "payload": base64.b64encode(envelope.payload).decode(),
                "payloadType": envelope.payload_type,
                "signatures": [{"sig": base64.b64encode(envelope.signature).decode(), "keyid": ""}],
            },
        },
        order="sorted",
    )


def read_bundle(data: bytes) -> Envelope:
    """The envelope in a bundle. Nothing is verified. Raises ArtifactError for what is not one signed with a key."""
    try:
        found: Any = msgspec.json.decode(data)
        inside = found["dsseEnvelope"]
        (signature,) = inside["signatures"]
        key = (found.get("verificationMaterial") or {}).get("publicKey") or {}
        return Envelope(
            payload=base64.b64decode(inside["payload"], validate=True),
            payload_type=str(inside["payloadType"]),
            signature=base64.b64decode(signature["sig"], validate=True),
            hint=str(key.get("hint") or ""),
        )
    except (
        msgspec.DecodeError,
        RecursionError,
        KeyError,
        TypeError,
        ValueError,
        AttributeError,
        binascii.Error,
    ) as bad:
        raise ArtifactError(f"the signature is not a Sigstore bundle with one envelope: {bad}") from bad


def read_statement(envelope: Envelope) -> Statement:
    """The statement in an envelope. Raises ArtifactError."""
    if envelope.payload_type != PAYLOAD:
        raise ArtifactError(f"the signed payload is {envelope.payload_type!r:.80}, not an in-toto statement")
    try:
        found = msgspec.json.decode(envelope.payload, type=Statement)
    except (msgspec.DecodeError, RecursionError) as error:
        raise ArtifactError(f"the signed payload is not an in-toto statement: {error}") from error
    if found.type != STATEMENT:
        raise ArtifactError(f"the signed payload is of type {found.type!r:.80}, not {STATEMENT}")
    return found
