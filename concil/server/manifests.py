"""The endpoints of manifests: GET, HEAD, PUT and DELETE."""

from __future__ import annotations

import re

from concil.content import Descriptor, Digest, Manifest
from concil.errors import ConcilError, InvalidReference, NotFound
from concil.reference import check_tag
from concil.server.http import Reply, Request
from concil.server.refusal import Refusal
from concil.server.service import Service, Target, digest_of

_NOT_A_TYPE = re.compile(r"[^\x21-\x7e]")


def get_manifest(service: Service, request: Request, target: Target) -> Reply:
    """Send a manifest as it was pushed (end-3)."""
    digest = _resolve(service, target)
    media_type = service.repositories.manifest_type(target.repository, digest)
    if media_type is None:
        raise _unknown(target)
    try:
        body = service.layout.read_blob(digest, service.personality.manifest_limit)
    except NotFound as error:
        raise _unknown(target) from error
    headers = {
        "Content-Type": media_type,
        "Docker-Content-Digest": str(digest),
        "ETag": f'"{digest}"',
    }
    if request.headers.get("if-none-match") == headers["ETag"]:
        return Reply(304, headers)
    return Reply(200, headers, body)


def put_manifest(service: Service, request: Request, target: Target) -> Reply:
    """Take a manifest by tag, or by digest with any number of ``?tag=`` (end-7a, 7b)."""
    digest, tags = _named(request, target)
    body = request.body.read(service.personality.manifest_limit)
    found = Digest.of(body, digest.algorithm if digest else "sha256")
    if digest is not None and found != digest:
        raise Refusal("DIGEST_INVALID", f"the bytes hash to {found}, not to {digest}")
    manifest = _parse(body, request.headers.get("content-type", ""))
    _check_members(service, target.repository, manifest)
    service.repositories.mark_members(target.repository, manifest)
    service.layout.write_blob(body, found.algorithm)
    subject = manifest.subject.digest if manifest.subject else None
    service.repositories.add_manifest(target.repository, found, manifest.media_type, subject)
    for tag in tags:
        entry = Descriptor(manifest.media_type, found, len(body))
        service.repositories.set_tag(target.repository, tag, entry)
    headers = {
        "Location": f"/v2/{target.repository}/manifests/{found}",
        "Docker-Content-Digest": str(found),
    }
    if subject is not None:
        headers["OCI-Subject"] = str(subject)
    if digest is not None and tags:
        headers["OCI-Tag"] = ", ".join(tags)
    return Reply(201, headers)


def delete_manifest(service: Service, _request: Request, target: Target) -> Reply:
    """Remove a tag, or a manifest with all its tags (end-9)."""
    repository, reference = target.repository, target.reference
    if ":" in reference:
        gone = service.repositories.remove_manifest(repository, digest_of(reference))
    else:
        gone = service.repositories.remove_tag(repository, reference)
    if not gone:
        raise _unknown(target)
    return Reply(202)


def _resolve(service: Service, target: Target) -> Digest:
    """The digest a reference means; a text that cannot be a tag is an unknown one."""
    if ":" in target.reference:
        return digest_of(target.reference)
    entry = service.repositories.names.tag(target.repository, target.reference)
    if entry is None:
        raise _unknown(target)
    return entry.digest


def _named(request: Request, target: Target) -> tuple[Digest | None, list[str]]:
    """The digest and the tags under which a manifest is pushed."""
    if ":" in target.reference:
        digest, tags = digest_of(target.reference), request.query.get("tag", [])
    else:
        digest, tags = None, [target.reference]
    try:
        return digest, [check_tag(tag) for tag in tags]
    except InvalidReference as error:
        raise Refusal("TAG_INVALID", str(error)) from error


def _parse(body: bytes, content_type: str) -> Manifest:
    if _NOT_A_TYPE.search(content_type.partition(";")[0].strip()):
        raise Refusal("MANIFEST_INVALID", "not a Content-Type")
    try:
        manifest = Manifest.parse(body, content_type)
        # These read every descriptor, so that a bad one is found here.
        manifest.children(), manifest.blobs(), manifest.subject
    except ConcilError as error:
        raise Refusal("MANIFEST_INVALID", str(error)) from error
    return manifest


def _check_members(service: Service, repository: str, manifest: Manifest) -> None:
    """Refuse a manifest that names what the repository does not have.

    Layers that are not to be distributed may be missing, and so may the subject.
    """
    members = service.repositories
    for child in manifest.children():
        known = members.manifest_type(repository, child.digest) is not None
        if not known and not members.holds_blob(repository, child.digest):
            raise _missing(child)
    for blob in manifest.blobs():
        if not blob.is_foreign and not members.holds_blob(repository, blob.digest):
            raise _missing(blob)


def _missing(descriptor: Descriptor) -> Refusal:
    return Refusal("MANIFEST_BLOB_UNKNOWN", f"this repository has no {descriptor.digest}")


def _unknown(target: Target) -> Refusal:
    return Refusal("MANIFEST_UNKNOWN", f"{target.repository} has no such manifest")
