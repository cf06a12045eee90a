"""Names the endpoint of a URL without what may be secret in it."""

from __future__ import annotations

import re
import urllib.parse

_DIGEST = re.compile(r"\b[0-9a-f]{64}\b")
_TEMPLATES = (
    (re.compile(r"/v2/?"), "/v2/"),
    (re.compile(r"/v2/_catalog"), "/v2/_catalog"),
    (re.compile(r"/v2/.+/tags/list"), "/v2/{name}/tags/list"),
    (re.compile(r"/v2/.+/manifests/[^/]+"), "/v2/{name}/manifests/{reference}"),
    (re.compile(r"/v2/.+/referrers/[^/]+"), "/v2/{name}/referrers/{digest}"),
    (re.compile(r"/v2/.+/blobs/uploads/?"), "/v2/{name}/blobs/uploads/"),
    (re.compile(r"/v2/.+/blobs/uploads/.+"), "/v2/{name}/blobs/uploads/{session}"),
    (re.compile(r"/v2/.+/blobs/[^/]+"), "/v2/{name}/blobs/{digest}"),
)


def url_template(url: str) -> str:
    """Return the endpoint of the distribution specification; "" for any other URL."""
    path = _path(url)
    return next((text for pattern, text in _TEMPLATES if pattern.fullmatch(path)), "")


def digest_in(url: str) -> str:
    """Return the digest of the blob that a URL names, also one of a storage host; "" for none."""
    found = _DIGEST.search(_path(url))
    return f"sha256:{found[0]}" if found is not None else ""


def _path(url: str) -> str:
    try:
        return urllib.parse.urlsplit(url).path
    except ValueError:
        return ""
