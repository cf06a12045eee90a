"""Finds the signatures of an image: by the tag that cosign 2 writes, and among its referrers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeAlias

from concil.config import KIB
from concil.errors import ConcilError, ContentError, InvalidDigest, InvalidManifest, NotFound
from concil.oci.descriptor import Descriptor
from concil.oci.manifest import Digest, Manifest
from concil.runtime.dataclass import dataclass
from concil.transfer.signatures.verifier import SignatureReader
from concil.trust.rejection import Reason, Rejection
from concil.trust.signed_payload import SIGN_PREDICATE, decode_base64

SIGNATURE_SUFFIX = ".sig"
SIMPLE_SIGNING = "application/vnd.dev.cosign.simplesigning.v1+json"
COSIGN_ARTIFACT = "application/vnd.dev.cosign.artifact.sig.v1+json"
BUNDLE_PREFIX = "application/vnd.dev.sigstore.bundle"  # with a version behind it
NOTATION = "application/vnd.cncf.notary.signature"
JWS, COSE = "application/jose+json", "application/cose"
_SIGNATURE_ANNOTATION = "dev.cosignproject.cosign/signature"
_CERTIFICATE_ANNOTATION = "dev.sigstore.cosign/certificate"
_PREDICATE_ANNOTATION = "dev.sigstore.bundle.predicateType"

MAX_SIGNATURES = 64  # of one image; an image has one for each signer
MAX_MANIFESTS = 64  # that are read to find them
MAX_PAYLOAD_SIZE = 64 * KIB  # bytes
MAX_BUNDLE_SIZE = 1024 * KIB  # bytes


@dataclass(frozen=True, slots=True)
class SimpleSignature:
    """A signature of a simple signing payload."""

    payload: bytes
    signature: bytes
    has_certificate: bool  # it was made with a key that a certificate names


@dataclass(frozen=True, slots=True)
class BundledSignature:
    """A Sigstore bundle, which has not been parsed."""

    content: bytes


@dataclass(frozen=True, slots=True)
class NotationSignature:
    """A JWS envelope of Notation, which has not been parsed."""

    content: bytes


Signature: TypeAlias = SimpleSignature | BundledSignature | NotationSignature


def find_signatures(reader: SignatureReader, digest: Digest) -> Iterator[Signature | Rejection]:
    """Yield the signatures of a manifest or index, and why others cannot be used.

    That a manifest refers to the image proves nothing: what is signed says to which it belongs.

    Raises:
        ConcilError: they cannot be read.
    """
    count = 0
    for manifest in _find_manifests(reader, digest):
        if isinstance(manifest, Rejection):
            yield manifest
            continue
        is_notation = manifest.artifact_type == NOTATION
        try:
            layers = manifest.blobs()
        except (ContentError, InvalidDigest) as error:
            yield _unusable_manifest(error)
            continue
        for layer in layers:
            if not _is_signature(layer, is_notation=is_notation):
                continue
            count += 1
            if count > MAX_SIGNATURES:
                yield Rejection(
                    Reason.MALFORMED, f"only its first {MAX_SIGNATURES} signatures are verified"
                )
                return
            try:
                yield _read_signature(reader, layer)
            except Rejection as rejection:
                yield rejection


def _find_manifests(reader: SignatureReader, digest: Digest) -> Iterator[Manifest | Rejection]:
    """Yield the manifests that have signatures as layers."""
    tagged: Manifest | None = None
    try:
        tagged = reader.find_by_tag(digest, SIGNATURE_SUFFIX)
    except ContentError as error:
        yield _unusable_manifest(error)
    if tagged is not None:
        yield tagged
    read_digests = {tagged.digest} if tagged is not None else set[Digest]()
    for entry in reader.referrers(digest):
        if entry.digest in read_digests or not entry.is_manifest or not _may_be_signature(entry):
            continue
        if len(read_digests) >= MAX_MANIFESTS:
            yield Rejection(Reason.MALFORMED, f"only its first {MAX_MANIFESTS} referrers are read")
            return
        read_digests.add(entry.digest)
        try:
            manifest = reader.find_by_digest(entry.digest)
        except ContentError as error:
            yield _unusable_manifest(error)
            continue
        if manifest is not None and not manifest.is_index:
            yield manifest


def _unusable_manifest(error: ConcilError) -> Rejection:
    return Rejection(Reason.MALFORMED, f"the manifest of its signature cannot be used: {error}")


def _may_be_signature(entry: Descriptor) -> bool:
    """Whether a referrer may have a signature, by its descriptor.

    Attestations are bundles, too. A descriptor may lack the annotation that says so.
    """
    if entry.artifact_type.startswith(BUNDLE_PREFIX):
        return entry.annotations.get(_PREDICATE_ANNOTATION, SIGN_PREDICATE) == SIGN_PREDICATE
    return entry.artifact_type in ("", COSIGN_ARTIFACT, NOTATION) or entry.artifact_type.startswith(
        "application/vnd.oci."  # the config of a signature of cosign 2 that has no artifact type
    )


def _is_signature(layer: Descriptor, *, is_notation: bool) -> bool:
    """Whether a layer is a signature.

    Args:
        is_notation: it is in a manifest of Notation, whose layers have types of no meaning of
            their own.
    """
    if is_notation:
        return layer.media_type in {JWS, COSE}
    return layer.media_type == SIMPLE_SIGNING or layer.media_type.startswith(BUNDLE_PREFIX)


def _read_signature(reader: SignatureReader, layer: Descriptor) -> Signature:
    """Read one signature.

    Raises:
        Rejection: it is too large, missing or malformed.
    """
    if layer.media_type == COSE:
        raise Rejection(
            Reason.UNSUPPORTED, "its signature of Notation is in COSE, and only JWS is supported"
        )
    is_simple = layer.media_type == SIMPLE_SIGNING
    signature = b""
    if is_simple:
        # Decoded before the payload is read: the annotation is within the limit for manifests.
        annotation = layer.annotations.get(_SIGNATURE_ANNOTATION)
        signature = decode_base64(annotation, "annotation")
    limit = MAX_PAYLOAD_SIZE if is_simple else MAX_BUNDLE_SIZE
    try:
        content = reader.read_blob(layer, limit)
    except InvalidManifest as error:
        raise Rejection(
            Reason.MALFORMED, f"its signature is larger than {limit // KIB} KiB"
        ) from error
    except ContentError as error:
        raise Rejection(Reason.MALFORMED, "the payload of its signature is damaged") from error
    except NotFound as error:
        raise Rejection(Reason.MALFORMED, "the payload of its signature is missing") from error
    if is_simple:
        return SimpleSignature(content, signature, _CERTIFICATE_ANNOTATION in layer.annotations)
    return NotationSignature(content) if layer.media_type == JWS else BundledSignature(content)
