"""Certificates, and signatures as Notation makes them: a JWS envelope in a referrer."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256, SHA384, SHA512
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier

from tests.support.images import OCI, Image, digest_of
from tests.support.referrers import EMPTY

NOTATION = "application/vnd.cncf.notary.signature"
JWS = "application/jose+json"
PAYLOAD_TYPE = "application/vnd.cncf.notary.payload.v1+json"
SCHEME = "io.cncf.notary.signingScheme"
EXPIRY = "io.cncf.notary.expiry"
CODE_SIGNING = ExtendedKeyUsageOID.CODE_SIGNING
Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


@dataclass(frozen=True)
class Certified:
    """A key with its certificate, and those of the CAs above it."""

    key: Key
    chain: tuple[x509.Certificate, ...]

    def issue(
        self,
        key: Key | None = None,
        *,
        is_ca: bool = False,
        purpose: ObjectIdentifier = CODE_SIGNING,
        begin: timedelta = timedelta(days=-1),
        end: timedelta = timedelta(days=1),
        critical: x509.ExtensionType | None = None,
    ) -> Certified:
        """Return another key with a certificate of this one.

        Args:
            begin, end: of its validity, from now.
            critical: a further extension, which is critical.
        """
        return certify(
            key, self, is_ca=is_ca, purpose=purpose, begin=begin, end=end, critical=critical
        )

    def write(self, path: Path) -> Path:
        """Write the certificate as PEM, and return the path."""
        path.write_bytes(self.chain[0].public_bytes(Encoding.PEM))
        return path


def certify(
    key: Key | None = None,
    issuer: Certified | None = None,
    *,
    is_ca: bool = False,
    purpose: ObjectIdentifier = CODE_SIGNING,
    begin: timedelta = timedelta(days=-1),
    end: timedelta = timedelta(days=1),
    critical: x509.ExtensionType | None = None,
) -> Certified:
    """Return a key with a certificate, which is signed by itself without an issuer."""
    key = key or ec.generate_private_key(ec.SECP256R1())
    name = x509.Name(
        [x509.NameAttribute(NameOID.COMMON_NAME, f"team.example {x509.random_serial_number()}")]
    )
    now = datetime.now(UTC)
    usages = {
        "digital_signature": not is_ca,
        "content_commitment": False,
        "key_encipherment": False,
        "data_encipherment": False,
        "key_agreement": False,
        "key_cert_sign": is_ca,
        "crl_sign": is_ca,
        "encipher_only": False,
        "decipher_only": False,
    }
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(issuer.chain[0].subject if issuer else name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + begin)
        .not_valid_after(now + end)
        .add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
        .add_extension(x509.KeyUsage(**usages), critical=True)
    )
    if not is_ca:
        builder = builder.add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
    if critical is not None:
        builder = builder.add_extension(critical, critical=True)
    certificate = builder.sign(issuer.key if issuer else key, SHA256())
    return Certified(key, (certificate, *(issuer.chain if issuer else ())))


def make_payload(digest: str) -> bytes:
    """Return the payload of an envelope."""
    target = {"mediaType": OCI.manifest, "digest": digest, "size": 1}
    return json.dumps({"targetArtifact": target}).encode()


def make_envelope(
    signer: Certified,
    payload: bytes,
    protected: Mapping[str, object] | None = None,
    /,
    **fields: object,
) -> bytes:
    """Sign a payload.

    Args:
        protected: replaces fields of the protected header.
        fields: replace those of the envelope.
    """
    header = {
        "alg": _algorithm(signer.key),
        "cty": PAYLOAD_TYPE,
        "crit": [SCHEME],
        SCHEME: "notary.x509",
        "io.cncf.notary.signingTime": datetime.now(UTC).isoformat(timespec="seconds"),
        **(protected or {}),
    }
    first, second = _encode(json.dumps(header).encode()), _encode(payload)
    document = {
        "payload": second,
        "protected": first,
        "header": {
            "x5c": [
                base64.b64encode(each.public_bytes(Encoding.DER)).decode() for each in signer.chain
            ],
            "io.cncf.notary.signingAgent": "tests",
        },
        "signature": _encode(_sign(signer.key, f"{first}.{second}".encode())),
        **fields,
    }
    return json.dumps(document).encode()


def make_notation_referrer(subject: Image, envelope: bytes, media_type: str = JWS) -> Image:
    """Build the referrer in which Notation stores an envelope."""
    document = {
        "schemaVersion": 2,
        "mediaType": OCI.manifest,
        "artifactType": NOTATION,
        "config": _descriptor("application/vnd.oci.empty.v1+json", EMPTY),
        "layers": [_descriptor(media_type, envelope)],
        "subject": _descriptor(subject.media_type, subject.manifest),
        "annotations": {"io.cncf.notary.x509chain.thumbprint#S256": "[]"},
    }
    body = json.dumps(document).encode()
    return Image(OCI.manifest, body, {digest_of(EMPTY): EMPTY, digest_of(envelope): envelope})


def _algorithm(key: Key) -> str:
    if isinstance(key, rsa.RSAPrivateKey):
        return {2048: "PS256", 3072: "PS384"}[key.key_size]
    return {256: "ES256", 384: "ES384", 521: "ES512"}[key.curve.key_size]


def _sign(key: Key, content: bytes) -> bytes:
    algorithm = {"256": SHA256(), "384": SHA384(), "512": SHA512()}[_algorithm(key)[2:]]
    if isinstance(key, rsa.RSAPrivateKey):
        pss = padding.PSS(padding.MGF1(algorithm), padding.PSS.DIGEST_LENGTH)
        return key.sign(content, pss, algorithm)
    size = (key.curve.key_size + 7) // 8
    numbers = decode_dss_signature(key.sign(content, ec.ECDSA(algorithm)))
    return b"".join(number.to_bytes(size, "big") for number in numbers)


def _encode(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).decode().rstrip("=")


def _descriptor(media_type: str, content: bytes) -> dict[str, object]:
    return {"mediaType": media_type, "digest": digest_of(content), "size": len(content)}
