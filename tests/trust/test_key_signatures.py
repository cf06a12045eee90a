"""Signatures that were made with keys: which of them count, and what is said of the others."""

from __future__ import annotations

import json
import pickle
from dataclasses import dataclass, field

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.hashes import SHA384, SHA512, HashAlgorithm

from concil.errors import ConnectionLost, UntrustedImage
from concil.oci.manifest import Digest
from concil.transfer.context import TransferContext
from concil.transfer.signatures.verifier import SignatureReader
from concil.trust import signatures
from concil.trust.policy import TrustPolicy
from concil.trust.public_key import PublicKey
from concil.trust.signers import KeySigner
from tests.support.images import Image, make_image, make_index
from tests.support.memory_store import MemoryStore
from tests.support.referrers import digest_tag, make_referrer
from tests.support.signatures import (
    BUNDLE,
    PrivateKey,
    make_bundle,
    make_bundle_referrer,
    make_envelope,
    make_key,
    make_payload,
    make_simple_signature,
    make_statement,
    public_pem,
    sign,
)
from tests.support.store_faults import RefusesRequests
from tests.transfer.image_copies import load

KEY, OTHER_KEY = make_key(), make_key()
IMAGE, OTHER_IMAGE = make_image(1), make_image(2)
INDEX = make_index([IMAGE, OTHER_IMAGE])
SBOM_PREDICATE = "https://spdx.dev/Document"


def policy_of(*keys: PrivateKey) -> TrustPolicy:
    return TrustPolicy(tuple(KeySigner(PublicKey.parse(public_pem(k), "key")) for k in keys))


@dataclass
class Repository:
    """A repository in memory with an image, and signatures of it."""

    image: Image = IMAGE
    store: MemoryStore = field(default_factory=MemoryStore)

    def __post_init__(self) -> None:
        load(self.store, self.image, "v1")

    def add_by_tag(self, signature: Image) -> None:
        load(self.store, signature, digest_tag(self.image, ".sig"))

    def add_referrer(self, signature: Image) -> None:
        load(self.store, signature)

    def verify(self, policy: TrustPolicy) -> None:
        reader = SignatureReader(
            self.store, "v1", "app:v1", TransferContext(), may_read_unannounced=True
        )
        policy.verify(reader, Digest.parse(self.image.digest))

    def refusal(self, policy: TrustPolicy) -> str:
        with pytest.raises(UntrustedImage) as caught:
            self.verify(policy)
        assert caught.value.host == self.store.host
        return caught.value.reason


@pytest.fixture
def repository() -> Repository:
    return Repository()


def bundle_of(key: PrivateKey, image: Image = IMAGE, **fields: object) -> Image:
    return make_bundle_referrer(IMAGE, make_bundle(key, make_statement(image.digest), **fields))


def test_a_signature_by_tag_counts(repository: Repository) -> None:
    repository.add_by_tag(make_simple_signature(KEY, IMAGE))

    repository.verify(policy_of(KEY))
    repository.verify(policy_of(OTHER_KEY, KEY))


def test_a_signature_by_referrer_counts(repository: Repository) -> None:
    repository.add_referrer(make_simple_signature(KEY, IMAGE, subject=IMAGE))

    repository.verify(policy_of(KEY))


def test_a_bundle_counts(repository: Repository) -> None:
    repository.add_referrer(bundle_of(KEY))

    repository.verify(policy_of(KEY))


def test_one_of_several_signatures_is_enough(repository: Repository) -> None:
    repository.add_by_tag(make_simple_signature(OTHER_KEY, IMAGE))
    repository.add_referrer(bundle_of(OTHER_KEY))
    repository.add_referrer(make_referrer(IMAGE, b"an SBOM"))
    repository.add_referrer(bundle_of(KEY))

    repository.verify(policy_of(KEY))


@pytest.mark.parametrize(
    ("key", "algorithm"),
    [
        (ec.generate_private_key(ec.SECP384R1()), None),
        (ec.generate_private_key(ec.SECP384R1()), SHA384()),
        (ec.generate_private_key(ec.SECP521R1()), None),
        (ec.generate_private_key(ec.SECP521R1()), SHA512()),
        (ed25519.Ed25519PrivateKey.generate(), None),
        (rsa.generate_private_key(65537, 2048), None),
    ],
)
def test_keys_of_other_kinds_count(
    repository: Repository, key: PrivateKey, algorithm: HashAlgorithm | None
) -> None:
    payload = make_payload(IMAGE.digest)
    signature = sign(key, payload, algorithm)
    repository.add_by_tag(make_simple_signature(key, IMAGE, signature=signature))

    repository.verify(policy_of(key))
    assert "signed by another key" in repository.refusal(policy_of(KEY))


def test_an_image_without_a_signature_is_refused(repository: Repository) -> None:
    repository.add_referrer(make_referrer(IMAGE, b"an SBOM"))

    assert repository.refusal(policy_of(KEY)) == "no signature was found"


@pytest.mark.parametrize(
    ("signature", "reason"),
    [
        (make_simple_signature(OTHER_KEY, IMAGE), "it is signed by another key"),
        (
            # Changed after it was signed.
            make_simple_signature(
                KEY, IMAGE, signature=sign(KEY, make_payload(IMAGE.digest, more=1))
            ),
            "it is signed by another key, or its signature was changed",
        ),
        (
            make_simple_signature(KEY, OTHER_IMAGE),
            f"its signature is for another digest, '{OTHER_IMAGE.digest}'",
        ),
        (
            make_simple_signature(KEY, IMAGE, b"nonsense"),
            "the payload of its signature is not JSON",
        ),
        (make_simple_signature(KEY, IMAGE, b"[]"), "is not a JSON object"),
        (make_simple_signature(KEY, IMAGE, b'{"critical": 1}'), "has no object 'critical'"),
        (
            make_simple_signature(
                KEY, IMAGE, make_payload(IMAGE.digest)[:-1] + b', "critical": {}}'
            ),
            "a duplicate key",
        ),
        (
            make_simple_signature(KEY, IMAGE, make_payload(IMAGE.digest, type="a photograph")),
            "is of the type 'a photograph'",
        ),
        (make_simple_signature(KEY, IMAGE, signature=b""), "it is signed by another key"),
        (make_simple_signature(KEY, IMAGE, signature=b"\x30\x00"), "it is signed by another key"),
        (
            make_simple_signature(
                KEY, IMAGE, annotations={"dev.cosignproject.cosign/signature": "*nonsense*"}
            ),
            "the annotation of its signature is not Base64",
        ),
        (
            make_simple_signature(
                KEY, IMAGE, make_payload(IMAGE.digest, padding="x" * signatures.MAX_PAYLOAD_SIZE)
            ),
            "its signature is larger than 64 KiB",
        ),
    ],
)
def test_a_signature_by_tag_that_does_not_count(
    repository: Repository, signature: Image, reason: str
) -> None:
    repository.add_by_tag(signature)

    assert reason in repository.refusal(policy_of(KEY))


def statement_bundle(
    statement: bytes, predicate: str = "https://sigstore.dev/cosign/sign/v1"
) -> Image:
    return make_bundle_referrer(IMAGE, make_bundle(KEY, statement), predicate)


@pytest.mark.parametrize(
    ("bundle", "reason"),
    [
        (bundle_of(OTHER_KEY), "it is signed by another key"),
        (bundle_of(KEY, OTHER_IMAGE), "its signature is for another digest"),
        (
            bundle_of(KEY, dsseEnvelope=make_envelope(KEY, b"{}", payload="e30K")),
            "it is signed by another key, or its signature was changed",
        ),
        # An attestation says something of an image, for example that it must not be used.
        (
            statement_bundle(make_statement(IMAGE.digest, SBOM_PREDICATE)),
            f"an attestation of the type '{SBOM_PREDICATE}', which is no signature",
        ),
        (
            statement_bundle(make_statement(IMAGE.digest, SBOM_PREDICATE), SBOM_PREDICATE),
            "no signature was found",
        ),
        (statement_bundle(b"{}"), "its signature is not an in-toto statement"),
        (statement_bundle(b"nonsense"), "the statement of its signature is not JSON"),
        (bundle_of(KEY, mediaType="application/json"), "not a Sigstore bundle of 0.1 to 0.3"),
        (bundle_of(KEY, mediaType=[]), "not a Sigstore bundle of 0.1 to 0.3"),
        (bundle_of(KEY, dsseEnvelope=None), "its Sigstore bundle has no in-toto statement"),
        (
            bundle_of(KEY, dsseEnvelope=make_envelope(KEY, b"{}", payloadType="text/plain")),
            "its Sigstore bundle has no in-toto statement",
        ),
        (
            bundle_of(KEY, dsseEnvelope=make_envelope(KEY, b"{}", signatures=[])),
            "its Sigstore bundle has no list of signatures",
        ),
        (
            bundle_of(KEY, dsseEnvelope=make_envelope(KEY, b"{}", signatures=[{"sig": 1}])),
            "the envelope of its signature is not Base64",
        ),
        (make_bundle_referrer(IMAGE, b"nonsense"), "the bundle of its signature is not JSON"),
        (
            make_bundle_referrer(IMAGE, b" " * (signatures.MAX_BUNDLE_SIZE + 1)),
            "its signature is larger than 1024 KiB",
        ),
    ],
)
def test_a_bundle_that_does_not_count(repository: Repository, bundle: Image, reason: str) -> None:
    repository.add_referrer(bundle)

    assert reason in repository.refusal(policy_of(KEY))


def test_the_most_telling_reason_is_reported(repository: Repository) -> None:
    repository.add_by_tag(make_simple_signature(KEY, OTHER_IMAGE))
    repository.add_referrer(bundle_of(OTHER_KEY))
    repository.add_referrer(make_bundle_referrer(IMAGE, b"nonsense"))

    assert "its signature is for another digest" in repository.refusal(policy_of(KEY))


def test_a_signature_of_a_child_is_not_one_of_its_index() -> None:
    repository = Repository(INDEX)
    load(repository.store, make_simple_signature(KEY, IMAGE), digest_tag(IMAGE, ".sig"))
    repository.add_by_tag(make_simple_signature(KEY, IMAGE))

    assert "its signature is for another digest" in repository.refusal(policy_of(KEY))


def test_a_payload_whose_bytes_are_not_those_of_its_digest_is_refused(
    repository: Repository,
) -> None:
    signature = make_simple_signature(KEY, IMAGE)
    repository.add_by_tag(signature)
    payload = json.loads(signature.manifest)["layers"][0]
    digest = Digest.parse(payload["digest"])
    repository.store.blobs[digest] = b"x" * payload["size"]

    assert "the payload of its signature is damaged" in repository.refusal(policy_of(KEY))
    del repository.store.blobs[digest]
    assert "the payload of its signature is missing" in repository.refusal(policy_of(KEY))


def test_a_signature_counts_beside_a_manifest_that_cannot_be_read(repository: Repository) -> None:
    signature = make_simple_signature(OTHER_KEY, IMAGE)
    document = json.loads(signature.manifest)
    document["layers"][0]["digest"] = "nonsense"
    repository.add_by_tag(Image(signature.media_type, json.dumps(document).encode(), {}))

    assert "the manifest of its signature cannot be used" in repository.refusal(policy_of(KEY))
    repository.add_referrer(bundle_of(KEY))
    repository.verify(policy_of(KEY))


def test_the_number_of_signatures_is_bounded(repository: Repository) -> None:
    document = json.loads(make_simple_signature(OTHER_KEY, IMAGE).manifest)
    good = make_simple_signature(KEY, IMAGE)
    document["layers"] *= signatures.MAX_SIGNATURES
    document["layers"] += json.loads(good.manifest)["layers"]
    many = Image(good.media_type, json.dumps(document).encode(), good.blobs)
    repository.add_by_tag(many)

    assert "another key" in repository.refusal(policy_of(KEY))
    assert repository.store.registry.requests["GET blob"] <= signatures.MAX_SIGNATURES


def test_the_number_of_referrers_that_are_read_is_bounded(repository: Repository) -> None:
    for number in range(signatures.MAX_MANIFESTS + 3):
        repository.add_referrer(make_bundle_referrer(IMAGE, b"%d" % number))

    repository.refusal(policy_of(KEY))

    # And one for the tag, which does not exist.
    assert repository.store.registry.requests["GET manifest"] == signatures.MAX_MANIFESTS + 1


def test_a_request_that_fails_is_no_missing_signature(repository: Repository) -> None:
    repository.store.registry.faults.append(RefusesRequests("GET referrers"))

    with pytest.raises(ConnectionLost):
        repository.verify(policy_of(KEY))


def test_a_policy_is_pickled_by_its_keys(repository: Repository) -> None:
    repository.add_by_tag(make_simple_signature(KEY, IMAGE))
    policy = policy_of(KEY, OTHER_KEY)

    copied: TrustPolicy = pickle.loads(pickle.dumps(policy))

    assert (copied, hash(copied)) == (policy, hash(policy))
    assert copied.policy_id == policy.policy_id == policy_of(OTHER_KEY, KEY).policy_id
    assert policy.policy_id != policy_of(KEY).policy_id
    repository.verify(copied)


def test_a_bundle_may_have_an_older_media_type(repository: Repository) -> None:
    older = "application/vnd.dev.sigstore.bundle+json;version=0.2"
    assert older != BUNDLE
    repository.add_referrer(bundle_of(KEY, mediaType=older))

    repository.verify(policy_of(KEY))
