"""Where a registry may send its users for a token: the rules that keep credentials at home."""

from __future__ import annotations

import requests

from concil.errors import ProtocolViolation
from concil.registry.urls import (
    Origin,
    address_of,
    is_inside,
    is_loopback,
    join,
    origin,
    redacted,
)


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
    if is_inside(there[1]) and not _is_same(there[1], here[1]):
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
    one, other = address_of(there), address_of(here)
    if there == here or (one is not None and one == other):
        return True
    return is_loopback(there) and is_loopback(here)  # 127.0.0.1 is localhost
