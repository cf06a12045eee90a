"""Where a registry may send its users for a token: the rules that keep credentials at home."""

from __future__ import annotations

import contextlib
import ipaddress
import socket

import requests

from concil.errors import ProtocolViolation
from concil.registry.urls import Origin, join, origin, redacted

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address
# RFC 6052: an IPv4 address in the last 32 bits, reached through a translator.
_TRANSLATED = ipaddress.IPv6Network("64:ff9b::/96")
_EMBEDDED = ipaddress.IPv6Network("::/96")  # RFC 4291, 2.5.5.1: IPv4-compatible


def check_realm(url: str, home: str) -> str:
    """Return where a token is to be had, after the rules for it.

    Any public host is good, for Docker Hub's own is another one than its registry. A
    host inside the network is not: whoever asks for tokens would be led by the nose to
    machines that the registry itself cannot reach.

    Args:
        url: as the challenge or a redirect has it; may be relative.
        home: the registry's own URL.
    Returns:
        The URL as it will be sent, so that what was judged is what is asked.
    Raises:
        ProtocolViolation: no URL, plain http for a registry of https, or a host of this
            machine or network that is not the registry's own.
    Source: REGISTRIES.md 3.3; go-containerregistry issue 2193.
    """
    target = _as_sent(join(home, url))
    there, here = origin(target), origin(home)
    if there[0] == "http" and here[0] == "https":
        raise ProtocolViolation(
            f"{here[1]} sends its users to a token service without TLS: {redacted(target)}",
            remedy="the registry's configuration is wrong, or somebody sits in between",
        )
    if _is_inside(there[1]) and not _is_same(there[1], here[1]):
        raise ProtocolViolation(
            f"{here[1]} names a token service inside this network: {redacted(target)}",
            remedy="the registry's configuration is wrong, or somebody wants your credentials",
        )
    return target


def same_origin(one: str, other: str) -> bool:
    """Whether two URLs belong to the same scheme, host and port: what credentials are for."""
    first: Origin = origin(one)
    return first == origin(other)


def _as_sent(url: str) -> str:
    """The URL as requests makes it: full-width digits turn into an address only there."""
    try:
        prepared = requests.Request("GET", url).prepare()
    except (requests.RequestException, ValueError) as error:
        raise ProtocolViolation(f"not a URL of a token service: {redacted(url)}") from error
    return prepared.url or ""


def _is_same(there: str, here: str) -> bool:
    if there == here:
        return True
    one, other = _address(there), _address(here)
    if one is not None and one == other:
        return True
    return _is_loopback(there, one) and _is_loopback(here, other)  # 127.0.0.1 is localhost


def _is_inside(host: str) -> bool:
    """Whether a host is this machine or a private address, in whatever way it is written."""
    address = _address(host)
    if _is_loopback(host, address):
        return True
    return address is not None and (not address.is_global or address.is_multicast)


def _is_loopback(host: str, address: _Address | None) -> bool:
    name = host.rstrip(".").lower()
    if name == "localhost" or name.endswith(".localhost"):
        return True
    return address is not None and address.is_loopback


def _address(host: str) -> _Address | None:
    """The address that a host is a literal of; IPv4 out of its wrappings; None: a name."""
    name = host.rstrip(".").partition("%")[0]
    # The resolver takes 127.1, 0x7f000001, 0177.0.0.1 and 2130706433 as addresses too.
    with contextlib.suppress(OSError, ValueError):
        return ipaddress.IPv4Address(socket.inet_aton(name))
    try:
        address = ipaddress.IPv6Address(name)
    except ValueError:
        return None
    inner = address.ipv4_mapped or address.sixtofour
    if inner is None and (address in _TRANSLATED or address in _EMBEDDED):
        low = int(address) & 0xFFFFFFFF
        inner = ipaddress.IPv4Address(low) if low > 1 else None  # "::" and "::1" are themselves
    return inner or address
