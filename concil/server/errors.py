"""Error responses with the codes of the distribution specification."""

from __future__ import annotations

import json
from collections.abc import Mapping

JSON_MEDIA_TYPE = "application/json"

# Source: distribution-spec, "Error Codes"; the statuses are those of distribution 3.
_STATUS_BY_CODE = {
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


class ErrorResponse(Exception):
    """An error response; raised where the error is found, sent as JSON."""

    def __init__(
        self,
        code: str,
        message: str,
        *,
        status: int | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Store the response; ``status`` defaults to that of the code."""
        super().__init__(message)
        self.code = code
        self.message = message
        self.status = _STATUS_BY_CODE.get(code, 400) if status is None else status
        self.headers = dict(headers or {})

    def body(self) -> bytes:
        """Return the error as the JSON of the specification."""
        return json.dumps({"errors": [{"code": self.code, "message": self.message}]}).encode()


class DropConnection(Exception):
    """Close the connection without a response; for behaviors that lose responses."""


class IncompleteBody(Exception):
    """The body of a request ended early: the connection was closed, reset or timed out."""
