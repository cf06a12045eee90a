"""How a registry says no: the error codes of the distribution specification."""

from __future__ import annotations

import json
from collections.abc import Mapping

JSON = "application/json"

# Source: distribution-spec, "Error Codes"; the statuses are those of distribution 3.
_STATUS = {
    "BLOB_UNKNOWN": 404,
    "BLOB_UPLOAD_INVALID": 400,
    "BLOB_UPLOAD_UNKNOWN": 404,
    "DIGEST_INVALID": 400,
    "MANIFEST_BLOB_UNKNOWN": 400,
    "MANIFEST_INVALID": 400,
    "MANIFEST_UNKNOWN": 404,
    "NAME_INVALID": 400,
    "NAME_UNKNOWN": 404,
    "PAGINATION_NUMBER_INVALID": 400,
    "RANGE_INVALID": 416,
    "SIZE_INVALID": 400,
    "TAG_INVALID": 400,
    "UNSUPPORTED": 405,
}


class Refusal(Exception):
    """An answer that is an error; raised by whatever notices, sent as JSON."""

    def __init__(
        self,
        code: str,
        message: str,
        *,
        status: int | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Keep what is to be answered; the status is the usual one of the code."""
        super().__init__(message)
        self.code = code
        self.message = message
        self.status = _STATUS.get(code, 400) if status is None else status
        self.headers = dict(headers or {})

    def body(self) -> bytes:
        """Return the error as the specification's JSON."""
        return json.dumps({"errors": [{"code": self.code, "message": self.message}]}).encode()


class Hangup(Exception):
    """Close the connection instead of answering; for personalities that lose answers."""


class BodyBroken(Exception):
    """The body of a request ended before its time: closed, reset or silent for too long."""
