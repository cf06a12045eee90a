"""Which proxy the environment names for a URL, by which variable, and what goes past it."""

from __future__ import annotations

import ipaddress
import os
import re
import urllib.request
from dataclasses import dataclass, field

import requests.utils

from concil.registry.urls import origin

_SEPARATORS = re.compile(r"[\s,]+")  # curl takes spaces, too
_HOST_AND_PORT = re.compile(r"(\[[^\]]*\]|[^:]*)(?::([0-9]{1,5}))?")


@dataclass(frozen=True, slots=True)
class Proxy:
    """A proxy, and where it is set."""

    url: str = field(repr=False)  # may hold a password, and may be a host alone
    setting: str  # the variable


def of_environment(url: str) -> Proxy | None:
    """Return the proxy for requests to a URL; None: there is none, or it is not for this host.

    A variable in lower case wins over one in upper case, as for curl and requests.
    """
    scheme = origin(url)[0]
    # requests knows what the settings of macOS and Windows let go past a proxy.
    if is_exempt(url, _exemptions()) or requests.utils.should_bypass_proxies(url, no_proxy=None):
        return None
    known = urllib.request.getproxies()
    for name in (scheme, "all"):
        if known.get(name):
            return Proxy(known[name], _variable(f"{name}_proxy", known[name]))
    return None


def is_exempt(url: str, exemptions: str) -> bool:
    """Whether a list as in NO_PROXY has the host of a URL.

    Its entries are names, which stand for the names below them too, addresses and networks;
    each may have a port. One that is ``*`` stands for every host.

    Source: golang.org/x/net/http/httpproxy, Config.NoProxy, which docker and skopeo use.
    """
    _, host, port = origin(url)
    entries = _SEPARATORS.split(exemptions.lower())
    return any(_has(entry, host, port) for entry in entries if entry)


def _has(entry: str, host: str, port: int) -> bool:
    address = _address(host)
    if address is not None:
        # An IPv6 address has colons without being in brackets, and no port then.
        network = _network(entry)
        if network is not None:
            return address in network
    found = _HOST_AND_PORT.fullmatch(entry)
    if found is None or (found[2] and int(found[2]) != port):
        return False
    name = found[1].removeprefix("[").removesuffix("]")
    if name == "*":
        return True
    if address is not None:
        network = _network(name)
        return network is not None and address in network
    name = name.removeprefix("*").strip(".")
    return bool(name) and (host == name or host.endswith(f".{name}"))


def _exemptions() -> str:
    return os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return None


def _network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    """An address or network; of another family than an address it holds nothing of it."""
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError:
        return None


def _variable(name: str, value: str) -> str:
    """The variable that a proxy is from, in the spelling that it has."""
    written = [each for each in os.environ if each.lower() == name and os.environ[each] == value]
    if not written:
        return "the proxy settings of the system"
    return name if name in written else written[0]
