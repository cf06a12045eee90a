"""The redirect policy: which redirects are followed, and where a Location header may lead."""

from __future__ import annotations

import urllib.parse
from collections.abc import Callable

import requests

from concil.errors import ProtocolViolation
from concil.http.network_policy import check_reachable
from concil.http.urls import (
    _DEFAULT_PORTS,
    _PLAIN_NETLOC,
    host_of,
    join_url,
    origin,
    redact_url,
)

__all__ = [
    "MAX_REDIRECTS",
    "REDIRECT_STATUSES",
    "ResolveRedirect",
    "TooManyRedirects",
    "redirect_location",
    "resolve_location",
]

MAX_REDIRECTS = 8
REDIRECT_STATUSES = frozenset({301, 302, 303, 307, 308})
# From the URL of a redirect and its Location to the URL that is requested next; None: the
# redirect is not followed.
ResolveRedirect = Callable[[str, str], str | None]


class TooManyRedirects(ProtocolViolation):
    """A request was redirected more than `MAX_REDIRECTS` times."""


def redirect_location(response: requests.Response, request: requests.PreparedRequest) -> str | None:
    """Return the Location of a redirect that can be followed; None for any other response.

    Its request can be sent again: requests would send a stream again as an empty body.
    """
    if response.status_code not in REDIRECT_STATUSES:
        return None
    is_repeatable = request.body is None or isinstance(request.body, bytes | str)
    return response.headers.get("Location") if is_repeatable else None


def resolve_location(response_url: str, location: str) -> str:
    """Resolve a Location header against ``response_url``, leaving its query untouched.

    An http Location for the host that answered over https is changed to https: a registry
    behind a TLS-terminating proxy does not know its own scheme (REGISTRIES.md 1.2).

    Raises:
        ProtocolViolation: the target is neither http nor https, downgrades from https to http
            on another host, is internal while the response is not, or is written so that
            parsers may disagree about its host.
    Source: REGISTRIES.md 1.2 and 4.
    """
    path = location.partition("?")[0]
    if "://" not in path and not path.startswith(("/", ".")):
        first_segment = path.partition("/")[0]
        if "." in first_segment or ":" in first_segment:  # host/path without a scheme
            location = f"//{location}"
    target = join_url(response_url, location)
    target_origin, response_origin = origin(target), origin(response_url)
    if response_origin[0] == "https" and target_origin[0] == "http":
        if target_origin[1] != response_origin[1]:
            raise ProtocolViolation(
                f"{redact_url(response_url)} redirects from https to plain http: "
                f"{redact_url(target)}"
            )
        # An explicit port, as in "http://host:443/", remains valid under https.
        netloc = urllib.parse.urlsplit(target).netloc
        if target_origin[2] == _DEFAULT_PORTS["http"]:
            netloc = host_of(response_url)
        target = urllib.parse.urlunsplit(
            urllib.parse.urlsplit(target)._replace(scheme="https", netloc=netloc)
        )
    if not _PLAIN_NETLOC.fullmatch(urllib.parse.urlsplit(target).netloc):
        raise ProtocolViolation(
            f"{redact_url(response_url)} redirects to an invalid URL: {redact_url(target)}"
        )
    check_reachable(target, response_url)
    return target
