"""Endpoints of blobs: GET, HEAD and DELETE."""

from __future__ import annotations

import os

from concil.errors import NotFound
from concil.fs.nofollow_tree import NoFollowTree
from concil.oci.manifest import Digest
from concil.server.connection import FileRange
from concil.server.errors import ErrorResponse
from concil.server.http import Request, Response
from concil.server.service import PathParameters, Service, parse_digest


def get_blob(service: Service, request: Request, parameters: PathParameters) -> Response:
    """Send a blob or a range of it (end-2). HEAD sends no body and ignores ranges."""
    digest = parse_digest(parameters.reference)
    if not service.repositories.has_blob(parameters.repository, digest):
        raise _blob_unknown(digest)
    try:
        descriptor = NoFollowTree(service.layout.path).open(
            f"blobs/{digest.algorithm}/{digest.hex}"
        )
    except NotFound as error:
        raise _blob_unknown(digest) from error
    file = os.fdopen(descriptor, "rb", buffering=0)
    try:
        reply = _create_response(service, request, digest, os.fstat(descriptor).st_size)
        if reply.status != 304:
            start = _range_start(reply.headers)
            reply.file_range = FileRange(file, start, int(reply.headers["Content-Length"]))
            return reply
    except BaseException:
        # The file is closed on any error, also on KeyboardInterrupt.
        file.close()
        raise
    file.close()
    return reply


def delete_blob(service: Service, _request: Request, parameters: PathParameters) -> Response:
    """Remove a blob from a repository (end-10).

    Its file stays: another repository, an upload that has just found the blob, or another
    program that uses the layout may need it.
    """
    digest = parse_digest(parameters.reference)
    if not service.repositories.remove_blob(parameters.repository, digest):
        raise _blob_unknown(digest)
    return Response(202, {"Docker-Content-Digest": str(digest)})


def _create_response(service: Service, request: Request, digest: Digest, size: int) -> Response:
    """Return status and headers for a blob; Content-Length is the length of the body to send."""
    tag = f'"{digest}"'
    headers = {
        "Content-Type": "application/octet-stream",
        "Content-Length": str(size),
        "Docker-Content-Digest": str(digest),
        "ETag": tag,
        "Accept-Ranges": "bytes",
        "Cache-Control": "max-age=31536000",
    }
    if request.headers.get("if-none-match") == tag:
        del headers["Content-Length"]
        return Response(304, headers)
    range_header = request.headers.get("range")
    byte_range = None
    if range_header and request.method == "GET" and request.headers.get("if-range", tag) == tag:
        byte_range = service.behavior.blob_range(range_header, size)
    if byte_range is None:
        return Response(200, headers)
    start, stop = byte_range
    headers["Content-Length"] = str(stop - start)
    headers["Content-Range"] = f"bytes {start}-{stop - 1}/{size}"
    return Response(206, headers)


def _range_start(headers: dict[str, str]) -> int:
    content_range = headers.get("Content-Range")
    return int(content_range.removeprefix("bytes ").partition("-")[0]) if content_range else 0


def _blob_unknown(digest: Digest) -> ErrorResponse:
    return ErrorResponse("BLOB_UNKNOWN", f"this repository has no {digest}")
