"""A Sigstore instance of the tests: a CA, a certificate log and a transparency log, with real keys.

It signs as cosign 3 does without a key, and writes the trust root that says which keys it has.
"""

from __future__ import annotations

import base64
import hashlib
import json
import struct
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from tests.support.signatures import make_bundle, make_envelope, make_key, sign

IDENTITY = "releases@team.example"
ISSUER = "https://login.team.example"
_ISSUER_OID = x509.ObjectIdentifier("1.3.6.1.4.1.57264.1.1")
_SCT_OID = x509.ObjectIdentifier("1.3.6.1.4.1.11129.2.4.2")
_ORIGIN = "rekor.example - 1"
_YEAR = timedelta(days=365)


def _spki(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _key_id(key: ec.EllipticCurvePrivateKey) -> bytes:
    return hashlib.sha256(_spki(key)).digest()


def _usage(name: str) -> x509.KeyUsage:
    """Return the extension for a single usage."""
    usages = {
        "digital_signature": False,
        "content_commitment": False,
        "key_encipherment": False,
        "data_encipherment": False,
        "key_agreement": False,
        "key_cert_sign": False,
        "crl_sign": False,
        "encipher_only": False,
        "decipher_only": False,
    }
    return x509.KeyUsage(**{**usages, name: True})


def _encode(content: bytes) -> str:
    return base64.b64encode(content).decode()


@dataclass
class SigstoreInstance:
    """The keys of one instance."""

    now: datetime = field(default_factory=lambda: datetime.now(UTC).replace(microsecond=0))
    ca_lifetime: timedelta = 10 * _YEAR
    ca_key: ec.EllipticCurvePrivateKey = field(default_factory=make_key)
    ct_key: ec.EllipticCurvePrivateKey = field(default_factory=make_key)
    rekor_key: ec.EllipticCurvePrivateKey = field(default_factory=make_key)

    def __post_init__(self) -> None:
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "sigstore of the tests")])
        self.ca = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(self.ca_key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(self.now - _YEAR)
            .not_valid_after(self.now - _YEAR + self.ca_lifetime)
            .add_extension(x509.BasicConstraints(ca=True, path_length=1), critical=True)
            .add_extension(_usage("key_cert_sign"), critical=True)
            .add_extension(
                x509.SubjectKeyIdentifier.from_public_key(self.ca_key.public_key()), critical=False
            )
            .sign(self.ca_key, SHA256())
        )

    def trust_root(self, **fields: object) -> bytes:
        """Return trusted_root.json."""
        certificates = [{"rawBytes": _encode(self.ca.public_bytes(Encoding.DER))}]
        document = {
            "mediaType": "application/vnd.dev.sigstore.trustedroot+json;version=0.1",
            "tlogs": [self._log("https://rekor.example", self.rekor_key)],
            "certificateAuthorities": [
                {
                    "subject": {"organization": "team.example", "commonName": "sigstore"},
                    "uri": "https://fulcio.example",
                    "certChain": {"certificates": certificates},
                    "validFor": {"start": self._time(self.now - _YEAR)},
                }
            ],
            "ctlogs": [self._log("https://ct.example", self.ct_key)],
            "timestampAuthorities": [],
            **fields,
        }
        return json.dumps(document).encode()

    def write_trust_root(self, path: Path) -> Path:
        """Write trusted_root.json, and return its path."""
        path.write_bytes(self.trust_root())
        return path

    def sign(
        self,
        statement: bytes,
        identity: str = IDENTITY,
        issuer: str = ISSUER,
        *,
        delay: timedelta = timedelta(0),
        ca_key: ec.EllipticCurvePrivateKey | None = None,
        ct_key: ec.EllipticCurvePrivateKey | None = None,
        rekor_key: ec.EllipticCurvePrivateKey | None = None,
        logged_statement: bytes | None = None,
    ) -> bytes:
        """Sign a statement as an identity; return the bundle.

        Args:
            delay: from the certificate, which is valid for ten minutes, to the log entry.
            ca_key, ct_key, rekor_key: in place of those of the instance.
            logged_statement: what the log entry is about; None: the statement.
        """
        key = make_key()
        certificate = self._certify(key, identity, issuer, ca_key or self.ca_key, ct_key)
        envelope = make_envelope(key, statement)
        logged = statement if logged_statement is None else logged_statement
        entry = self._log_entry(envelope, logged, certificate, delay, rekor_key or self.rekor_key)
        material = {
            "certificate": {"rawBytes": _encode(certificate.public_bytes(Encoding.DER))},
            "tlogEntries": [entry],
        }
        return make_bundle(key, b"", verificationMaterial=material, dsseEnvelope=envelope)

    def _certify(
        self,
        key: ec.EllipticCurvePrivateKey,
        identity: str,
        issuer: str,
        ca_key: ec.EllipticCurvePrivateKey,
        ct_key: ec.EllipticCurvePrivateKey | None,
    ) -> x509.Certificate:
        """Return a certificate with the timestamp of the certificate log.

        Source: RFC 6962, 3.2 and 3.3.
        """
        is_uri = "://" in identity
        name = x509.UniformResourceIdentifier(identity) if is_uri else x509.RFC822Name(identity)
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([]))
            .issuer_name(self.ca.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(self.now)
            .not_valid_after(self.now + timedelta(minutes=10))
            .add_extension(_usage("digital_signature"), critical=True)
            .add_extension(
                x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING]), critical=False
            )
            .add_extension(
                x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False
            )
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self.ca_key.public_key()),
                critical=False,
            )
            .add_extension(x509.SubjectAlternativeName([name]), critical=True)
            .add_extension(x509.UnrecognizedExtension(_ISSUER_OID, issuer.encode()), critical=False)
        )
        tbs = builder.sign(ca_key, SHA256()).tbs_certificate_bytes
        milliseconds = int(self.now.timestamp()) * 1000
        signed = struct.pack("!BBQH", 0, 0, milliseconds, 1)
        signed += _key_id(self.ca_key) + len(tbs).to_bytes(3, "big") + tbs + b"\0\0"
        signature = sign(ct_key or self.ct_key, signed)
        stamp = struct.pack("!B32sQH", 0, _key_id(self.ct_key), milliseconds, 0)
        stamp += struct.pack("!BBH", 4, 3, len(signature)) + signature
        listed = struct.pack("!HH", len(stamp) + 2, len(stamp)) + stamp
        octets = b"\x04" + (
            bytes([len(listed)]) if len(listed) < 128 else bytes([0x81, len(listed)])
        )
        extension = x509.UnrecognizedExtension(_SCT_OID, octets + listed)
        return builder.add_extension(extension, critical=False).sign(ca_key, SHA256())

    def _log_entry(
        self,
        envelope: dict[str, object],
        statement: bytes,
        certificate: x509.Certificate,
        delay: timedelta,
        rekor_key: ec.EllipticCurvePrivateKey,
    ) -> dict[str, object]:
        """Return the entry of a log that has no other one, with its promise and its proof."""
        signatures = envelope["signatures"]
        assert isinstance(signatures, list)
        body = json.dumps(
            {
                "apiVersion": "0.0.1",
                "kind": "dsse",
                "spec": {
                    "envelopeHash": {"algorithm": "sha256", "value": "0" * 64},
                    "payloadHash": {
                        "algorithm": "sha256",
                        "value": hashlib.sha256(statement).hexdigest(),
                    },
                    "signatures": [
                        {
                            "signature": signatures[0]["sig"],
                            "verifier": _encode(certificate.public_bytes(Encoding.PEM)),
                        }
                    ],
                },
            }
        ).encode()
        moment = int((self.now + delay).timestamp())
        promised = {
            "body": _encode(body),
            "integratedTime": moment,
            "logID": _key_id(self.rekor_key).hex(),
            "logIndex": 0,
        }
        promise = sign(rekor_key, json.dumps(promised, separators=(",", ":")).encode())
        root = hashlib.sha256(b"\0" + body).digest()
        note = f"{_ORIGIN}\n1\n{_encode(root)}\n"
        signature = _key_id(self.rekor_key)[:4] + sign(rekor_key, note.encode())
        return {
            "logIndex": "0",
            "logId": {"keyId": _encode(_key_id(self.rekor_key))},
            "kindVersion": {"kind": "dsse", "version": "0.0.1"},
            "integratedTime": str(moment),
            "inclusionPromise": {"signedEntryTimestamp": _encode(promise)},
            "inclusionProof": {
                "logIndex": "0",
                "rootHash": _encode(root),
                "treeSize": "1",
                "hashes": [],
                "checkpoint": {
                    "envelope": f"{note}\n\N{EM DASH} rekor.example {_encode(signature)}\n"
                },
            },
            "canonicalizedBody": _encode(body),
        }

    def _log(self, url: str, key: ec.EllipticCurvePrivateKey) -> dict[str, object]:
        return {
            "baseUrl": url,
            "hashAlgorithm": "SHA2_256",
            "publicKey": {
                "rawBytes": _encode(_spki(key)),
                "keyDetails": "PKIX_ECDSA_P256_SHA_256",
                "validFor": {"start": self._time(self.now - _YEAR)},
            },
            "logId": {"keyId": _encode(_key_id(key))},
        }

    @staticmethod
    def _time(moment: datetime) -> str:
        return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
