"""Tags that are made of a digest: under them is listed what refers to a manifest."""

from __future__ import annotations

import re

from concil.digest import Digest

_DIGEST_TAG = re.compile(r"(sha(?:256|512)-[0-9a-f]{64})(\.[a-zA-Z0-9._-]+)?")
_PINNED = re.compile(r"sha(?:256|512):.*", re.DOTALL)


def digest_tag(digest: Digest) -> str:
    """The tag that stands for a digest: what refers to that manifest is listed under it.

    Source: distribution-spec, "Referrers Tag Schema".
    """
    return f"{digest.algorithm[:32]}-{digest.hex[:64]}"


def digest_tag_parts(tag: str) -> tuple[str, str] | None:
    """The digest's tag in a tag, and the suffix that cosign has put behind it; None: neither."""
    found = _DIGEST_TAG.fullmatch(tag)
    return None if found is None else (found[1], found[2] or "")


def sibling(reference: str, tag: str) -> str:
    """What a tag is called beside an image of the same repository.

    In a layout the names of images may have the repository in front; in a registry a
    reference is a tag or a digest, and the tag stays as it is.
    """
    if _PINNED.fullmatch(reference):
        return tag
    repository, colon, last = reference.partition("@")[0].rpartition(":")
    return f"{repository}:{tag}" if colon and "/" not in last else tag
