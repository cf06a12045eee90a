"""Reads JSON as Go's decoder does: what credential helpers and token services are tried with."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

_WHITE_SPACE = " \t\n\r"  # RFC 8259, 2


def decode(content: bytes) -> Any:  # noqa: ANN401 - the JSON edge
    """Read the first value; what stands behind it does not count.

    The names of the outermost object are in lower case in what is returned, for their case
    does not matter; of two that differ in nothing else the last one counts. A byte order mark
    is passed over, as PowerShell writes one.

    Raises:
        ValueError, RecursionError: it begins with no value; the error may quote it.
    Source: encoding/json, Decoder.Decode and Unmarshal.
    """
    # Text behind the value need not be UTF-8; within it such bytes make no sense.
    text = content.decode("utf-8-sig", "surrogateescape").lstrip(_WHITE_SPACE)
    value, end = json.JSONDecoder().raw_decode(text)
    text[:end].encode()
    if isinstance(value, dict):
        return {name.casefold(): field for name, field in value.items()}
    return value


def name_in(document: Mapping[str, Any], name: str) -> str:
    """Return how an object spells a name; the name itself if it does not have it."""
    if name in document:
        return name
    folded = name.casefold()
    return next((each for each in document if each.casefold() == folded), name)
