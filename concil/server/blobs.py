"""The endpoints of blobs: GET, HEAD and DELETE."""

from __future__ import annotations

import os

from concil.content import Digest
from concil.errors import NotFound
from concil.server.connection import Stretch
from concil.server.http import Reply, Request
from concil.server.refusal import Refusal
from concil.server.service import Service, Target, digest_of
from concil.store.layout_disk import Tree


def get_blob(service: Service, request: Request, target: Target) -> Reply:
    """Send a blob or a stretch of it (end-2). HEAD sends no body and knows no ranges."""
    digest = digest_of(target.reference)
    if not service.repositories.holds_blob(target.repository, digest):
        raise _unknown(digest)
    try:
        descriptor = Tree(service.layout.path).open(f"blobs/{digest.algorithm}/{digest.hex}")
    except NotFound as error:
        raise _unknown(digest) from error
    file = os.fdopen(descriptor, "rb", buffering=0)
    try:
        reply = _stretch_of(service, request, digest, os.fstat(descriptor).st_size)
        if reply.status != 304:
            start = _first(reply.headers)
            reply.stretch = Stretch(file, start, int(reply.headers["Content-Length"]))
            return reply
    except BaseException:
        # Whatever happens, also while the thread is told to stop, the file is closed.
        file.close()
        raise
    file.close()
    return reply


def delete_blob(service: Service, _request: Request, target: Target) -> Reply:
    """Take a blob out of a repository (end-10).

    Its file stays: another repository, an upload that has just found it, or another
    program that uses the layout may count on it.
    """
    digest = digest_of(target.reference)
    if not service.repositories.remove_blob(target.repository, digest):
        raise _unknown(digest)
    return Reply(202, {"Docker-Content-Digest": str(digest)})


def _stretch_of(service: Service, request: Request, digest: Digest, size: int) -> Reply:
    """The status and headers for a blob; Content-Length says how much of it is sent."""
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
        return Reply(304, headers)
    asked = request.headers.get("range")
    wanted = None
    if asked and request.method == "GET" and request.headers.get("if-range", tag) == tag:
        wanted = service.personality.blob_range(asked, size)
    if wanted is None:
        return Reply(200, headers)
    start, stop = wanted
    headers["Content-Length"] = str(stop - start)
    headers["Content-Range"] = f"bytes {start}-{stop - 1}/{size}"
    return Reply(206, headers)


def _first(headers: dict[str, str]) -> int:
    stated = headers.get("Content-Range")
    return int(stated.removeprefix("bytes ").partition("-")[0]) if stated else 0


def _unknown(digest: Digest) -> Refusal:
    return Refusal("BLOB_UNKNOWN", f"this repository has no {digest}")
