"""The endpoints that list: the API itself, repositories, tags and referrers."""

from __future__ import annotations

import json
import urllib.parse
from typing import Any

from concil.content import OCI_INDEX, Descriptor, Digest, Manifest
from concil.errors import ConcilError
from concil.server.http import Reply, Request
from concil.server.refusal import JSON, Refusal
from concil.server.service import Service, Target, digest_of, page_of


def get_base(_service: Service, _request: Request, _target: Target) -> Reply:
    """Say that this is a registry (end-1)."""
    return _json({})


def get_catalog(service: Service, request: Request, _target: Target) -> Reply:
    """List the repositories, page by page."""
    names, link = page_of(service, request, service.repositories.all())
    return _json({"repositories": names}, link=link)


def get_tags(service: Service, request: Request, target: Target) -> Reply:
    """List the tags of a repository, page by page (end-8a, 8b)."""
    if not service.repositories.exists(target.repository):
        raise Refusal("NAME_UNKNOWN", f"there is no repository {target.repository}")
    names = service.repositories.names.tags(target.repository) or []
    tags, link = page_of(service, request, names)
    return _json({"name": target.repository, "tags": tags}, link=link)


def get_referrers(service: Service, request: Request, target: Target) -> Reply:
    """List what refers to a manifest, page by page (end-12a, 12b)."""
    subject, wanted = digest_of(target.reference), request.first("artifactType")
    digests = service.repositories.referrers(target.repository, subject)
    last, count = request.first("last"), _count(service, request)
    found: list[dict[str, Any]] = []
    link = None
    for digest in digests:
        if last and str(digest) <= last:
            continue
        entry = _referrer(service, target.repository, digest)
        if entry is None or (wanted and entry.artifact_type != wanted):
            continue
        if len(found) == count:
            link = _next(request, count, found[-1]["digest"], wanted)
            break
        found.append(entry.to_json())
    document = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": found}
    reply = _json(document, OCI_INDEX, link=link)
    if wanted:
        reply.headers["OCI-Filters-Applied"] = "artifactType"
    return reply


def _referrer(service: Service, repository: str, digest: Digest) -> Descriptor | None:
    """The descriptor of a referrer, with what the specification wants to know of it."""
    media_type = service.repositories.manifest_type(repository, digest) or ""
    try:
        body = service.layout.read_blob(digest, service.personality.manifest_limit)
        manifest = Manifest.parse(body, media_type)
    except ConcilError:
        return None
    return manifest.listed(digest)


def _count(service: Service, request: Request) -> int:
    asked, limit = request.first("n"), service.personality.page_limit
    if asked is None:
        return limit
    if not asked.isascii() or not asked.isdigit() or int(asked[:9]) == 0:
        raise Refusal("PAGINATION_NUMBER_INVALID", "n is not a number above 0")
    return min(int(asked[:9]), limit)


def _next(request: Request, count: int, last: str, wanted: str | None) -> str:
    query = {"n": str(count), "last": last}
    if wanted:
        query["artifactType"] = wanted
    return f'<{request.path}?{urllib.parse.urlencode(query)}>; rel="next"'


def _json(document: object, media_type: str = JSON, *, link: str | None = None) -> Reply:
    body = json.dumps(document, separators=(",", ":")).encode()
    headers = {"Content-Type": media_type}
    if link is not None:
        headers["Link"] = link
    return Reply(200, headers, body)
