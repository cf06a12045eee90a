"""URLs: origins, redaction, joining and queries."""

from __future__ import annotations

import contextlib
import functools
import re
import urllib.parse

from concil.errors import ProtocolViolation
from concil.oci.reference import display_host
from concil.runtime.redaction import HIDDEN, SECRETS, SESSION

_DEFAULT_PORTS = {"http": 80, "https": 443}
_MAX_PATH_LENGTH = 300  # characters of a path shown in a message
_PARAMETERS = re.compile(r"(?<=;)[^/;]+")  # RFC 3986, 3.3: may hold a signature, "sig=..."
# A host that all URL parsers read alike: no user info, no backslash, ASCII only.
_PLAIN_NETLOC = re.compile(r"(?:[A-Za-z0-9_][A-Za-z0-9_.-]*|\[[0-9A-Fa-f:.]+\])(?::[0-9]{0,5})?")
# The part before the path, used as cache key: `origin` is called several times per request.
_PLAIN_ORIGIN = re.compile(r"(https?://([A-Za-z0-9.-]{1,255}(?::[0-9]{1,5})?))(?:[/?]|\Z)")
# Query keys that may be shown; any other may hold a signature or session state.
_PUBLIC_QUERY_KEYS = frozenset(
    {"digest", "mount", "from", "n", "last", "artifactType", "service", "scope"}
)

Origin = tuple[str, str, int]


def origin(url: str) -> Origin:
    """Return scheme, host and port, the unit that credentials belong to.

    Raises:
        ProtocolViolation: ``url`` is not an http or https URL.
    """
    prefix = _PLAIN_ORIGIN.match(url)
    return _cached_origin(prefix[1]) if prefix else _parse_origin(url)


def _parse_origin(url: str) -> Origin:
    parsed = None
    with contextlib.suppress(ValueError):  # its message may quote user and password
        parts = urllib.parse.urlsplit(url)
        parsed = parts.scheme.lower(), parts.hostname, parts.port
    if parsed is None:
        raise ProtocolViolation("not a URL: its host or port is invalid")
    scheme, host, port = parsed
    if scheme not in _DEFAULT_PORTS or not host:
        raise ProtocolViolation(f"not a URL of a registry: {redact_url(url)}")
    return scheme, host.rstrip("."), port or _DEFAULT_PORTS[scheme]


_cached_origin = functools.lru_cache(maxsize=256)(_parse_origin)


def host_of(url: str) -> str:
    """Return ``host[:port]`` as written in the URL, without user info; "" if there is none."""
    prefix = _PLAIN_ORIGIN.match(url)
    if prefix:
        return prefix[2]
    try:
        return urllib.parse.urlsplit(url).netloc.rpartition("@")[2]
    except ValueError:
        return ""


# Source: distribution-spec, "Endpoints".
_API_PATH = re.compile(r"/v2/(.+)/(manifests|blobs|tags|referrers)/(.+)")


def find_repository(url: str) -> str:
    """Return host and repository of the URL of a registry's API, as users write them; or ""."""
    match = _API_PATH.fullmatch(urllib.parse.urlsplit(redact_url(url)).path)
    return f"{display_host(host_of(redact_url(url)))}/{match[1]}" if match else ""


def describe_request(method: str, url: str) -> str:  # noqa: PLR0911 - one for each kind
    """Return what could not be done, if the request failed: "cannot read HOST/REPOSITORY:TAG".

    It contains nothing secret. Requests for other URLs than those of the distribution
    specification are described by method and URL.
    """
    shown_url = redact_url(url)
    path = urllib.parse.urlsplit(shown_url).path
    host = display_host(host_of(shown_url))
    action = {"GET": "read", "HEAD": "read", "DELETE": "delete"}.get(method.upper(), "write")
    if path.rstrip("/") == "/v2":
        return f"cannot reach the registry {host}"
    if path.startswith("/v2/_catalog"):
        return f"cannot list the repositories of {host}"
    match = _API_PATH.fullmatch(path)
    if match is None:
        return f"{method} {shown_url}"
    repository, kind, name = f"{host}/{match[1]}", match[2], match[3]
    if kind == "tags":
        return f"cannot list the tags of {repository}"
    if kind == "referrers":
        return f"cannot list the referrers of {repository}@{name}"
    if kind == "blobs" and name.startswith("uploads"):
        session = name.partition("/")[2]  # redacted
        return f"cannot upload to {repository} ({method}{f' {session}' if session else ''})"
    image = f"{'blob ' if kind == 'blobs' else ''}{repository}{'@' if ':' in name else ':'}{name}"
    return f"cannot {action} {image}"


def redact_url(url: str) -> str:
    """Return the URL without anything that could be secret.

    Removed are user info, unknown query keys, path parameters, and the part of an upload
    session's URL that the registry chose.
    """
    try:
        parts = urllib.parse.urlsplit(url)
    except ValueError:
        return "<not a URL>"
    host, path = host_of(url), parts.path
    prefix, uploads, session = path.partition("/blobs/uploads/")
    if uploads and session:
        path = f"{prefix}{uploads}{SESSION}"
    # Redact before cutting: a truncated secret would not be recognized.
    redacted = SECRETS.redact(f"//{host}{path}").removeprefix("//")
    if not redacted.startswith(host):
        host = redacted.partition("/")[0]
    path = _PARAMETERS.sub(HIDDEN, redacted.removeprefix(host))
    # A Location may contain escape sequences, or tens of thousands of characters.
    path = urllib.parse.quote(path[:_MAX_PATH_LENGTH], safe="/:@!$&'()*+,;=~%<>")
    host = urllib.parse.quote(host[:_MAX_PATH_LENGTH], safe=":[]<>")
    public = [(k, v) for k, v in urllib.parse.parse_qsl(parts.query) if k in _PUBLIC_QUERY_KEYS]
    query = urllib.parse.urlencode(public, safe=":/,")[:_MAX_PATH_LENGTH]
    return urllib.parse.urlunsplit((parts.scheme, host, path, query, ""))


def join_url(base: str, url: str) -> str:
    """Resolve ``url`` relative to ``base``.

    Raises:
        ProtocolViolation: ``url`` cannot be parsed.
    """
    with contextlib.suppress(ValueError):  # its message may quote a session or signature
        return urllib.parse.urljoin(base, url)
    raise ProtocolViolation(f"{redact_url(base)} redirects to an invalid URL")


def add_query_parameter(url: str, key: str, value: str) -> str:
    """Append a query parameter; the existing query stays unchanged byte for byte."""
    base, mark, fragment = url.partition("#")
    separator = "&" if "?" in base else "?"
    return f"{base}{separator}{key}={urllib.parse.quote(value, safe=':')}{mark}{fragment}"
