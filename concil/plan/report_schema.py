"""Schema version of JSON reports, and its check before a report is read."""

from __future__ import annotations

from typing import Any

from concil.errors import UsageError

SCHEMA_VERSION = 1
MIRROR_VERB = "mirror"
CHECK_VERB = "check"


def check_schema_version(document: dict[str, Any], name: str) -> None:
    """Check that a report is of a mirror, and has the schema that this version of concil writes.

    Raises:
        UsageError: it is of a check, or has another schema or none; its fields would be misread.
    """
    version = document.get("schema_version")
    # True == 1 in Python, but not in JSON.
    if version != SCHEMA_VERSION or isinstance(version, bool):
        raise UsageError(
            f"{name} is not a report of this version of concil: its schema_version is not "
            f"{SCHEMA_VERSION}",
            remedy="mirror again to write a new report",
        )
    if document.get("verb", MIRROR_VERB) != MIRROR_VERB:
        raise UsageError(
            f"{name} is the report of a check, not of a mirror",
            remedy="give the report of a mirror",
        )
