"""Rejection: why a signature does not count."""

from __future__ import annotations

from enum import IntEnum


class Reason(IntEnum):
    """Kinds of reasons; of several signatures that are rejected, the highest is reported."""

    UNSUPPORTED = 1  # another format
    MALFORMED = 2  # too large, not JSON, or without a field that is needed
    OTHER_SIGNER = 3  # another key or identity, or changed after it was signed
    NOT_VALID = 4  # by the right identity, but its certificate or log entry is not valid
    OTHER_DIGEST = 5  # valid, but of another image


class Rejection(Exception):
    """A signature does not count; the message completes "no valid signature: ..."."""

    def __init__(self, reason: Reason, message: str) -> None:
        """Set the kind of the reason, and the message."""
        super().__init__(message)
        self.reason = reason
