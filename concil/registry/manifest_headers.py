"""Descriptors and digests in the headers of manifest responses."""

from __future__ import annotations

import requests

from concil.errors import (
    DigestMismatch,
    InvalidDigest,
)
from concil.http.transport import content_length
from concil.oci.descriptor import Descriptor
from concil.oci.manifest import Digest, Verifier
from concil.oci.media_types import ACCEPTED_TYPES

__all__ = ["find_mismatch", "parse_descriptor"]


def find_mismatch(
    reference: str, body: bytes, response: requests.Response, operation: str
) -> DigestMismatch | None:
    """Return the mismatch of a body with its digest or Docker-Content-Digest, or None."""
    digest_text = (
        reference if ":" in reference else response.headers.get("Docker-Content-Digest", "")
    )
    try:
        expected = Digest.parse(digest_text)
    except InvalidDigest:
        return None
    verifier = Verifier(expected.algorithm)
    verifier.update(body)
    try:
        verifier.verify(expected, None, operation)
    except DigestMismatch as error:
        return error
    return None


def parse_descriptor(response: requests.Response) -> Descriptor | None:
    """Return the descriptor in the headers of a HEAD; None if it is incomplete."""
    length = content_length(response)
    media_type = response.headers.get("Content-Type", "").partition(";")[0].strip()
    try:
        digest = Digest.parse(response.headers.get("Docker-Content-Digest", ""))
    except InvalidDigest:
        return None
    if response.status_code != requests.codes.ok or media_type not in ACCEPTED_TYPES:
        return None
    return None if length is None else Descriptor(media_type, digest, length)
