"""Endpoints of upload sessions: POST, PATCH, GET, PUT and DELETE."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

from concil.errors import InvalidReference
from concil.oci.manifest import Digest
from concil.oci.reference import check_repository
from concil.server.behavior import Chunk
from concil.server.connection import BLOCK_SIZE, Body
from concil.server.errors import ErrorResponse, IncompleteBody
from concil.server.http import Request, Response
from concil.server.service import PathParameters, Service, parse_digest
from concil.server.upload_store import Upload

_CONTENT_RANGE = re.compile(r"([0-9]{1,18})-([0-9]{1,18})")


def post_session(service: Service, request: Request, parameters: PathParameters) -> Response:
    """Open a session, mount a blob, or store a blob sent in one request (end-4a, 4b, 4c, 11)."""
    mount, digest = request.query_value("mount"), request.query_value("digest")
    algorithm = request.query_value("digest-algorithm") or "sha256"
    if algorithm not in ("sha256", "sha512"):
        raise ErrorResponse("DIGEST_INVALID", "the supported algorithms are sha256 and sha512")
    if mount is not None:
        blob = parse_digest(mount)
        if _mount_blob(service, parameters.repository, blob, request.query_value("from")):
            return _created_response(parameters.repository, blob)
    elif digest is not None:
        return _upload_monolithic(service, request, parameters, parse_digest(digest))
    upload = service.uploads.create(parameters.repository, algorithm)
    return _session_response(service, parameters, upload, 202)


def patch_session(service: Service, request: Request, parameters: PathParameters) -> Response:
    """Append a chunk, or a stream without Content-Range (end-5)."""
    upload = _get_upload(service, request, parameters)
    with _lock_upload(service, upload):
        _append(service, request, parameters, upload)
        return _session_response(service, parameters, upload, 202)


def get_session(service: Service, request: Request, parameters: PathParameters) -> Response:
    """Return how many bytes a session holds (end-13)."""
    upload = _get_upload(service, request, parameters)
    service.uploads.wait_for_writer(upload, service.behavior.session_lock_timeout)
    return _session_response(service, parameters, upload, 204)


def put_session(service: Service, request: Request, parameters: PathParameters) -> Response:
    """Append the last chunk, if there is one, and commit the session as a blob (end-6)."""
    digest = parse_digest(request.query_value("digest"))
    upload = _get_upload(service, request, parameters)
    with _lock_upload(service, upload):
        _append(service, request, parameters, upload)
        service.uploads.commit(upload, digest)
    service.repositories.add_blob(parameters.repository, digest)
    return _created_response(parameters.repository, digest)


def delete_session(service: Service, request: Request, parameters: PathParameters) -> Response:
    """Cancel a session (end-14)."""
    upload = _get_upload(service, request, parameters)
    with _lock_upload(service, upload):
        service.uploads.discard(upload)
    return Response(204)


def _lock_upload(service: Service, upload: Upload) -> AbstractContextManager[None]:
    behavior = service.behavior
    return service.uploads.lock_for_writing(
        upload, behavior.session_lock_timeout, behavior.writer_idle_timeout
    )


def _get_upload(service: Service, request: Request, parameters: PathParameters) -> Upload:
    upload = service.uploads.get(parameters.repository, parameters.reference)
    service.behavior.check_session(request, upload)
    return upload


def _append(service: Service, request: Request, parameters: PathParameters, upload: Upload) -> None:
    """Append the body of a request; the caller holds the session's lock."""
    start_offset = upload.offset
    start, stop = _parse_content_range(request)
    chunk = Chunk(request.method, start, stop, request.body.length, start_offset, upload.session_id)
    try:
        service.behavior.check_chunk(chunk)
    except ErrorResponse as refusal:
        if refusal.status == 416:
            refusal.headers.update(_session_headers(service, parameters, upload))
        raise
    with _report_incomplete_body(service, upload, start_offset):
        skipped = _skip_bytes(request.body, service.behavior.overlap_length(chunk))
        received = skipped + upload.append(request.body)
    if start is not None and stop is not None and received != stop - start:
        # Only with chunked transfer coding, whose length is known at its end.
        upload.truncate(start_offset)
        raise ErrorResponse(
            "SIZE_INVALID", f"{received} bytes were received, and {stop - start} announced"
        )


@contextmanager
def _report_incomplete_body(service: Service, upload: Upload, start_offset: int) -> Iterator[None]:
    try:
        yield
    except IncompleteBody:
        service.behavior.on_incomplete_body(upload, start_offset)
        raise


def _skip_bytes(body: Body, length: int) -> int:
    """Read and discard the next bytes of a body; return how many there were."""
    buffer = memoryview(bytearray(min(length, BLOCK_SIZE)))
    skipped = 0
    while skipped < length and (count := body.readinto(buffer[: length - skipped])):
        skipped += count
    return skipped


def _parse_content_range(request: Request) -> tuple[int | None, int | None]:
    """Return the range of Content-Range, half-open."""
    header = request.headers.get("content-range")
    if header is None:
        return None, None
    match = _CONTENT_RANGE.fullmatch(header)
    if match is None or int(match[2]) < int(match[1]):
        raise ErrorResponse("BLOB_UPLOAD_INVALID", "Content-Range is not <first>-<last>")
    return int(match[1]), int(match[2]) + 1


def _upload_monolithic(
    service: Service, request: Request, parameters: PathParameters, digest: Digest
) -> Response:
    upload = service.uploads.create(parameters.repository, digest.algorithm)
    try:
        upload.append(request.body)
        service.uploads.commit(upload, digest)
    finally:
        # The client never learns of this session, and could not resume it.
        service.uploads.discard(upload)
    service.repositories.add_blob(parameters.repository, digest)
    return _created_response(parameters.repository, digest)


def _mount_blob(service: Service, repository: str, blob: Digest, source: str | None) -> bool:
    """Mount a blob from a repository, or any that has it; return False if there is none."""
    if source is None:
        source = service.repositories.find_repository_of(blob)
    try:
        if source is None or not service.repositories.has_blob(check_repository(source), blob):
            return False
    except InvalidReference:
        return False
    if service.layout.blob_size(blob) is None:
        return False
    service.repositories.add_blob(repository, blob)
    return True


def _session_headers(
    service: Service, parameters: PathParameters, upload: Upload
) -> dict[str, str]:
    offset, behavior = upload.offset, service.behavior
    return {
        "Location": behavior.session_location(parameters.repository, upload.session_id, offset),
        "Range": behavior.session_range(offset),
        "Docker-Upload-UUID": upload.session_id,
    }


def _session_response(
    service: Service, parameters: PathParameters, upload: Upload, status: int
) -> Response:
    headers = _session_headers(service, parameters, upload)
    if service.behavior.min_chunk_length:
        headers["OCI-Chunk-Min-Length"] = str(service.behavior.min_chunk_length)
    return Response(status, headers)


def _created_response(repository: str, digest: Digest) -> Response:
    location = f"/v2/{repository}/blobs/{digest}"
    return Response(201, {"Location": location, "Docker-Content-Digest": str(digest)})
