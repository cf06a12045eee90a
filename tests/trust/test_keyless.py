"""Signatures without keys, by a Sigstore instance of the tests: verified without a request."""

from __future__ import annotations

import json
import socket
import sys
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import pytest

from concil.errors import UntrustedImage, UsageError
from concil.oci.manifest import Digest
from concil.transfer.context import TransferContext
from concil.transfer.signatures.verifier import SignatureReader
from concil.trust.policy import TrustPolicy
from tests.support.images import make_image
from tests.support.memory_store import MemoryStore
from tests.support.referrers import digest_tag
from tests.support.signatures import (
    make_bundle,
    make_bundle_referrer,
    make_key,
    make_simple_signature,
    make_statement,
    write_public_key,
)
from tests.support.sigstore_instance import IDENTITY, ISSUER, SigstoreInstance
from tests.transfer.image_copies import load

pytest.importorskip("sigstore")

IMAGE, OTHER_IMAGE = make_image(1), make_image(2)
INSTANCE, OTHER_INSTANCE = SigstoreInstance(), SigstoreInstance()
STATEMENT = make_statement(IMAGE.digest)
KEY = make_key()


@dataclass
class Verification:
    """A repository in memory with an image, and a policy for an identity."""

    policy: TrustPolicy
    store: MemoryStore = field(default_factory=MemoryStore)

    def __post_init__(self) -> None:
        load(self.store, IMAGE, "v1")

    def add(self, bundle: bytes) -> None:
        load(self.store, make_bundle_referrer(IMAGE, bundle))

    def run(self) -> None:
        reader = SignatureReader(
            self.store, "v1", "app:v1", TransferContext(), may_read_unannounced=True
        )
        self.policy.verify(reader, Digest.parse(IMAGE.digest))

    def refusal(self) -> str:
        with pytest.raises(UntrustedImage) as caught:
            self.run()
        return caught.value.reason


@pytest.fixture
def trust_root(tmp_path: Path) -> Path:
    return INSTANCE.write_trust_root(tmp_path / "trusted_root.json")


@pytest.fixture
def verification(trust_root: Path, monkeypatch: pytest.MonkeyPatch) -> Verification:
    def refuse(*words: object) -> None:
        raise AssertionError("a request was sent")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    return Verification(TrustPolicy.from_identity(IDENTITY, ISSUER, trust_root))


def test_a_signature_of_the_identity_counts(verification: Verification) -> None:
    verification.add(INSTANCE.sign(STATEMENT, "somebody@else.example"))
    verification.add(INSTANCE.sign(STATEMENT))

    verification.run()


def test_a_workflow_is_an_identity_as_well(trust_root: Path) -> None:
    workflow = "https://git.example/team/app/.github/workflows/release.yml@refs/heads/main"
    verification = Verification(TrustPolicy.from_identity(workflow, ISSUER, trust_root))
    verification.add(INSTANCE.sign(STATEMENT, workflow))

    verification.run()


@pytest.mark.parametrize(
    ("bundle", "reason"),
    [
        (
            INSTANCE.sign(STATEMENT, "somebody@else.example"),
            "it is signed by another identity, or of another issuer",
        ),
        (
            INSTANCE.sign(STATEMENT, issuer="https://login.else.example"),
            "it is signed by another identity, or of another issuer",
        ),
        (
            INSTANCE.sign(make_statement(OTHER_IMAGE.digest)),
            f"its signature is for another digest, '{OTHER_IMAGE.digest}'",
        ),
        (
            INSTANCE.sign(make_statement(IMAGE.digest, "https://spdx.dev/Document")),
            "which is no signature",
        ),
        (
            INSTANCE.sign(STATEMENT, delay=timedelta(minutes=11)),
            "its certificate was not valid when it was signed",
        ),
        (
            INSTANCE.sign(STATEMENT, delay=timedelta(minutes=-1)),
            "its certificate was not valid when it was signed",
        ),
        (OTHER_INSTANCE.sign(STATEMENT), "its certificate is not of a CA of the trust root"),
        (
            INSTANCE.sign(STATEMENT, ca_key=make_key()),
            "its certificate is not of a CA of the trust root",
        ),
        (INSTANCE.sign(STATEMENT, ct_key=make_key()), "failed to verify SCT"),
        (INSTANCE.sign(STATEMENT, rekor_key=make_key()), "invalid log entry"),
        (
            INSTANCE.sign(STATEMENT, logged_statement=make_statement(OTHER_IMAGE.digest)),
            "log entry payload hash does not match bundle",
        ),
        (make_bundle(KEY, STATEMENT), "its Sigstore bundle is not keyless"),
        (b"nonsense", "the bundle of its signature is not JSON"),
    ],
)
def test_a_signature_that_does_not_count(
    verification: Verification, bundle: bytes, reason: str
) -> None:
    verification.add(bundle)

    assert reason in verification.refusal()


def change(bundle: bytes, *path: str, value: object) -> bytes:
    """Return the bundle with another value at a path."""
    document = json.loads(bundle)
    inner = document
    for name in path[:-1]:
        inner = inner[int(name) if name.isdigit() else name]
    inner[path[-1]] = value
    return json.dumps(document).encode()


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("dsseEnvelope", "payload"), "e30K"),
        (("dsseEnvelope", "signatures"), [{"sig": "AAAA"}]),
        (("verificationMaterial", "tlogEntries"), []),
        (("verificationMaterial", "tlogEntries", "0", "inclusionPromise"), None),
        (("verificationMaterial", "tlogEntries", "0", "inclusionProof"), None),
        (("verificationMaterial", "tlogEntries", "0", "integratedTime"), "1"),
        (("verificationMaterial", "tlogEntries", "0", "canonicalizedBody"), "e30K"),
        (("verificationMaterial", "certificate"), {"rawBytes": "AAAA"}),
        (("verificationMaterial", "certificate"), 1),
        (("verificationMaterial",), []),
    ],
)
def test_a_bundle_that_was_changed_does_not_count(
    verification: Verification, path: tuple[str, ...], value: object
) -> None:
    verification.add(change(INSTANCE.sign(STATEMENT), *path, value=value))

    assert verification.refusal()


def test_older_signatures_of_cosign_are_named(verification: Verification) -> None:
    certificate = {"dev.sigstore.cosign/certificate": "PEM", "dev.sigstore.cosign/bundle": "{}"}
    signature = make_simple_signature(KEY, IMAGE, annotations=certificate)
    load(verification.store, signature, digest_tag(IMAGE, ".sig"))

    assert "older format of cosign 2, which cannot be verified offline" in verification.refusal()
    verification.add(INSTANCE.sign(STATEMENT))
    verification.run()


def test_a_key_or_an_identity_may_sign(verification: Verification, tmp_path: Path) -> None:
    keys = TrustPolicy.from_keys([write_public_key(tmp_path / "cosign.pub", KEY)])
    verification.policy = TrustPolicy(keys.signers + verification.policy.signers)
    for signed in (make_bundle(KEY, STATEMENT), INSTANCE.sign(STATEMENT)):
        verification.store = MemoryStore()
        load(verification.store, IMAGE, "v1")
        verification.add(signed)

        verification.run()


def test_an_expired_trust_root_is_refused(
    tmp_path: Path, verification: Verification, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = SigstoreInstance(ca_lifetime=timedelta(days=100))
    path = old.write_trust_root(tmp_path / "old.json")
    ended = json.loads(INSTANCE.trust_root())
    ended["certificateAuthorities"][0]["validFor"]["end"] = "2022-12-31T23:59:59Z"
    (tmp_path / "ended.json").write_text(json.dumps(ended))

    for each, date in ((path, ""), (tmp_path / "ended.json", "2022-12-31")):
        with pytest.raises(UsageError, match=f"the trust root .* expired on {date}") as caught:
            TrustPolicy.from_identity(IDENTITY, ISSUER, each)
        assert "give the current trusted_root.json" in caught.value.remedy
    # One may expire while a service runs.
    verification.add(INSTANCE.sign(STATEMENT))
    later = INSTANCE.now + timedelta(days=20 * 365)
    monkeypatch.setattr("concil.trust.keyless._now", lambda: later)
    assert "the trust root expired on" in verification.refusal()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is no trust root: it is not JSON"),
        (b"[]", "is no trust root"),
        (b"{}", "is no trust root"),
        (b'{"certificateAuthorities": 1}', "cannot be used as a trust root"),
        (INSTANCE.trust_root(certificateAuthorities=[]), "cannot be used as a trust root"),
        (INSTANCE.trust_root(tlogs=[]), "cannot be used as a trust root"),
        (INSTANCE.trust_root(mediaType="text/plain"), "cannot be used as a trust root"),
        (b" " * (5 << 20), "is larger than 4 MiB"),
    ],
)
def test_a_file_that_is_no_trust_root(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "root.json"
    path.write_bytes(content)

    with pytest.raises(UsageError, match=r"root\.json") as caught:
        TrustPolicy.from_identity(IDENTITY, ISSUER, path)

    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_identity_without_issuer_is_refused(trust_root: Path) -> None:
    with pytest.raises(UsageError, match="an identity needs its issuer"):
        TrustPolicy.from_identity(IDENTITY, "", trust_root)


def test_without_the_package_it_is_said_what_to_install(
    trust_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "sigstore.verify", None)

    with pytest.raises(UsageError, match="needs the package sigstore") as caught:
        TrustPolicy.from_identity(IDENTITY, ISSUER, trust_root)

    assert caught.value.remedy == "type: pip install 'concil[keyless]'"
