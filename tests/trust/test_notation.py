"""Signatures of Notation: certificates of CAs of the tests, and what is said of the others."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509 import (
    DNSName,
    ExtendedKeyUsage,
    NameConstraints,
    SubjectAlternativeName,
    UnrecognizedExtension,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, ObjectIdentifier

from concil.errors import UntrustedImage, UsageError
from concil.oci.manifest import Digest
from concil.transfer.context import TransferContext
from concil.transfer.signatures.verifier import SignatureReader
from concil.trust.policy import TrustPolicy
from tests.support.images import make_image
from tests.support.memory_store import MemoryStore
from tests.support.notation import (
    EXPIRY,
    JWS,
    SCHEME,
    Certified,
    Key,
    certify,
    make_envelope,
    make_notation_referrer,
    make_payload,
)
from tests.support.referrers import digest_tag
from tests.support.signatures import make_key, make_simple_signature, public_pem, write_public_key
from tests.transfer.image_copies import load

IMAGE, OTHER_IMAGE = make_image(1), make_image(2)
PAYLOAD = make_payload(IMAGE.digest)
CA = certify(is_ca=True)
SIGNER = CA.issue()
FOR_SERVERS = ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])
CONSTRAINTS = NameConstraints([DNSName("team.example")], None)
UNKNOWN = UnrecognizedExtension(ObjectIdentifier("1.3.6.1.4.1.99999.1"), b"\x05\x00")
PAST, FUTURE = timedelta(days=-2), timedelta(days=2)


@dataclass
class Verification:
    """A repository in memory with an image, and certificates that are trusted."""

    directory: Path
    trusted: tuple[Certified, ...] = (CA,)
    store: MemoryStore = field(default_factory=MemoryStore)

    def __post_init__(self) -> None:
        load(self.store, IMAGE, "v1")

    def add(self, envelope: bytes, media_type: str = JWS) -> None:
        load(self.store, make_notation_referrer(IMAGE, envelope, media_type))

    @property
    def policy(self) -> TrustPolicy:
        paths = [c.write(self.directory / f"{n}.crt") for n, c in enumerate(self.trusted)]
        return TrustPolicy.from_certificates(paths)

    def run(self, policy: TrustPolicy | None = None) -> None:
        reader = SignatureReader(
            self.store, "v1", "app:v1", TransferContext(), may_read_unannounced=True
        )
        (policy or self.policy).verify(reader, Digest.parse(IMAGE.digest))

    def refusal(self, policy: TrustPolicy | None = None) -> str:
        with pytest.raises(UntrustedImage) as caught:
            self.run(policy)
        return caught.value.reason


@pytest.fixture
def verification(tmp_path: Path) -> Verification:
    return Verification(tmp_path)


@pytest.mark.parametrize(
    "key",
    [
        ec.generate_private_key(ec.SECP256R1()),
        ec.generate_private_key(ec.SECP384R1()),
        ec.generate_private_key(ec.SECP521R1()),
        rsa.generate_private_key(65537, 2048),
    ],
)
def test_a_certificate_of_a_trusted_ca_counts(verification: Verification, key: Key) -> None:
    verification.add(make_envelope(CA.issue(key), PAYLOAD))

    verification.run()


@pytest.mark.parametrize(
    ("trusted", "signer"),
    [
        (SIGNER, SIGNER),
        (own := certify(), own),
        (between := CA.issue(is_ca=True), between.issue()),
        (CA, between.issue()),
        (
            CA,
            CA.issue(
                is_ca=True, critical=ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING])
            ).issue(critical=SubjectAlternativeName([DNSName("team.example")])),
        ),
    ],
)
def test_certificates_that_are_trusted(
    verification: Verification, trusted: Certified, signer: Certified
) -> None:
    verification.trusted = (certify(is_ca=True), trusted)
    verification.add(make_envelope(signer, PAYLOAD))

    verification.run()


@pytest.mark.parametrize(
    ("envelope", "reason"),
    [
        (
            make_envelope(certify(is_ca=True).issue(), PAYLOAD),
            "its certificate is not one of those that are trusted",
        ),
        (
            # Names its CA, which has not issued it.
            make_envelope(Certified(own.key, (*own.chain, *CA.chain)), PAYLOAD),
            "its certificate is not one of those that are trusted",
        ),
        (
            # A signer is no CA.
            make_envelope(SIGNER.issue(), PAYLOAD),
            "its certificate is not one of those that are trusted",
        ),
        (
            make_envelope(SIGNER, make_payload(OTHER_IMAGE.digest)),
            f"its signature is for another digest, '{OTHER_IMAGE.digest}'",
        ),
        (
            make_envelope(SIGNER, PAYLOAD, payload="e30"),
            "its signature was changed after it was made",
        ),
        (
            make_envelope(SIGNER, PAYLOAD, signature="AAAA"),
            "its signature was changed after it was made",
        ),
        (make_envelope(CA.issue(end=timedelta(seconds=-1)), PAYLOAD), "its certificate expired on"),
        (make_envelope(CA.issue(begin=FUTURE, end=2 * FUTURE), PAYLOAD), "is not valid yet"),
        (
            make_envelope(CA.issue(is_ca=True, end=timedelta(seconds=-1)).issue(), PAYLOAD),
            "its certificate expired on",
        ),
        (
            make_envelope(CA.issue(purpose=ExtendedKeyUsageOID.SERVER_AUTH), PAYLOAD),
            "its certificate is not for signing code",
        ),
        (make_envelope(CA, PAYLOAD), "its certificate is not for signing code"),
        (
            # A CA for servers only does not issue certificates for code.
            make_envelope(CA.issue(is_ca=True, critical=FOR_SERVERS).issue(), PAYLOAD),
            "its certificate is not for signing code",
        ),
        (
            make_envelope(CA.issue(is_ca=True, critical=CONSTRAINTS).issue(), PAYLOAD),
            "its certificate has a restriction that is not supported",
        ),
        (
            make_envelope(CA.issue(critical=UNKNOWN), PAYLOAD),
            "its certificate has a restriction that is not supported",
        ),
        (
            make_envelope(SIGNER, PAYLOAD, {EXPIRY: "2020-01-01T00:00:00Z"}),
            "its signature expired on 2020-01-01",
        ),
        (make_envelope(SIGNER, PAYLOAD, {EXPIRY: 1}), "the expiry of its signature is not a time"),
        (
            make_envelope(SIGNER, PAYLOAD, {"crit": [SCHEME, "io.cncf.notary.verificationPlugin"]}),
            "its signature needs 'io.cncf.notary.verificationPlugin', which is not supported",
        ),
        (make_envelope(SIGNER, PAYLOAD, {"crit": 1}), "no list of critical fields"),
        (
            make_envelope(SIGNER, PAYLOAD, {SCHEME: "notary.x509.signingAuthority"}),
            "its signature has the scheme 'notary.x509.signingAuthority'",
        ),
        (make_envelope(SIGNER, PAYLOAD, {"cty": "text/plain"}), "is of the type 'text/plain'"),
        (make_envelope(SIGNER, PAYLOAD, {"alg": "none"}), "its signature has the algorithm 'none'"),
        (make_envelope(SIGNER, PAYLOAD, {"alg": "HS256"}), "has the algorithm 'HS256'"),
        (
            make_envelope(SIGNER, b"[]"),
            "the payload of its signature is not a JSON object",
        ),
        (make_envelope(SIGNER, b"{}"), "its signature is for another digest, None"),
        (make_envelope(SIGNER, PAYLOAD, header={}), "no list of certificates"),
        (make_envelope(SIGNER, PAYLOAD, header={"x5c": []}), "no list of certificates"),
        (make_envelope(SIGNER, PAYLOAD, header={"x5c": ["AAAA"]}), "a malformed certificate"),
        (make_envelope(SIGNER, PAYLOAD, protected="*"), "is not Base64"),
        (make_envelope(SIGNER, PAYLOAD, payload="\ud800"), "is not Base64"),
        (b"nonsense", "the envelope of its signature is not JSON"),
    ],
)
def test_an_envelope_that_does_not_count(
    verification: Verification, envelope: bytes, reason: str
) -> None:
    verification.add(envelope)

    assert reason in verification.refusal()


@pytest.mark.parametrize(
    ("original", "changed"),
    [
        # The kind of the key, and the algorithm of the CA's signature.
        (bytes.fromhex("06072a8648ce3d0201"), bytes.fromhex("06072a8648ce3d0209")),
        (bytes.fromhex("06082a8648ce3d040302"), bytes.fromhex("06082a8648ce3d04037f")),
        (bytes.fromhex("0603551d0f"), bytes.fromhex("0603551d13")),  # an extension twice
        (bytes.fromhex("a003020102"), bytes.fromhex("a003020107")),  # a version that does not exist
    ],
)
def test_certificates_of_unknown_kinds_do_not_count(
    verification: Verification, original: bytes, changed: bytes
) -> None:
    document = json.loads(make_envelope(SIGNER, PAYLOAD))
    certificates = [base64.b64decode(entry) for entry in document["header"]["x5c"]]
    assert original in certificates[0]
    certificates[0] = certificates[0].replace(original, changed)
    document["header"]["x5c"] = [base64.b64encode(each).decode() for each in certificates]
    verification.add(json.dumps(document).encode())

    assert verification.refusal()


def test_a_signature_that_has_not_expired_counts(verification: Verification) -> None:
    later = (datetime.now(UTC) + FUTURE).isoformat(timespec="seconds")
    verification.add(make_envelope(SIGNER, PAYLOAD, {EXPIRY: later, "crit": [SCHEME, EXPIRY]}))

    verification.run()


def test_an_expired_ca_is_trusted_no_longer(verification: Verification) -> None:
    old = certify(is_ca=True, begin=2 * PAST, end=PAST)
    verification.trusted = (old,)
    verification.add(make_envelope(old.issue(), PAYLOAD))

    assert "its certificate expired on" in verification.refusal()


def test_envelopes_in_cose_are_named(verification: Verification) -> None:
    verification.add(b"\xd2\x84", "application/cose")

    assert "is in COSE, and only JWS is supported" in verification.refusal()


def test_keys_and_certificates_are_not_mixed_up(verification: Verification, tmp_path: Path) -> None:
    key = make_key()
    keys = TrustPolicy.from_keys([write_public_key(tmp_path / "cosign.pub", key)])
    verification.add(make_envelope(SIGNER, PAYLOAD))
    assert "with a certificate of Notation, not with a key" in verification.refusal(keys)
    verification.run(TrustPolicy(keys.signers + verification.policy.signers))

    verification.store = MemoryStore()
    load(verification.store, IMAGE, "v1")
    load(verification.store, make_simple_signature(key, IMAGE), digest_tag(IMAGE, ".sig"))
    assert "it is signed with cosign, not with a certificate" in verification.refusal()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is not a certificate"),
        (public_pem(make_key()), "is not a certificate"),
        (b"-----BEGIN PRIVATE KEY-----\n", "this has a private key"),
    ],
)
def test_a_file_that_is_no_certificate(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "ca.crt"
    path.write_bytes(content)

    with pytest.raises(UsageError, match=r"ca\.crt") as caught:
        TrustPolicy.from_certificates([path])

    assert message in str(caught.value)
