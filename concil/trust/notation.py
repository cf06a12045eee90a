"""CertificateSigner: who may sign an image with a certificate, as Notation does."""

from __future__ import annotations

import base64
import binascii
import hashlib
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from concil.errors import safe_repr
from concil.oci.manifest import Digest
from concil.runtime.dataclass import dataclass
from concil.trust.certificate_chain import load_chain, read_certificates, verify_chain
from concil.trust.rejection import Reason, Rejection
from concil.trust.signatures import NotationSignature, Signature
from concil.trust.signed_payload import decode_base64, other_digest, parse_object

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

PAYLOAD_TYPE = "application/vnd.cncf.notary.payload.v1+json"
_SCHEME = "io.cncf.notary.signingScheme"
_EXPIRY = "io.cncf.notary.expiry"
_SIGNING_TIME = "io.cncf.notary.signingTime"
_X509 = "notary.x509"
# Whatever else is critical has to be understood before the signature counts.
_CRITICAL = frozenset({_SCHEME, _EXPIRY, _SIGNING_TIME})
_ALGORITHM_BY_RSA_SIZE = {2048: "PS256", 3072: "PS384", 4096: "PS512"}
_ALGORITHM_BY_CURVE = {"secp256r1": "ES256", "secp384r1": "ES384", "secp521r1": "ES512"}


@dataclass(frozen=True, slots=True)
class CertificateSigner:
    """Whoever has a certificate that is trusted, or that a trusted CA has issued."""

    certificates: tuple[bytes, ...]  # DER

    @classmethod
    def read(cls, path: str | Path) -> CertificateSigner:
        """Read certificates from a PEM file. Raises as `read_certificates`."""
        return cls(read_certificates(path))

    @property
    def signer_id(self) -> str:
        """The digests of the certificates."""
        digests = sorted(hashlib.sha256(entry).hexdigest() for entry in self.certificates)
        return f"certificates {' '.join(digests)}"

    def verify(self, signature: Signature, digest: Digest) -> None:
        """Verify a signature. See `concil.trust.signers.Signer`.

        Certificates have to be valid now: timestamps are not verified, and nobody is asked
        whether a certificate was revoked.

        Source: notaryproject/specifications, signature-envelope-jws.md and
            trust-store-trust-policy.md, "Signature Verification".
        """
        if not isinstance(signature, NotationSignature):
            raise Rejection(
                Reason.OTHER_SIGNER, "it is signed with cosign, not with a certificate of Notation"
            )
        envelope = parse_object(signature.content, "envelope")
        protected_text, payload_text = envelope.get("protected"), envelope.get("payload")
        protected = parse_object(_decode_url(protected_text), "protected header")
        payload_content = _decode_url(payload_text)  # and the text is ASCII
        header = envelope.get("header")
        entries = header.get("x5c") if isinstance(header, dict) else None
        if not isinstance(entries, list):
            raise Rejection(Reason.MALFORMED, "its signature has no list of certificates")
        chain = load_chain([decode_base64(entry, "certificate") for entry in entries])
        signed = f"{protected_text}.{payload_text}".encode()
        if not _has_signed(chain[0], protected, _decode_url(envelope.get("signature")), signed):
            raise Rejection(Reason.OTHER_SIGNER, "its signature was changed after it was made")
        now = _now()
        verify_chain(chain, self.certificates, now)
        _check_header(protected, now)
        payload = parse_object(payload_content, "payload")
        target = payload.get("targetArtifact")
        signed_digest = target.get("digest") if isinstance(target, dict) else None
        if signed_digest != str(digest):
            raise other_digest(signed_digest)


def _now() -> datetime:
    return datetime.now(UTC)


def _check_header(protected: dict[str, Any], now: datetime) -> None:
    """Check what the signer says of the signature."""
    critical = protected.get("crit")
    if not isinstance(critical, list) or not all(isinstance(name, str) for name in critical):
        raise Rejection(Reason.MALFORMED, "its signature has no list of critical fields")
    unknown = sorted(set(critical) - _CRITICAL)
    if unknown:
        raise Rejection(
            Reason.UNSUPPORTED,
            f"its signature needs {safe_repr(unknown[0])}, which is not supported",
        )
    scheme = protected.get(_SCHEME)
    if scheme != _X509:
        raise Rejection(Reason.UNSUPPORTED, f"its signature has the scheme {safe_repr(scheme)}")
    if protected.get("cty") != PAYLOAD_TYPE:
        raise Rejection(
            Reason.UNSUPPORTED,
            f"the payload of its signature is of the type {safe_repr(protected.get('cty'))}",
        )
    expiry = protected.get(_EXPIRY)
    if expiry is None:
        return
    try:
        end = datetime.fromisoformat(expiry)
    except (TypeError, ValueError) as error:
        raise Rejection(Reason.MALFORMED, "the expiry of its signature is not a time") from error
    if end.tzinfo is None or now > end:
        raise Rejection(Reason.NOT_VALID, f"its signature expired on {end:%Y-%m-%d}")


def _has_signed(
    certificate: Certificate, protected: dict[str, Any], signature: bytes, content: bytes
) -> bool:
    """Whether the key of a certificate has made a signature, with the algorithm for its size.

    Source: notaryproject/specifications, signature-specification.md, "Signature Algorithm
        Requirements"; RFC 7518, 3.4 and 3.5.
    """
    from cryptography.exceptions import InvalidSignature  # noqa: PLC0415  # an extra
    from cryptography.hazmat.primitives.asymmetric import (  # noqa: PLC0415  # as above
        ec,
        padding,
        rsa,
    )
    from cryptography.hazmat.primitives.asymmetric.utils import (  # noqa: PLC0415  # as above
        encode_dss_signature,
    )
    from cryptography.hazmat.primitives.hashes import (  # noqa: PLC0415  # as above
        SHA256,
        SHA384,
        SHA512,
    )

    key, algorithm = certificate.public_key(), ""
    if isinstance(key, rsa.RSAPublicKey):
        algorithm = _ALGORITHM_BY_RSA_SIZE.get(key.key_size, "")
    elif isinstance(key, ec.EllipticCurvePublicKey):
        algorithm = _ALGORITHM_BY_CURVE.get(key.curve.name, "")
    if not algorithm or protected.get("alg") != algorithm:
        raise Rejection(
            Reason.UNSUPPORTED,
            f"its signature has the algorithm {safe_repr(protected.get('alg'))}, which does not "
            "fit the key of its certificate",
        )
    hash_algorithm = {"256": SHA256(), "384": SHA384(), "512": SHA512()}[algorithm[2:]]
    try:
        if isinstance(key, rsa.RSAPublicKey):
            pss = padding.PSS(padding.MGF1(hash_algorithm), padding.PSS.DIGEST_LENGTH)
            key.verify(signature, content, pss, hash_algorithm)
        elif isinstance(key, ec.EllipticCurvePublicKey):
            size = (key.curve.key_size + 7) // 8
            if len(signature) != 2 * size:
                return False
            numbers = (int.from_bytes(part) for part in (signature[:size], signature[size:]))
            key.verify(
                signature=encode_dss_signature(*numbers),
                data=content,
                signature_algorithm=ec.ECDSA(hash_algorithm),
            )
    except InvalidSignature:
        return False
    return True


def _decode_url(text: object) -> bytes:
    """Decode Base64 for URLs without padding.

    Raises:
        Rejection: it is not Base64.
    Source: RFC 7515, appendix C.
    """
    try:
        if isinstance(text, str) and text.isascii():
            padded = text.encode() + b"=" * (-len(text) % 4)
            return base64.b64decode(padded, altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        pass
    raise Rejection(Reason.MALFORMED, "the envelope of its signature is not Base64")
