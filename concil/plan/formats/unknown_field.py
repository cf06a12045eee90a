"""The remedy for a field that a plan cannot have."""

from __future__ import annotations

from collections.abc import Iterable

from concil.runtime.suggestions import did_you_mean


def unknown_field_remedy(name: object, known_fields: Iterable[str]) -> str:
    """Return a similar field, and all fields."""
    names = list(known_fields)
    question = did_you_mean(str(name), names)
    known = f"known fields: {', '.join(names)}"
    return f"{question} {known}" if question else known
