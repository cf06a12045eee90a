"""Keys, and signatures as cosign makes them: with a tag, and as Sigstore bundles."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TypeAlias

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256, HashAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.support.images import OCI, Image, digest_of
from tests.support.referrers import EMPTY, EMPTY_TYPE

SIMPLE_SIGNING = "application/vnd.dev.cosign.simplesigning.v1+json"
COSIGN_ARTIFACT = "application/vnd.dev.cosign.artifact.sig.v1+json"
BUNDLE = "application/vnd.dev.sigstore.bundle.v0.3+json"
IN_TOTO = "application/vnd.in-toto+json"
SIGN_PREDICATE = "https://sigstore.dev/cosign/sign/v1"
_SIGNATURE = "dev.cosignproject.cosign/signature"

PrivateKey: TypeAlias = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey


def make_key() -> ec.EllipticCurvePrivateKey:
    """Return a new key of the kind that cosign makes."""
    return ec.generate_private_key(ec.SECP256R1())


def public_pem(key: PrivateKey) -> bytes:
    """Return what cosign writes to cosign.pub."""
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def write_public_key(path: Path, key: PrivateKey) -> Path:
    """Write the public key to a file, and return its path."""
    path.write_bytes(public_pem(key))
    return path


def sign(key: PrivateKey, content: bytes, algorithm: HashAlgorithm | None = None) -> bytes:
    """Sign bytes; SHA-256 is the default where the key has a choice."""
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return key.sign(content)
    if isinstance(key, rsa.RSAPrivateKey):
        return key.sign(content, padding.PKCS1v15(), algorithm or SHA256())
    return key.sign(content, ec.ECDSA(algorithm or SHA256()))


def make_payload(digest: str, **critical: object) -> bytes:
    """Return the simple signing payload of a digest."""
    document = {
        "critical": {
            "identity": {"docker-reference": "registry.example/app"},
            "image": {"docker-manifest-digest": digest},
            "type": "cosign container image signature",
            **critical,
        },
        "optional": None,
    }
    return json.dumps(document).encode()


def make_simple_signature(
    key: PrivateKey,
    image: Image,
    payload: bytes | None = None,
    *,
    signature: bytes | None = None,
    subject: Image | None = None,
    annotations: Mapping[str, str] | None = None,
) -> Image:
    """Build what `cosign sign --key` of cosign 2 puts under the tag `sha256-HEX.sig`.

    Args:
        payload: None: that of the image.
        signature: None: that of the payload.
        subject: makes it a referrer, as with COSIGN_EXPERIMENTAL=1.
        annotations: more of the layer.
    """
    content = make_payload(image.digest) if payload is None else payload
    signed = sign(key, content) if signature is None else signature
    encoded = base64.b64encode(signed).decode()
    layer = _descriptor(SIMPLE_SIGNING, content)
    layer["annotations"] = {_SIGNATURE: encoded, **(annotations or {})}
    config = json.dumps({"rootfs": {"type": "layers", "diff_ids": [digest_of(content)]}}).encode()
    document: dict[str, object] = {
        "schemaVersion": 2,
        "mediaType": OCI.manifest,
        "config": _descriptor(OCI.config, config),
        "layers": [layer],
    }
    if subject is not None:
        document |= {
            "artifactType": COSIGN_ARTIFACT,
            "subject": _descriptor(subject.media_type, subject.manifest),
            "annotations": {},
        }
    body = json.dumps(document).encode()
    return Image(OCI.manifest, body, {digest_of(config): config, digest_of(content): content})


def make_statement(digest: str, predicate: str = SIGN_PREDICATE) -> bytes:
    """Return the in-toto statement that `cosign sign` of cosign 3 signs."""
    statement = {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"digest": {"sha256": digest.removeprefix("sha256:")}}],
        "predicateType": predicate,
        "predicate": {},
    }
    return json.dumps(statement).encode()


def encode_pae(payload: bytes) -> bytes:
    """Return what a DSSE signature of a statement is made of."""
    return b"DSSEv1 %d %b %d %b" % (len(IN_TOTO), IN_TOTO.encode(), len(payload), payload)


def make_envelope(key: PrivateKey, statement: bytes, **fields: object) -> dict[str, object]:
    """Return the DSSE envelope of a statement."""
    signature = base64.b64encode(sign(key, encode_pae(statement))).decode()
    return {
        "payload": base64.b64encode(statement).decode(),
        "payloadType": IN_TOTO,
        "signatures": [{"sig": signature}],
        **fields,
    }


def make_bundle(key: PrivateKey, statement: bytes, **fields: object) -> bytes:
    """Return the bundle of a statement that was signed with a key."""
    document: dict[str, object] = {
        "mediaType": BUNDLE,
        "verificationMaterial": {"publicKey": {"hint": "key"}, "tlogEntries": []},
        "dsseEnvelope": make_envelope(key, statement),
        **fields,
    }
    return json.dumps(document).encode()


def make_bundle_referrer(subject: Image, bundle: bytes, predicate: str = SIGN_PREDICATE) -> Image:
    """Build the referrer in which cosign 3 stores a bundle."""
    document = {
        "schemaVersion": 2,
        "mediaType": OCI.manifest,
        "artifactType": BUNDLE,
        "config": _descriptor(EMPTY_TYPE, EMPTY),
        "layers": [_descriptor(BUNDLE, bundle)],
        "subject": _descriptor(subject.media_type, subject.manifest),
        "annotations": {
            "dev.sigstore.bundle.content": "dsse-envelope",
            "dev.sigstore.bundle.predicateType": predicate,
        },
    }
    body = json.dumps(document).encode()
    return Image(OCI.manifest, body, {digest_of(EMPTY): EMPTY, digest_of(bundle): bundle})


def _descriptor(media_type: str, content: bytes) -> dict[str, object]:
    return {"mediaType": media_type, "digest": digest_of(content), "size": len(content)}
