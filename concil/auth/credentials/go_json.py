"""Decodes JSON with the leniency of Go's decoder, as credential helpers expect."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from concil.oci.strict_json import check_nesting

_WHITE_SPACE = " \t\n\r"  # RFC 8259, 2


def decode(content: bytes) -> Any:  # noqa: ANN401 - the JSON edge
    """Decode the first JSON value and ignore any text after it.

    The names of the outermost object are returned in lower case, because Go ignores their
    case; of names that differ only in case the last one counts. A byte order mark, which
    PowerShell writes, is skipped.

    Raises:
        ValueError: there is no valid value, or it nests too deep; the message may quote the
            content.
    Source: encoding/json, Decoder.Decode and Unmarshal.
    """
    # Only the value itself must be UTF-8, which the encode() below checks.
    text = content.decode("utf-8-sig", "surrogateescape").lstrip(_WHITE_SPACE)
    check_nesting(text)
    value, end = json.JSONDecoder().raw_decode(text)
    text[:end].encode()
    if isinstance(value, dict):
        return {name.casefold(): field for name, field in value.items()}
    return value


def find_key(document: Mapping[str, Any], name: str) -> str:
    """Return an object's spelling of a name, ignoring case; the name itself if it is missing."""
    if name in document:
        return name
    folded = name.casefold()
    return next((key for key in document if key.casefold() == folded), name)
