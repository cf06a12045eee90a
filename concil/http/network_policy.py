"""Classifies hosts as public or internal."""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import urllib.parse
from collections.abc import Callable, Iterable

from concil.errors import ProtocolViolation
from concil.http.urls import _PLAIN_NETLOC, origin, redact_url
from concil.oci.reference import is_loopback

__all__ = [
    "check_public",
    "check_reachable",
    "is_internal",
    "is_this_machine",
    "parse_ip_address",
    "resolve_host",
]

# Further names of the loopback interface in hosts files and resolvers.
_LOOPBACK_NAMES = frozenset(
    {
        "localhost.localdomain",
        "localhost4",
        "localhost6",
        "ip6-localhost",
        "ip6-loopback",
    }
)


# Domains reserved for private use: RFC 6762, RFC 8375, and ICANN's .internal.
_PRIVATE_NAMES = (".local", ".home.arpa", ".internal")


# IPv6 networks whose last 32 bits are an IPv4 address: the translation prefixes of RFC 6052
# and RFC 8215, and the IPv4-compatible addresses of RFC 4291.
_TRANSLATION_NETWORKS = tuple(
    map(ipaddress.IPv6Network, ("64:ff9b::/96", "64:ff9b:1::/48", "::/96"))
)


_Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def check_reachable(target: str, referring_url: str) -> None:
    """Reject an internal URL unless the referring URL is internal as well.

    Otherwise a registry could direct the client to machines that the registry itself cannot
    reach (SSRF). Names are not resolved.

    Raises:
        ProtocolViolation: a public host refers to a private address, another machine refers
            to loopback, or a host refers to a link-local address other than its own.
    """
    target_host, referring_host = origin(target)[1], origin(referring_url)[1]
    target_address, referring_address = (
        parse_ip_address(target_host),
        parse_ip_address(referring_host),
    )
    if (
        target_host == referring_host
        or (target_address is not None and target_address == referring_address)
        or not is_internal(target_host)
    ):
        return
    if is_this_machine(target_host):
        is_allowed = is_this_machine(referring_host)
    elif target_address is not None and target_address.is_link_local:
        is_allowed = False  # cloud metadata services serve credentials there
    else:
        is_allowed = is_internal(referring_host) or _is_private_name(referring_host)
    if not is_allowed:
        raise ProtocolViolation(
            f"{redact_url(referring_url)} points to a host in a private network: "
            f"{redact_url(target)}",
            remedy="this may be an attempt to reach internal hosts; if it is not, configure the "
            "registry to use a host name for its storage",
        )


def resolve_host(host: str) -> list[str]:
    """Return the addresses of a name; empty if it does not resolve (connecting reports that)."""
    try:
        infos = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return []
    return [str(address[0]) for *_, address in infos]


def check_public(
    url: str, *, resolve_name: Callable[[str], Iterable[str]] | None = resolve_host
) -> None:
    """Reject an untrusted URL unless it is https and points to a public host.

    Args:
        resolve_name: resolves the host, whose addresses must be public too; None if a proxy
            resolves it.
    Raises:
        ProtocolViolation: plain http, user info, an ambiguous host, or an internal one.
    """
    scheme, host, _ = origin(url)
    if scheme != "https":
        raise ProtocolViolation(f"{redact_url(url)} does not use https")
    if not _PLAIN_NETLOC.fullmatch(urllib.parse.urlsplit(url).netloc):
        raise ProtocolViolation(f"{redact_url(url)} is not a valid URL")
    is_inside = is_internal(host) or _is_private_name(host)
    if is_inside or (resolve_name is not None and any(map(is_internal, resolve_name(host)))):
        raise ProtocolViolation(f"{redact_url(url)} is a host in a private network")


def is_internal(host: str) -> bool:
    """Return whether a host is this machine or an address outside the public networks.

    Only loopback names and literal addresses are recognized, in every spelling: 0x7f000001,
    2130706433, 0177.1, and IPv4 addresses embedded in IPv6.

    Args:
        host: without a port, an IPv6 address without brackets.
    """
    address = parse_ip_address(host)
    if is_this_machine(host):
        return True
    if isinstance(address, ipaddress.IPv6Address) and address.is_site_local:
        return True
    return address is not None and (not address.is_global or address.is_multicast)


def parse_ip_address(host: str) -> _Address | None:
    """Parse a literal address, unwrapping IPv4 embedded in IPv6; None for a name."""
    literal = host.rstrip(".").partition("%")[0]
    # Like the system's resolver: plain numbers, hexadecimal and octal parts, fewer than four.
    with contextlib.suppress(OSError, ValueError):
        return ipaddress.IPv4Address(socket.inet_aton(literal))
    try:
        address = ipaddress.IPv6Address(literal)
    except ValueError:
        return None
    embedded = address.ipv4_mapped or address.sixtofour
    low_bits = int(address) & 0xFFFFFFFF
    # "::" and "::1" embed no IPv4 address.
    if (
        embedded is None
        and low_bits > 1
        and any(address in network for network in _TRANSLATION_NETWORKS)
    ):
        embedded = ipaddress.IPv4Address(low_bits)
    return embedded or address


def is_this_machine(host: str) -> bool:
    """Return whether a host is this machine, by any name or spelling of its address."""
    if is_loopback(host):
        return True
    name, address = host.rstrip(".").lower(), parse_ip_address(host)
    if name in _LOOPBACK_NAMES or name.endswith(".localhost.localdomain"):
        return True
    # A connection to 0.0.0.0 reaches this machine.
    return address is not None and (address.is_loopback or address.is_unspecified)


def _is_private_name(host: str) -> bool:
    name = host.rstrip(".").lower()
    return parse_ip_address(host) is None and ("." not in name or name.endswith(_PRIVATE_NAMES))
