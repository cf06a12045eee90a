"""URLs of registries: their origin, what of them may be shown, where an answer points to."""

from __future__ import annotations

import urllib.parse

from concil.errors import ProtocolViolation

_DEFAULT_PORTS = {"http": 80, "https": 443}
# Query keys that say what was asked for; anything else may be a signature or a state.
_SHOWN_KEYS = frozenset(
    {"digest", "mount", "from", "n", "last", "artifactType", "service", "scope"}
)

Origin = tuple[str, str, int]


def origin(url: str) -> Origin:
    """Return scheme, host and port: what credentials belong to.

    Raises:
        ProtocolViolation: no URL of http or https.
    """
    try:
        parts = urllib.parse.urlsplit(url)
        scheme, host, port = parts.scheme.lower(), parts.hostname, parts.port
    except ValueError as error:
        raise ProtocolViolation(f"not a URL: {error}") from error
    if scheme not in _DEFAULT_PORTS or not host:
        raise ProtocolViolation(f"not a URL of a registry: {redacted(url)}")
    return scheme, host.rstrip("."), port or _DEFAULT_PORTS[scheme]


def host_of(url: str) -> str:
    """Return ``host[:port]`` as the URL writes it, without user info; "" if it has none."""
    try:
        return urllib.parse.urlsplit(url).netloc.rpartition("@")[2]
    except ValueError:
        return ""


def redacted(url: str) -> str:
    """Return the URL without what could be a secret: user info, unknown query keys, session ids."""
    try:
        parts = urllib.parse.urlsplit(url)
    except ValueError:
        return "<not a URL>"
    path = parts.path
    before, uploads, session = path.partition("/blobs/uploads/")
    if uploads and session:
        path = f"{before}{uploads}<session>"
    kept = [(k, v) for k, v in urllib.parse.parse_qsl(parts.query) if k in _SHOWN_KEYS]
    query = urllib.parse.urlencode(kept, safe=":/,")
    return urllib.parse.urlunsplit((parts.scheme, host_of(url), path, query, ""))


def resolve(answered: str, location: str) -> str:
    """Return where ``location``, sent by the URL ``answered``, points to; its query untouched.

    An http Location for the very host that answered over https is taken as https: a
    registry behind a TLS proxy does not know better (REGISTRIES.md 1.2).

    Raises:
        ProtocolViolation: it leaves http and https, or goes from https to http elsewhere.
    """
    if "://" not in location.partition("?")[0] and not location.startswith(("/", "?", ".")):
        first = location.partition("/")[0]
        if "." in first or ":" in first:  # host/path without a scheme
            location = f"//{location}"
    target = join(answered, location)
    there, here = origin(target), origin(answered)
    if here[0] == "https" and there[0] == "http":
        if there[1] != here[1]:
            raise ProtocolViolation(
                f"{redacted(answered)} points from https to plain http: {redacted(target)}"
            )
        # The explicit port of a "http://host:443/" stays right under https.
        netloc = urllib.parse.urlsplit(target).netloc
        if there[2] == _DEFAULT_PORTS["http"]:
            netloc = host_of(answered)
        target = urllib.parse.urlunsplit(
            urllib.parse.urlsplit(target)._replace(scheme="https", netloc=netloc)
        )
    return target


def join(base: str, url: str) -> str:
    """Return ``url``, taken as relative to ``base``.

    Raises:
        ProtocolViolation: no URL at all.
    """
    try:
        return urllib.parse.urljoin(base, url)
    except ValueError as error:
        raise ProtocolViolation(f"{redacted(base)} points to what is no URL: {error}") from error


def with_query(url: str, key: str, value: str) -> str:
    """Append one parameter; the query that is there stays byte for byte."""
    base, mark, fragment = url.partition("#")
    joint = "&" if "?" in base else "?"
    return f"{base}{joint}{key}={urllib.parse.quote(value, safe=':')}{mark}{fragment}"
