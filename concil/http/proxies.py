"""Selects the proxy of a URL from the environment."""

from __future__ import annotations

import ipaddress
import os
import re
import urllib.request
from dataclasses import field

import requests.utils

from concil.http.urls import origin
from concil.runtime.dataclass import dataclass

_SEPARATORS = re.compile(r"[\s,]+")  # curl accepts spaces as well
_HOST_AND_PORT = re.compile(r"(\[[^\]]*\]|[^:]*)(?::([0-9]{1,5}))?")


@dataclass(frozen=True, slots=True)
class Proxy:
    """A proxy and the setting it comes from."""

    url: str = field(repr=False)  # may contain a password, or be a host without a scheme
    setting: str  # name of the environment variable


def find_proxy(url: str) -> Proxy | None:
    """Return the proxy for a URL; None if there is none or the host is exempt.

    A lower-case variable takes precedence over upper case, as in curl and requests.
    """
    scheme = origin(url)[0]
    # requests also reads the proxy exemptions in the settings of macOS and Windows.
    if is_exempt(url, _no_proxy()) or requests.utils.should_bypass_proxies(url, no_proxy=None):
        return None
    environment_proxies = urllib.request.getproxies()
    for name in (scheme, "all"):
        if environment_proxies.get(name):
            return Proxy(
                environment_proxies[name],
                _variable_name(f"{name}_proxy", environment_proxies[name]),
            )
    return None


def is_exempt(url: str, exemptions: str) -> bool:
    """Return whether a NO_PROXY list contains the host of a URL.

    Entries are names (which include their subdomains), addresses and networks, each with an
    optional port; ``*`` matches every host.

    Source: golang.org/x/net/http/httpproxy, Config.NoProxy, which docker and skopeo use.
    """
    _, host, port = origin(url)
    entries = _SEPARATORS.split(exemptions.lower())
    return any(_is_match(entry, host, port) for entry in entries if entry)


def _is_match(entry: str, host: str, port: int) -> bool:
    address = _parse_address(host)
    if address is not None:
        # An IPv6 address without brackets contains colons, but has no port.
        network = _parse_network(entry)
        if network is not None:
            return address in network
    match = _HOST_AND_PORT.fullmatch(entry)
    if match is None or (match[2] and int(match[2]) != port):
        return False
    name = match[1].removeprefix("[").removesuffix("]")
    if name == "*":
        return True
    if address is not None:
        network = _parse_network(name)
        return network is not None and address in network
    name = name.removeprefix("*").strip(".")
    return bool(name) and (host == name or host.endswith(f".{name}"))


def _no_proxy() -> str:
    return os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""


def _parse_address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return None


def _parse_network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    """Parse an address or network. A network contains no address of the other family."""
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError:
        return None


def _variable_name(name: str, value: str) -> str:
    """Return the environment variable that sets a proxy, in its actual case."""
    matching = [
        variable
        for variable in os.environ
        if variable.lower() == name and os.environ[variable] == value
    ]
    if not matching:
        return "the proxy settings of the system"
    return name if name in matching else matching[0]
