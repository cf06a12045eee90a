"""Tags derived from digests: the referrers tag schema and the tags of cosign."""

from __future__ import annotations

import re

from concil.oci.digest import Digest

_DIGEST_TAG = re.compile(r"(sha(?:256|512)-[0-9a-f]{64})(\.[a-zA-Z0-9._-]+)?")
_DIGEST = re.compile(r"sha(?:256|512):.*", re.DOTALL)


def referrers_tag(digest: Digest) -> str:
    """Return the referrers tag of a digest.

    Source: distribution-spec, "Referrers Tag Schema".
    """
    return f"{digest.algorithm[:32]}-{digest.hex[:64]}"


def split_digest_tag(tag: str) -> tuple[str, str] | None:
    """Split a tag into a digest tag and the suffix that cosign appends; None for other tags."""
    match = _DIGEST_TAG.fullmatch(tag)
    return None if match is None else (match[1], match[2] or "")


def tag_beside_image(image_reference: str, tag: str) -> str:
    """Return the full form of a tag in the repository of an image.

    Image names in a layout may begin with the repository. In a registry a reference is only
    a tag or a digest, and the tag is returned unchanged.
    """
    if _DIGEST.fullmatch(image_reference):
        return tag
    repository, colon, last = image_reference.partition("@")[0].rpartition(":")
    return f"{repository}:{tag}" if colon and "/" not in last else tag
