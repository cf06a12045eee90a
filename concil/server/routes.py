"""From a request to its endpoint and from an error to its answer."""

from __future__ import annotations

import errno
import logging
import re

from concil.errors import ConcilError, InvalidReference
from concil.reference import check_repository
from concil.server import blobs, listings, manifests, sessions
from concil.server.http import Reply, Request
from concil.server.refusal import BodyBroken, Hangup, Refusal
from concil.server.service import Endpoint, Service, Target

logger = logging.getLogger(__name__)

# In this order: an upload path would also fit a repository that ends in "/blobs".
_ROUTES: tuple[tuple[re.Pattern[str], dict[str, Endpoint]], ...] = (
    (re.compile(r"/v2/?"), {"GET": listings.get_base}),
    (re.compile(r"/v2/_catalog"), {"GET": listings.get_catalog}),
    (re.compile(r"/v2/(.+)/blobs/uploads/?()"), {"POST": sessions.post_session}),
    (
        re.compile(r"/v2/(.+)/blobs/uploads/([^/]+)"),
        {
            "GET": sessions.get_session,
            "PATCH": sessions.patch_session,
            "PUT": sessions.put_session,
            "DELETE": sessions.delete_session,
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
_WRITES = frozenset({"POST", "PATCH", "PUT", "DELETE"})


def answer(service: Service, request: Request) -> Reply:
    """Answer a request, also where something fails.

    Raises:
        Hangup, BodyBroken: there is nobody to answer to.
    """
    reply = _attempt(service, request)
    try:
        changed = service.personality.after(request, reply)
    except Refusal as refusal:
        changed = Reply.of(refusal)
    except Hangup:
        reply.close()
        raise
    if changed.stretch is not reply.stretch:
        reply.close()
    return changed


def _attempt(service: Service, request: Request) -> Reply:
    try:
        reply = service.personality.before(request)
        if reply is None:
            endpoint, target = _find(service, request)
            reply = endpoint(service, request, target)
        return reply
    except Refusal as refusal:
        return Reply.of(refusal)
    except (Hangup, BodyBroken):
        raise
    except ConcilError as error:
        logger.error("%s %s: %s", request.method, request.told, error)  # noqa: TRY400  # one line
        return _failed("the registry's directory is damaged or refuses; see its log")
    except OSError as error:
        logger.error("%s %s: %s", request.method, request.told, error)  # noqa: TRY400  # one line
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        return _failed("the registry's disk is full" if full else "the registry's disk refuses")
    except Exception:
        # One bad request must not end the server for all others.
        logger.exception("%s %s failed", request.method, request.told)
        return _failed("the registry failed; see its log")


def _find(service: Service, request: Request) -> tuple[Endpoint, Target]:
    method = "GET" if request.method == "HEAD" else request.method
    for pattern, endpoints in _ROUTES:
        found = pattern.fullmatch(request.path)
        if found is None:
            continue
        target = Target(*found.groups())
        if target.repository:
            _check_name(target.repository)
        if method not in endpoints:
            allowed = ", ".join(sorted(endpoints))
            raise Refusal("UNSUPPORTED", f"{allowed} only", headers={"Allow": allowed})
        if service.read_only and method in _WRITES:
            raise Refusal("UNSUPPORTED", "this registry is read-only")
        return endpoints[method], target
    raise Refusal("UNSUPPORTED", "no such endpoint", status=404)


def _check_name(repository: str) -> None:
    try:
        check_repository(repository)
    except InvalidReference as error:
        raise Refusal("NAME_INVALID", str(error)) from error


def _failed(message: str) -> Reply:
    return Reply.of(Refusal("UNKNOWN", message, status=500))
