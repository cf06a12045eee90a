"""Reads Link headers: where the next page of a list is."""

from __future__ import annotations

import re

LONGEST = 8 * 1024  # characters of a header that are read
_PARAMETER = re.compile(r"\s*([A-Za-z*]+)\s*=\s*(?:\"([^\"]*)\"|([^\s\",;]*))\s*")


def next_link(header: str) -> str | None:
    """Return the target of the link whose relation is ``next``, as it is written; None: none.

    The angle brackets may be missing, and quotes around the relation: registries do that.

    Source: RFC 8288; distribution-spec, "Listing Tags"; REGISTRIES.md 2.20.
    """
    # Two expressions that scan to the end from every start would need hours for 64 KiB.
    rest = header[:LONGEST]
    while rest:
        target, rest = _target(rest)
        relations, rest = _relations(rest)
        if target and "next" in relations:
            return target
    return None


def _target(text: str) -> tuple[str, str]:
    """A target and what stands behind it."""
    text = text.lstrip(" \t,")
    if text.startswith("<"):
        target, _, rest = text[1:].partition(">")
    else:
        target = text.partition(";")[0]
        rest = text[len(target) :]
    return target.strip(), rest.lstrip()


def _relations(text: str) -> tuple[list[str], str]:
    """The relations among the parameters of a link, and what stands behind its comma."""
    relations: list[str] = []
    while text.startswith(";"):
        found = _PARAMETER.match(text, 1)
        if found is None:
            break
        if found[1].lower() == "rel":
            relations += (found[2] if found[2] is not None else found[3]).lower().split()
        text = text[found.end() :]
    return relations, text.partition(",")[2]
