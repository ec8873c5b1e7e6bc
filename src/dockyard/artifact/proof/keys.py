"""Keys to sign and verify with: elliptic-curve keys (P-256, P-384, P-521) in PEM files, made and kept offline."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dockyard.artifact.proof import statement as statements
from dockyard.artifact.proof.statement import Envelope, Statement
from dockyard.errors import Conflict, EngineUnavailable, InvalidRequest, NotFound

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey, EllipticCurvePublicKey
    from cryptography.hazmat.primitives.hashes import HashAlgorithm

PASSWORD = "DOCKYARD_SIGNING_PASSWORD"  # noqa: S105 - the name of the variable
CURVES = ("secp256r1", "secp384r1", "secp521r1")
HOW = "make one: `openssl ecparam -name prime256v1 -genkey -noout -out FILE`"


class PublicKey:
    """A key that verifies. ``hint`` tells keys apart: the SHA-256 of the PEM, in hex."""

    def __init__(self, key: EllipticCurvePublicKey) -> None:
        from cryptography.hazmat.primitives import serialization

        self._key = key
        self.pem = key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        self.hint = hashlib.sha256(self.pem).hexdigest()

    def verifies(self, envelope: Envelope) -> bool:
        """Whether this key signed just this payload."""
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric.ec import ECDSA

        signed = statements.pae(envelope.payload, envelope.payload_type)
        try:
            self._key.verify(envelope.signature, signed, ECDSA(_hash(self._key)))
        except InvalidSignature:
            return False
        return True


class PrivateKey:
    """A key that signs."""

    def __init__(self, key: EllipticCurvePrivateKey) -> None:
        self._key = key
        self.public = PublicKey(key.public_key())

    def sign(self, statement: Statement) -> bytes:
        """The Sigstore bundle of the signed statement."""
        from cryptography.hazmat.primitives.asymmetric.ec import ECDSA

        payload = statements.encode(statement)
        signature = self._key.sign(statements.pae(payload), ECDSA(_hash(self._key.public_key())))
        return statements.bundle(
            Envelope(payload=payload, payload_type=statements.PAYLOAD, signature=signature, hint=self.public.hint)
        )


def read_private(path: Path, password: str | None = None) -> PrivateKey:
    """The key of a PEM file; an encrypted one needs ``password``, else ``$DOCKYARD_SIGNING_PASSWORD``.

    Raises NotFound for a file that is not there and InvalidRequest for one that holds no such key.
    """
    serialization, ec = _library()
    secret = password or os.environ.get(PASSWORD) or None
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), secret.encode() if secret else None)
    except FileNotFoundError:
        raise NotFound(f"there is no key in {path}", param=str(path), hint=HOW) from None
    except (ValueError, TypeError) as error:
        hint = f"set {PASSWORD}" if isinstance(error, TypeError) else HOW
        raise InvalidRequest(
            f"{path} is no private key that can be read: {error}", param=str(path), hint=hint
        ) from error
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.curve.name not in CURVES:
        raise InvalidRequest(f"{path} is no elliptic-curve key of P-256, P-384 or P-521", param=str(path), hint=HOW)
    return PrivateKey(key)


def read_public(pem: bytes, where: str) -> PublicKey:
    """The public key in a PEM text that was found at ``where``. Raises InvalidRequest."""
    serialization, ec = _library()
    try:
        key = serialization.load_pem_public_key(pem)
    except ValueError as error:
        raise InvalidRequest(f"{where} holds no public key in PEM: {error}", param=where) from error
    if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name not in CURVES:
        raise InvalidRequest(f"{where} is no elliptic-curve key of P-256, P-384 or P-521", param=where)
    return PublicKey(key)


def read_public_file(path: Path) -> PublicKey:
    """The public key in a file. Raises NotFound and InvalidRequest."""
    try:
        return read_public(path.read_bytes(), str(path))
    except FileNotFoundError:
        raise NotFound(f"there is no public key in {path}", param=str(path)) from None


def make(path: Path) -> PrivateKey:
    """A new P-256 key in ``path``, readable by its owner alone, and its public half in ``path`` with ``.pub``.

    Raises Conflict where there is a file already: a key that signed something is not to be lost.
    """
    serialization, ec = _library()
    key = ec.generate_private_key(ec.SECP256R1())
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(pem)
            os.fsync(file.fileno())
        os.link(part, path)
    except FileExistsError:
        raise Conflict(f"there is a key in {path} already", param=str(path)) from None
    finally:
        part.unlink(missing_ok=True)
    made = PrivateKey(key)
    public_path(path).write_bytes(made.public.pem)
    return made


def public_path(path: Path) -> Path:
    """Where ``make`` puts the public half of the key in ``path``."""
    return path.with_suffix(".pub")


def own(home: Path) -> Path:
    """Where this home keeps the key that signs when no other is named."""
    return home / "signing.pem"


def _hash(key: EllipticCurvePublicKey) -> HashAlgorithm:
    from cryptography.hazmat.primitives import hashes

    return {256: hashes.SHA256(), 384: hashes.SHA384()}.get(key.curve.key_size) or hashes.SHA512()


def _library() -> tuple[Any, Any]:
    try:
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ec
    except ImportError as error:
        raise EngineUnavailable(
            "signatures need a library that is not installed", hint="pip install 'dockyard[sign]'"
        ) from error
    return serialization, ec
