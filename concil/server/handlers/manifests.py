"""Endpoints of manifests: GET, HEAD, PUT and DELETE."""

from __future__ import annotations

import re

from concil.errors import ConcilError, InvalidReference, NotFound
from concil.oci.descriptor import Descriptor
from concil.oci.manifest import Digest, Manifest
from concil.oci.reference import check_tag
from concil.server.errors import ErrorResponse
from concil.server.http import Request, Response
from concil.server.service import PathParameters, Service, parse_digest

_INVALID_MEDIA_TYPE = re.compile(r"[^\x21-\x7e]")


def get_manifest(service: Service, request: Request, parameters: PathParameters) -> Response:
    """Send a manifest as it was pushed (end-3)."""
    digest = _resolve(service, parameters)
    media_type = service.repositories.manifest_media_type(parameters.repository, digest)
    if media_type is None:
        raise _manifest_unknown(parameters)
    try:
        body = service.layout.read_blob(digest, service.behavior.manifest_limit)
    except NotFound as error:
        raise _manifest_unknown(parameters) from error
    headers = {
        "Content-Type": media_type,
        "Docker-Content-Digest": str(digest),
        "ETag": f'"{digest}"',
    }
    if request.headers.get("if-none-match") == headers["ETag"]:
        return Response(304, headers)
    return Response(200, headers, body)


def put_manifest(service: Service, request: Request, parameters: PathParameters) -> Response:
    """Store a manifest by tag, or by digest with any number of ``?tag=`` (end-7a, 7b)."""
    digest, tags = _digest_and_tags(request, parameters)
    body = request.body.read(service.behavior.manifest_limit)
    actual_digest = Digest.from_bytes(body, digest.algorithm if digest else "sha256")
    if digest is not None and actual_digest != digest:
        raise ErrorResponse("DIGEST_INVALID", f"the bytes hash to {actual_digest}, not to {digest}")
    manifest = _parse_manifest(body, request.headers.get("content-type", ""))
    _check_references(service, parameters.repository, manifest)
    service.repositories.mark_members(parameters.repository, manifest)
    service.layout.write_blob(body, actual_digest.algorithm)
    subject = manifest.subject.digest if manifest.subject else None
    service.repositories.add_manifest(
        parameters.repository, actual_digest, manifest.media_type, subject
    )
    for tag in tags:
        entry = Descriptor(manifest.media_type, actual_digest, len(body))
        service.repositories.set_tag(parameters.repository, tag, entry)
    headers = {
        "Location": f"/v2/{parameters.repository}/manifests/{actual_digest}",
        "Docker-Content-Digest": str(actual_digest),
    }
    if subject is not None:
        headers["OCI-Subject"] = str(subject)
    if digest is not None and tags:
        headers["OCI-Tag"] = ", ".join(tags)
    return Response(201, headers)


def delete_manifest(service: Service, _request: Request, parameters: PathParameters) -> Response:
    """Remove a tag, or a manifest with all its tags (end-9)."""
    repository, reference = parameters.repository, parameters.reference
    if ":" in reference:
        is_removed = service.repositories.remove_manifest(repository, parse_digest(reference))
    else:
        is_removed = service.repositories.remove_tag(repository, reference)
    if not is_removed:
        raise _manifest_unknown(parameters)
    return Response(202)


def _resolve(service: Service, parameters: PathParameters) -> Digest:
    """Return the digest of a reference; an invalid tag counts as unknown."""
    if ":" in parameters.reference:
        return parse_digest(parameters.reference)
    entry = service.repositories.tag_index.tag(parameters.repository, parameters.reference)
    if entry is None:
        raise _manifest_unknown(parameters)
    return entry.digest


def _digest_and_tags(
    request: Request, parameters: PathParameters
) -> tuple[Digest | None, list[str]]:
    """Return the digest and the tags that a manifest is pushed with."""
    if ":" in parameters.reference:
        digest, tags = parse_digest(parameters.reference), request.query.get("tag", [])
    else:
        digest, tags = None, [parameters.reference]
    try:
        return digest, [check_tag(tag) for tag in tags]
    except InvalidReference as error:
        raise ErrorResponse("TAG_INVALID", str(error)) from error


def _parse_manifest(body: bytes, content_type: str) -> Manifest:
    if _INVALID_MEDIA_TYPE.search(content_type.partition(";")[0].strip()):
        raise ErrorResponse("MANIFEST_INVALID", "Content-Type is missing or invalid")
    try:
        manifest = Manifest.parse(body, content_type)
        # These parse every descriptor, so that an invalid one is found here.
        manifest.children(), manifest.blobs(), manifest.subject
    except ConcilError as error:
        raise ErrorResponse("MANIFEST_INVALID", str(error)) from error
    return manifest


def _check_references(service: Service, repository: str, manifest: Manifest) -> None:
    """Refuse a manifest whose content the repository does not have.

    Foreign layers may be missing, and so may the subject.
    """
    repositories = service.repositories
    for child in manifest.children():
        is_manifest = repositories.manifest_media_type(repository, child.digest) is not None
        if not is_manifest and not repositories.has_blob(repository, child.digest):
            raise _manifest_blob_unknown(child)
    for blob in manifest.blobs():
        if not blob.is_foreign and not repositories.has_blob(repository, blob.digest):
            raise _manifest_blob_unknown(blob)


def _manifest_blob_unknown(descriptor: Descriptor) -> ErrorResponse:
    return ErrorResponse("MANIFEST_BLOB_UNKNOWN", f"this repository has no {descriptor.digest}")


def _manifest_unknown(parameters: PathParameters) -> ErrorResponse:
    return ErrorResponse("MANIFEST_UNKNOWN", f"{parameters.repository} has no such manifest")
