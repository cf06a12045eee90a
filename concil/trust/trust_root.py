"""Reads trusted_root.json, the trust root of a Sigstore instance, as far as its dates."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from concil.errors import UsageError, safe_repr
from concil.fs.small_file import read_small_file
from concil.oci.strict_json import InvalidJSON, parse_json

MAX_SIZE = 4 * 1024 * 1024  # bytes
_REMEDY = "give the trusted_root.json of the Sigstore instance"


def read_trust_root(path: str | Path) -> bytes:
    """Read a trust root.

    Raises:
        UsageError: it cannot be read, or is not a JSON object.
    """
    name = safe_repr(str(path))
    content = read_small_file(path, MAX_SIZE, _REMEDY)
    try:
        document = parse_json(content)
    except InvalidJSON as error:
        raise UsageError(f"{name} is no trust root: it is {error}", remedy=_REMEDY) from error
    if not isinstance(document, dict) or "certificateAuthorities" not in document:
        raise UsageError(f"{name} is no trust root", remedy=_REMEDY)
    return content


def find_expiry(trust_root: bytes) -> datetime | None:
    """Return when the last certificate authority of a trust root expires; None: never.

    An authority ends with its period in the trust root, or with the first certificate of its
    chain. What it has signed before is valid; but a trust root without a current one is out of
    date, and may name keys that have been withdrawn.
    """
    ends = [_end_of(authority) for authority in parse_json(trust_root)["certificateAuthorities"]]
    if not ends or None in ends:
        return None
    return max(end for end in ends if end is not None)


def _end_of(authority: dict[str, Any]) -> datetime | None:
    return min(_ends_of(authority), default=None)


def _ends_of(authority: dict[str, Any]) -> Iterator[datetime]:
    from cryptography.x509 import load_der_x509_certificate  # noqa: PLC0415  # an extra

    end = authority.get("validFor", {}).get("end")
    if end:
        moment = datetime.fromisoformat(end)
        yield moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    for entry in authority["certChain"]["certificates"]:
        yield load_der_x509_certificate(base64.b64decode(entry["rawBytes"])).not_valid_after_utc
