"""Endpoints of lists: base, catalog, tags and referrers."""

from __future__ import annotations

import json
import urllib.parse
from typing import Any

from concil.errors import ConcilError
from concil.oci.descriptor import Descriptor
from concil.oci.manifest import Digest, Manifest
from concil.oci.media_types import OCI_INDEX
from concil.server.errors import JSON_MEDIA_TYPE, ErrorResponse
from concil.server.http import Request, Response
from concil.server.service import PathParameters, Service, paginate, parse_digest


def get_base(_service: Service, _request: Request, _parameters: PathParameters) -> Response:
    """Confirm that this is a registry (end-1)."""
    return _json_response({})


def get_catalog(service: Service, request: Request, _parameters: PathParameters) -> Response:
    """List the repositories, with pagination."""
    names, link = paginate(service, request, service.repositories.list_names())
    return _json_response({"repositories": names}, link=link)


def get_tags(service: Service, request: Request, parameters: PathParameters) -> Response:
    """List the tags of a repository, with pagination (end-8a, 8b)."""
    if not service.repositories.exists(parameters.repository):
        raise ErrorResponse("NAME_UNKNOWN", f"there is no repository {parameters.repository}")
    names = service.repositories.tag_index.tags(parameters.repository) or []
    tags, link = paginate(service, request, names)
    return _json_response({"name": parameters.repository, "tags": tags}, link=link)


def get_referrers(service: Service, request: Request, parameters: PathParameters) -> Response:
    """List the referrers of a manifest, with pagination (end-12a, 12b)."""
    subject, artifact_type = parse_digest(parameters.reference), request.query_value("artifactType")
    digests = service.repositories.referrers(parameters.repository, subject)
    last, count = request.query_value("last"), _page_size(service, request)
    descriptors: list[dict[str, Any]] = []
    link = None
    for digest in digests:
        if last and str(digest) <= last:
            continue
        entry = _referrer_descriptor(service, parameters.repository, digest)
        if entry is None or (artifact_type and entry.artifact_type != artifact_type):
            continue
        if len(descriptors) == count:
            link = _next_link(request, count, descriptors[-1]["digest"], artifact_type)
            break
        descriptors.append(entry.to_json())
    document = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": descriptors}
    reply = _json_response(document, OCI_INDEX, link=link)
    if artifact_type:
        reply.headers["OCI-Filters-Applied"] = "artifactType"
    return reply


def _referrer_descriptor(service: Service, repository: str, digest: Digest) -> Descriptor | None:
    """Return the descriptor of a referrer, with the fields that the specification requires."""
    media_type = service.repositories.manifest_media_type(repository, digest) or ""
    try:
        body = service.layout.read_blob(digest, service.behavior.manifest_limit)
        manifest = Manifest.parse(body, media_type)
    except ConcilError:
        return None
    return manifest.referrer_descriptor(digest)


def _page_size(service: Service, request: Request) -> int:
    page_size, limit = request.query_value("n"), service.behavior.page_limit
    if page_size is None:
        return limit
    if not page_size.isascii() or not page_size.isdigit() or int(page_size[:9]) == 0:
        raise ErrorResponse("PAGINATION_NUMBER_INVALID", "n is not a number greater than 0")
    return min(int(page_size[:9]), limit)


def _next_link(request: Request, count: int, last: str, artifact_type: str | None) -> str:
    query = {"n": str(count), "last": last}
    if artifact_type:
        query["artifactType"] = artifact_type
    return f'<{request.path}?{urllib.parse.urlencode(query)}>; rel="next"'


def _json_response(
    document: object, media_type: str = JSON_MEDIA_TYPE, *, link: str | None = None
) -> Response:
    body = json.dumps(document, separators=(",", ":")).encode()
    headers = {"Content-Type": media_type}
    if link is not None:
        headers["Link"] = link
    return Response(200, headers, body)
