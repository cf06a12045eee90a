"""The endpoints of upload sessions: POST, PATCH, GET, PUT and DELETE."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

from concil.content import Digest
from concil.errors import InvalidReference
from concil.reference import check_repository
from concil.server.connection import BLOCK, Body
from concil.server.http import Reply, Request
from concil.server.personality import Chunk
from concil.server.refusal import BodyBroken, Refusal
from concil.server.service import Service, Target, digest_of
from concil.server.uploads import Upload

_CONTENT_RANGE = re.compile(r"([0-9]{1,18})-([0-9]{1,18})")


def post_session(service: Service, request: Request, target: Target) -> Reply:
    """Open a session, mount a blob, or take a whole blob at once (end-4a, 4b, 4c, 11)."""
    mount, digest = request.first("mount"), request.first("digest")
    algorithm = request.first("digest-algorithm") or "sha256"
    if algorithm not in ("sha256", "sha512"):
        raise Refusal("DIGEST_INVALID", "sha256 and sha512 are known here")
    if mount is not None:
        blob = digest_of(mount)
        if _mounted(service, target.repository, blob, request.first("from")):
            return _created(target.repository, blob)
    elif digest is not None:
        return _take_whole(service, request, target, digest_of(digest))
    upload = service.uploads.start(target.repository, algorithm)
    return _standing(service, target, upload, 202)


def patch_session(service: Service, request: Request, target: Target) -> Reply:
    """Append a chunk, or a stream without Content-Range (end-5)."""
    upload = _session(service, request, target)
    with _writing(service, upload):
        _append(service, request, target, upload)
        return _standing(service, target, upload, 202)


def get_session(service: Service, request: Request, target: Target) -> Reply:
    """Tell how many bytes a session holds (end-13)."""
    upload = _session(service, request, target)
    service.uploads.settle(upload, service.personality.busy_wait)
    return _standing(service, target, upload, 204)


def put_session(service: Service, request: Request, target: Target) -> Reply:
    """Append the last chunk, if there is one, and make the session a blob (end-6)."""
    digest = digest_of(request.first("digest"))
    upload = _session(service, request, target)
    with _writing(service, upload):
        _append(service, request, target, upload)
        service.uploads.commit(upload, digest)
    service.repositories.add_blob(target.repository, digest)
    return _created(target.repository, digest)


def delete_session(service: Service, request: Request, target: Target) -> Reply:
    """Throw a session away (end-14)."""
    upload = _session(service, request, target)
    with _writing(service, upload):
        service.uploads.discard(upload)
    return Reply(204)


def _writing(service: Service, upload: Upload) -> AbstractContextManager[None]:
    personality = service.personality
    return service.uploads.writing(upload, personality.busy_wait, personality.silence)


def _session(service: Service, request: Request, target: Target) -> Upload:
    upload = service.uploads.get(target.repository, target.reference)
    service.personality.check_session(request, upload)
    return upload


def _append(service: Service, request: Request, target: Target, upload: Upload) -> None:
    """Append the body of a request; only for the one request that writes."""
    before = upload.offset
    start, stop = _content_range(request)
    chunk = Chunk(request.method, start, stop, request.body.length, before, upload.session)
    try:
        service.personality.check_chunk(chunk)
    except Refusal as refusal:
        if refusal.status == 416:
            refusal.headers.update(_position(service, target, upload))
        raise
    with _keeping(service, upload, before):
        skipped = _pass_over(request.body, service.personality.overlap(chunk))
        written = skipped + upload.append(request.body)
    if start is not None and stop is not None and written != stop - start:
        # Only the chunked coding gets here: its length is known when it has ended.
        upload.cut(before)
        raise Refusal("SIZE_INVALID", f"{written} bytes where {stop - start} were announced")


@contextmanager
def _keeping(service: Service, upload: Upload, before: int) -> Iterator[None]:
    try:
        yield
    except BodyBroken:
        service.personality.body_broke(upload, before)
        raise


def _pass_over(body: Body, length: int) -> int:
    """Read the next bytes of a body and forget them; return how many there were."""
    buffer = memoryview(bytearray(min(length, BLOCK)))
    passed = 0
    while passed < length and (count := body.readinto(buffer[: length - passed])):
        passed += count
    return passed


def _content_range(request: Request) -> tuple[int | None, int | None]:
    """The stretch that Content-Range announces, half-open."""
    header = request.headers.get("content-range")
    if header is None:
        return None, None
    found = _CONTENT_RANGE.fullmatch(header)
    if found is None or int(found[2]) < int(found[1]):
        raise Refusal("BLOB_UPLOAD_INVALID", "Content-Range is not <first>-<last>")
    return int(found[1]), int(found[2]) + 1


def _take_whole(service: Service, request: Request, target: Target, digest: Digest) -> Reply:
    upload = service.uploads.start(target.repository, digest.algorithm)
    try:
        upload.append(request.body)
        service.uploads.commit(upload, digest)
    finally:
        # The client never learns of this session, so nobody could go on with it.
        service.uploads.discard(upload)
    service.repositories.add_blob(target.repository, digest)
    return _created(target.repository, digest)


def _mounted(service: Service, repository: str, blob: Digest, source: str | None) -> bool:
    """Take a blob from a sibling, or from any where none is named; False if it is not there."""
    if source is None:
        source = service.repositories.holder(blob)
    try:
        if source is None or not service.repositories.holds_blob(check_repository(source), blob):
            return False
    except InvalidReference:
        return False
    if service.layout.blob_size(blob) is None:
        return False
    service.repositories.add_blob(repository, blob)
    return True


def _position(service: Service, target: Target, upload: Upload) -> dict[str, str]:
    offset, personality = upload.offset, service.personality
    return {
        "Location": personality.session_location(target.repository, upload.session, offset),
        "Range": personality.session_range(offset),
        "Docker-Upload-UUID": upload.session,
    }


def _standing(service: Service, target: Target, upload: Upload, status: int) -> Reply:
    headers = _position(service, target, upload)
    if service.personality.chunk_minimum:
        headers["OCI-Chunk-Min-Length"] = str(service.personality.chunk_minimum)
    return Reply(status, headers)


def _created(repository: str, digest: Digest) -> Reply:
    location = f"/v2/{repository}/blobs/{digest}"
    return Reply(201, {"Location": location, "Docker-Content-Digest": str(digest)})
