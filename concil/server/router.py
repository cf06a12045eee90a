"""Routes requests to endpoints and errors to responses."""

from __future__ import annotations

import errno
import logging
import re

from concil.errors import ConcilError, InvalidReference
from concil.oci.reference import check_repository
from concil.server.errors import DropConnection, ErrorResponse, IncompleteBody
from concil.server.handlers import blobs, listings, manifests, upload_sessions
from concil.server.http import Request, Response
from concil.server.service import Handler, PathParameters, Service

logger = logging.getLogger(__name__)

# The order matters: an upload path would also match a repository that ends in "/blobs".
_ROUTES: tuple[tuple[re.Pattern[str], dict[str, Handler]], ...] = (
    (re.compile(r"/v2/?"), {"GET": listings.get_base}),
    (re.compile(r"/v2/_catalog"), {"GET": listings.get_catalog}),
    (re.compile(r"/v2/(.+)/blobs/uploads/?()"), {"POST": upload_sessions.post_session}),
    (
        re.compile(r"/v2/(.+)/blobs/uploads/([^/]+)"),
        {
            "GET": upload_sessions.get_session,
            "PATCH": upload_sessions.patch_session,
            "PUT": upload_sessions.put_session,
            "DELETE": upload_sessions.delete_session,
        },
    ),
    (
        re.compile(r"/v2/(.+)/blobs/([^/]+)"),
        {"GET": blobs.get_blob, "DELETE": blobs.delete_blob},
    ),
    (
        re.compile(r"/v2/(.+)/manifests/([^/]+)"),
        {
            "GET": manifests.get_manifest,
            "PUT": manifests.put_manifest,
            "DELETE": manifests.delete_manifest,
        },
    ),
    (re.compile(r"/v2/(.+)/referrers/([^/]+)"), {"GET": listings.get_referrers}),
    (re.compile(r"/v2/(.+)/tags/list()"), {"GET": listings.get_tags}),
)
_WRITE_METHODS = frozenset({"POST", "PATCH", "PUT", "DELETE"})


def handle_request(service: Service, request: Request) -> Response:
    """Return the response to a request, also if it fails.

    Raises:
        DropConnection, IncompleteBody: no response can be sent.
    """
    reply = _dispatch(service, request)
    try:
        final_response = service.behavior.after_response(request, reply)
    except ErrorResponse as refusal:
        final_response = Response.from_error(refusal)
    except DropConnection:
        reply.close()
        raise
    if final_response.file_range is not reply.file_range:
        reply.close()
    return final_response


def _dispatch(service: Service, request: Request) -> Response:
    try:
        reply = service.behavior.before_request(request)
        if reply is None:
            endpoint, parameters = _match_route(service, request)
            reply = endpoint(service, request, parameters)
        return reply
    except ErrorResponse as refusal:
        return Response.from_error(refusal)
    except (DropConnection, IncompleteBody):
        raise
    except ConcilError as error:
        logger.error("%s %s: %s", request.method, request.log_path, error)  # noqa: TRY400  # one line
        return _internal_error(
            "the directory of the registry is damaged or not accessible; see the log"
        )
    except OSError as error:
        logger.error("%s %s: %s", request.method, request.log_path, error)  # noqa: TRY400  # one line
        is_full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        return _internal_error(
            "the disk of the registry is full"
            if is_full
            else "the disk of the registry refuses to write"
        )
    except Exception:
        # One bad request must not end the server.
        logger.exception("%s %s failed", request.method, request.log_path)
        return _internal_error("the registry failed; see the log")


def _match_route(service: Service, request: Request) -> tuple[Handler, PathParameters]:
    method = "GET" if request.method == "HEAD" else request.method
    for pattern, endpoints in _ROUTES:
        match = pattern.fullmatch(request.path)
        if match is None:
            continue
        parameters = PathParameters(*match.groups())
        if parameters.repository:
            _check_name(parameters.repository)
        if method not in endpoints:
            allowed = ", ".join(sorted(endpoints))
            raise ErrorResponse(
                "UNSUPPORTED", f"the allowed methods are {allowed}", headers={"Allow": allowed}
            )
        if service.read_only and method in _WRITE_METHODS:
            raise ErrorResponse("UNSUPPORTED", "this registry is read-only")
        return endpoints[method], parameters
    raise ErrorResponse("UNSUPPORTED", "no such endpoint", status=404)


def _check_name(repository: str) -> None:
    try:
        check_repository(repository)
    except InvalidReference as error:
        raise ErrorResponse("NAME_INVALID", str(error)) from error


def _internal_error(message: str) -> Response:
    return Response.from_error(ErrorResponse("UNKNOWN", message, status=500))
