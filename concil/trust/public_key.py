"""PublicKey: verifies signatures of one key, as cosign makes them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from concil.errors import UsageError, safe_repr
from concil.fs.small_file import read_small_file
from concil.runtime.dataclass import dataclass

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes
    from cryptography.hazmat.primitives.hashes import HashAlgorithm

MAX_KEY_SIZE = 64 * 1024  # bytes of a file
MIN_RSA_SIZE = 2048  # bits
_KEY_REMEDY = "give the public key as cosign writes it, cosign.pub: PEM, -----BEGIN PUBLIC KEY-----"
_KMS_ADDRESS = re.compile(r"[a-z0-9]{2,12}://")


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A public key: ECDSA on P-256, P-384 or P-521, Ed25519, or RSA of 2048 bits or more."""

    pem: bytes  # SubjectPublicKeyInfo, in the form in which the cryptography package writes it

    @classmethod
    def read(cls, path: str | Path) -> PublicKey:
        """Read a key from a file.

        Raises:
            UsageError: it cannot be read or is no such key, or the package cryptography is
                missing.
        """
        return cls.parse(read_key_file(path), str(path))

    @classmethod
    def parse(cls, content: bytes, name: str) -> PublicKey:
        """Parse a key in PEM.

        Args:
            name: of its file, for messages.
        Raises:
            UsageError: as for `read`.
        """
        require_cryptography()
        from cryptography.exceptions import UnsupportedAlgorithm  # noqa: PLC0415  # an extra
        from cryptography.hazmat.primitives.serialization import (  # noqa: PLC0415  # as above
            Encoding,
            PublicFormat,
            load_pem_public_key,
        )

        fault, remedy = _find_fault(content)
        if fault:
            raise UsageError(f"{safe_repr(name)}: {fault}", remedy=remedy)
        try:
            key = load_pem_public_key(content)
        except (ValueError, UnsupportedAlgorithm) as error:
            raise UsageError(
                f"{safe_repr(name)} is not a public key", remedy=_KEY_REMEDY
            ) from error
        if not _is_supported(key):
            raise UsageError(
                f"{safe_repr(name)}: keys of this kind are not supported",
                remedy="use ECDSA on P-256, P-384 or P-521, Ed25519, or RSA of 2048 bits or more",
            )
        return cls(key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))

    def has_signed(self, signature: bytes, content: bytes) -> bool:
        """Whether a signature of ``content`` was made with this key.

        ECDSA signatures are in DER over SHA-256, which cosign uses with all curves by default, or
        over the hash of the size of the curve; those of RSA are PKCS #1 v1.5 over SHA-256.

        Raises:
            UsageError: the package cryptography is missing.
        """
        require_cryptography()
        from cryptography.exceptions import InvalidSignature  # noqa: PLC0415  # an extra
        from cryptography.hazmat.primitives.asymmetric import (  # noqa: PLC0415  # as above
            ec,
            ed25519,
            padding,
            rsa,
        )
        from cryptography.hazmat.primitives.hashes import SHA256  # noqa: PLC0415  # as above
        from cryptography.hazmat.primitives.serialization import (  # noqa: PLC0415  # as above
            load_pem_public_key,
        )

        key = load_pem_public_key(self.pem)
        try:
            if isinstance(key, ed25519.Ed25519PublicKey):
                key.verify(signature, content)
                return True
            if isinstance(key, rsa.RSAPublicKey):
                key.verify(signature, content, padding.PKCS1v15(), SHA256())
                return True
        except InvalidSignature:
            return False
        assert isinstance(key, ec.EllipticCurvePublicKey)  # noqa: S101 - `parse` has checked it
        for algorithm in _ecdsa_hashes(key.curve.name):
            try:
                key.verify(signature, content, ec.ECDSA(algorithm))
            except InvalidSignature:
                continue
            return True
        return False


def require_cryptography() -> None:
    """Raise UsageError if the package cryptography is not installed."""
    try:
        import cryptography  # noqa: F401, PLC0415  # an extra
    except ImportError as error:
        raise UsageError(
            "the verification of signatures needs the package cryptography",
            remedy="type: pip install 'concil[verify]'",
        ) from error


def read_key_file(path: str | Path) -> bytes:
    """Read a small file.

    Raises:
        UsageError: it cannot be read, or is larger than 64 KiB.
    """
    name = safe_repr(str(path))
    if _KMS_ADDRESS.match(str(path)):
        raise UsageError(
            f"{name} is not a file: keys are read from files only",
            remedy="write the public key to a file, with: cosign public-key",
        )
    return read_small_file(path, MAX_KEY_SIZE, _KEY_REMEDY)


def _find_fault(content: bytes) -> tuple[str, str]:
    """Return why a file is no public key, and what helps; "" if it may be one."""
    if not content.strip():
        return "the file is empty", _KEY_REMEDY
    if b"PRIVATE KEY-----" in content:
        return (
            "this is a private key, which is not needed to verify signatures",
            "give the public key, cosign.pub, and keep the private key secret",
        )
    if b"-----BEGIN CERTIFICATE-----" in content:
        return (
            "this is a certificate, not a public key",
            "extract its key: openssl x509 -in FILE -pubkey -noout",
        )
    if content.count(b"-----BEGIN") > 1:
        return "there are several keys in one file", "give one file for each key"
    return "", ""


def _is_supported(key: PublicKeyTypes) -> bool:
    from cryptography.hazmat.primitives.asymmetric import (  # noqa: PLC0415  # an extra
        ec,
        ed25519,
        rsa,
    )

    if isinstance(key, ec.EllipticCurvePublicKey):
        return bool(_ecdsa_hashes(key.curve.name))
    if isinstance(key, rsa.RSAPublicKey):
        return key.key_size >= MIN_RSA_SIZE
    return isinstance(key, ed25519.Ed25519PublicKey)


def _ecdsa_hashes(curve: str) -> tuple[HashAlgorithm, ...]:
    """Return the hashes that signatures on a curve may have; none for another curve."""
    from cryptography.hazmat.primitives.hashes import (  # noqa: PLC0415  # an extra
        SHA256,
        SHA384,
        SHA512,
    )

    hashes: dict[str, tuple[HashAlgorithm, ...]] = {
        "secp256r1": (SHA256(),),
        "secp384r1": (SHA256(), SHA384()),
        "secp521r1": (SHA256(), SHA512()),
    }
    return hashes.get(curve, ())
