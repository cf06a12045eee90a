"""Reads what a signature says: simple signing payloads of cosign, and in-toto statements."""

from __future__ import annotations

import base64
import binascii
from typing import Any

from concil.errors import safe_repr
from concil.oci.manifest import Digest
from concil.oci.strict_json import InvalidJSON, parse_json
from concil.trust.rejection import Reason, Rejection

COSIGN_TYPE = "cosign container image signature"
STATEMENT_TYPES = ("https://in-toto.io/Statement/v1", "https://in-toto.io/Statement/v0.1")
IN_TOTO = "application/vnd.in-toto+json"
# What `cosign sign` says of an image. Statements with other predicates, such as SBOMs and scans,
# are signed with the same key, and do not say that the image may be used.
SIGN_PREDICATE = "https://sigstore.dev/cosign/sign/v1"
_MAX_PARTS = 10_000  # lists, objects and commas in a document


def check_simple_signing(payload: bytes, digest: Digest) -> None:
    """Check that a simple signing payload is about an image.

    The ``docker-reference`` is not compared, as in cosign: an image that was moved with its
    signature to another repository is the same image.

    Raises:
        Rejection: it is not, or is malformed.
    Source: containers/image, "container-signature(5)"; cosign, specs/SIGNATURE_SPEC.md.
    """
    critical = _object(parse_object(payload, "payload"), "critical")
    kind = critical.get("type")
    if kind != COSIGN_TYPE:
        raise Rejection(
            Reason.UNSUPPORTED, f"the payload of its signature is of the type {safe_repr(kind)}"
        )
    signed = _object(critical, "image").get("docker-manifest-digest")
    if signed != str(digest):
        raise other_digest(signed)


def check_statement(payload: bytes, digest: Digest) -> None:
    """Check that an in-toto statement is the signature of an image.

    Raises:
        Rejection: it is not, or is malformed.
    Source: in-toto attestation, spec/v1/statement.md.
    """
    statement = parse_object(payload, "statement")
    if statement.get("_type") not in STATEMENT_TYPES:
        raise Rejection(Reason.UNSUPPORTED, "its signature is not an in-toto statement")
    predicate = statement.get("predicateType")
    if predicate != SIGN_PREDICATE:
        raise Rejection(
            Reason.UNSUPPORTED,
            f"it has an attestation of the type {safe_repr(predicate)}, which is no signature",
        )
    subjects = statement.get("subject")
    if not isinstance(subjects, list) or not subjects:
        raise Rejection(Reason.MALFORMED, "the statement of its signature has no subject")
    signed = [
        digests.get(digest.algorithm)
        for digests in (s.get("digest") for s in subjects if isinstance(s, dict))
        if isinstance(digests, dict)
    ]
    if digest.hex not in signed:
        raise other_digest(f"{digest.algorithm}:{signed[0]}" if signed else None)


def other_digest(signed: object) -> Rejection:
    """Return the rejection of a valid signature of another image."""
    return Rejection(
        Reason.OTHER_DIGEST, f"its signature is for another digest, {safe_repr(signed)}"
    )


def parse_object(content: bytes, name: str) -> dict[str, Any]:
    """Parse a JSON object.

    Args:
        name: of the document, for the message.
    Raises:
        Rejection: it is not a JSON object.
    """
    try:
        document = parse_json(content, max_parts=_MAX_PARTS)
    except InvalidJSON as error:
        raise Rejection(Reason.MALFORMED, f"the {name} of its signature is {error}") from error
    if not isinstance(document, dict):
        raise Rejection(Reason.MALFORMED, f"the {name} of its signature is not a JSON object")
    return document


def decode_base64(text: object, name: str) -> bytes:
    """Decode standard Base64.

    Raises:
        Rejection: it is not Base64.
    """
    try:
        if isinstance(text, str):
            return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        pass
    raise Rejection(Reason.MALFORMED, f"the {name} of its signature is not Base64")


def _object(document: dict[str, Any], name: str) -> dict[str, Any]:
    value = document.get(name)
    if not isinstance(value, dict):
        raise Rejection(
            Reason.MALFORMED, f"the payload of its signature has no object {safe_repr(name)}"
        )
    return value
