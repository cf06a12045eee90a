"""URLs of registries: their origin, what of them may be shown, where an answer points to."""

from __future__ import annotations

import contextlib
import functools
import ipaddress
import re
import socket
import urllib.parse
from collections.abc import Callable, Iterable

from concil.errors import ProtocolViolation
from concil.redaction import HIDDEN, SECRETS, SESSION

_DEFAULT_PORTS = {"http": 80, "https": 443}
_SHOWN_PATH = 300  # characters of a path in a message
_PARAMETERS = re.compile(r"(?<=;)[^/;]+")  # RFC 3986, 3.3: may be a signature, as "sig=..."
# What every parser of URLs takes for the same host: no user info, no backslash, ASCII only.
_PLAIN_NETLOC = re.compile(r"(?:[A-Za-z0-9_][A-Za-z0-9_.-]*|\[[0-9A-Fa-f:.]+\])(?::[0-9]{0,5})?")
# A URL's origin is asked for several times a request: it is remembered by what is before the path.
_PLAIN_FRONT = re.compile(r"(https?://[A-Za-z0-9.-]{1,255}(?::[0-9]{1,5})?)[/?]")
# What hosts files and resolvers call the loopback interface.
_LOOPBACK_NAMES = frozenset(
    {
        "localhost",
        "localhost.localdomain",
        "localhost4",
        "localhost6",
        "ip6-localhost",
        "ip6-loopback",
    }
)
# Names that no public server can have: RFC 6762, RFC 8375, ICANN's choice for private use.
_PRIVATE_NAMES = (".local", ".home.arpa", ".internal")
# IPv6 networks whose last 32 bits are an IPv4 address that is reached through a translator:
# RFC 6052, RFC 8215, and the IPv4-compatible ones of RFC 4291.
_TRANSLATED = tuple(map(ipaddress.IPv6Network, ("64:ff9b::/96", "64:ff9b:1::/48", "::/96")))
# Query keys that say what was asked for; anything else may be a signature or a state.
_SHOWN_KEYS = frozenset(
    {"digest", "mount", "from", "n", "last", "artifactType", "service", "scope"}
)

Origin = tuple[str, str, int]
_Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def origin(url: str) -> Origin:
    """Return scheme, host and port: what credentials belong to.

    Raises:
        ProtocolViolation: no URL of http or https.
    """
    front = _PLAIN_FRONT.match(url)
    return _known_origin(front[1]) if front else _origin(url)


def _origin(url: str) -> Origin:
    known = None
    with contextlib.suppress(ValueError):  # which may quote a user and a password
        parts = urllib.parse.urlsplit(url)
        known = parts.scheme.lower(), parts.hostname, parts.port
    if known is None:
        raise ProtocolViolation("not a URL: its host or port makes no sense")
    scheme, host, port = known
    if scheme not in _DEFAULT_PORTS or not host:
        raise ProtocolViolation(f"not a URL of a registry: {redacted(url)}")
    return scheme, host.rstrip("."), port or _DEFAULT_PORTS[scheme]


_known_origin = functools.lru_cache(maxsize=256)(_origin)


def host_of(url: str) -> str:
    """Return ``host[:port]`` as the URL writes it, without user info; "" if it has none."""
    try:
        return urllib.parse.urlsplit(url).netloc.rpartition("@")[2]
    except ValueError:
        return ""


def redacted(url: str) -> str:
    """Return the URL without what could be a secret.

    That is user info, unknown query keys, parameters in the path, and of an upload session all
    that the registry's Location said.
    """
    try:
        parts = urllib.parse.urlsplit(url)
    except ValueError:
        return "<not a URL>"
    host, path = host_of(url), parts.path
    before, uploads, session = path.partition("/blobs/uploads/")
    if uploads and session:
        path = f"{before}{uploads}{SESSION}"
    # Before it is cut: half a secret would not be found.
    shown = SECRETS.redact(f"//{host}{path}").removeprefix("//")
    if not shown.startswith(host):
        host = shown.partition("/")[0]
    path = _PARAMETERS.sub(HIDDEN, shown.removeprefix(host))
    # A Location may bring an escape sequence, or tens of thousands of characters.
    path = urllib.parse.quote(path[:_SHOWN_PATH], safe="/:@!$&'()*+,;=~%<>")
    host = urllib.parse.quote(host[:_SHOWN_PATH], safe=":[]<>")
    kept = [(k, v) for k, v in urllib.parse.parse_qsl(parts.query) if k in _SHOWN_KEYS]
    query = urllib.parse.urlencode(kept, safe=":/,")[:_SHOWN_PATH]
    return urllib.parse.urlunsplit((parts.scheme, host, path, query, ""))


def resolve(answered: str, location: str) -> str:
    """Return where ``location``, sent by the URL ``answered``, points to; its query untouched.

    An http Location for the very host that answered over https is taken as https: a
    registry behind a TLS proxy does not know better (REGISTRIES.md 1.2).

    Raises:
        ProtocolViolation: it leaves http and https, goes from https to http elsewhere, to
            a host inside the network where the one that answered is not, or is written so
            that two readers may find two hosts in it.
    Source: REGISTRIES.md 1.2 and 4.
    """
    path = location.partition("?")[0]
    if "://" not in path and not path.startswith(("/", ".")):
        first = path.partition("/")[0]
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
    if not _PLAIN_NETLOC.fullmatch(urllib.parse.urlsplit(target).netloc):
        raise ProtocolViolation(f"{redacted(answered)} points to an odd URL: {redacted(target)}")
    check_reachable(target, answered)
    return target


def check_reachable(target: str, home: str) -> None:
    """Refuse a URL inside the network unless the one that leads there is inside as well.

    Whoever follows would be led by the nose to machines that the registry itself cannot
    reach. What a name resolves to is not looked at.

    Raises:
        ProtocolViolation: from a public host to an address of a private network, from
            another machine to this one, or to a link-local address but its own.
    """
    there, here = origin(target)[1], origin(home)[1]
    one, other = address_of(there), address_of(here)
    if there == here or (one is not None and one == other) or not is_inside(there):
        return
    if is_loopback(there):
        fits = is_loopback(here)
    elif one is not None and one.is_link_local:
        fits = False  # there the clouds keep the credentials of their machines
    else:
        fits = is_inside(here) or _is_private_name(here)
    if not fits:
        raise ProtocolViolation(
            f"{redacted(home)} points to a host inside this network: {redacted(target)}",
            remedy="somebody may want to look around here; if not, let the registry name "
            "its storage by a host name",
        )


def addresses_of(host: str) -> list[str]:
    """What a name resolves to; nothing where it does not, which is the connection's trouble."""
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return []
    return [str(address[0]) for *_, address in found]


def check_public(
    url: str, *, look_up: Callable[[str], Iterable[str]] | None = addresses_of
) -> None:
    """Refuse a URL that a stranger wrote unless it is https and leads out of this network.

    Args:
        look_up: resolves its name, which counts as well; None where a proxy does that.
    Raises:
        ProtocolViolation: plain http, a user in it, an odd host, or one inside.
    """
    scheme, host, _ = origin(url)
    if scheme != "https":
        raise ProtocolViolation(f"{redacted(url)} is no https")
    if not _PLAIN_NETLOC.fullmatch(urllib.parse.urlsplit(url).netloc):
        raise ProtocolViolation(f"{redacted(url)} is an odd URL")
    inside = is_inside(host) or _is_private_name(host)
    if inside or (look_up is not None and any(map(is_inside, look_up(host)))):
        raise ProtocolViolation(f"{redacted(url)} is a host inside this network")


def is_inside(host: str) -> bool:
    """Whether a host is this machine or in no public network, in whatever way it is written.

    Only names of the loopback interface and literal addresses are judged: also 0x7f000001,
    2130706433, 0177.1, and IPv4 addresses in the wrappings of IPv6.

    Args:
        host: without a port, an IPv6 address without brackets.
    """
    address = address_of(host)
    if is_loopback(host):
        return True
    if isinstance(address, ipaddress.IPv6Address) and address.is_site_local:
        return True
    return address is not None and (not address.is_global or address.is_multicast)


def address_of(host: str) -> _Address | None:
    """The address that a host is a literal of, an IPv4 one out of its wrapping; None: a name."""
    literal = host.rstrip(".").partition("%")[0]
    # The system's resolver, too, takes a number, hexadecimal and octal parts, or two of them.
    with contextlib.suppress(OSError, ValueError):
        return ipaddress.IPv4Address(socket.inet_aton(literal))
    try:
        address = ipaddress.IPv6Address(literal)
    except ValueError:
        return None
    wrapped = address.ipv4_mapped or address.sixtofour
    low = int(address) & 0xFFFFFFFF
    # "::" and "::1" are addresses of their own.
    if wrapped is None and low > 1 and any(address in network for network in _TRANSLATED):
        wrapped = ipaddress.IPv4Address(low)
    return wrapped or address


def is_loopback(host: str) -> bool:
    """Whether a host is this machine by its name or address."""
    name, address = host.rstrip(".").lower(), address_of(host)
    if name in _LOOPBACK_NAMES or name.endswith((".localhost", ".localhost.localdomain")):
        return True
    # A connection to 0.0.0.0 ends at this machine.
    return address is not None and (address.is_loopback or address.is_unspecified)


def _is_private_name(host: str) -> bool:
    name = host.rstrip(".").lower()
    return address_of(host) is None and ("." not in name or name.endswith(_PRIVATE_NAMES))


def join(base: str, url: str) -> str:
    """Return ``url``, taken as relative to ``base``.

    Raises:
        ProtocolViolation: no URL at all.
    """
    with contextlib.suppress(ValueError):  # which may quote a session or a signature
        return urllib.parse.urljoin(base, url)
    raise ProtocolViolation(f"{redacted(base)} points to what is no URL")


def with_query(url: str, key: str, value: str) -> str:
    """Append one parameter; the query that is there stays byte for byte."""
    base, mark, fragment = url.partition("#")
    joint = "&" if "?" in base else "?"
    return f"{base}{joint}{key}={urllib.parse.quote(value, safe=':')}{mark}{fragment}"
