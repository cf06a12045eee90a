"""Decides whether a token realm may receive credentials."""

from __future__ import annotations

import requests

from concil.errors import ProtocolViolation
from concil.http.network_policy import is_internal, is_this_machine, parse_ip_address
from concil.http.urls import join_url, origin, redact_url


def check_realm(url: str, registry_url: str) -> str:
    """Return the URL of a token realm if it may receive credentials.

    Any public host is allowed: Docker Hub's token service is not on its registry's host. An
    internal host is not: a registry could direct the client to machines that the registry
    itself cannot reach (SSRF).

    Args:
        url: from a challenge or redirect; may be relative.
        registry_url: the registry's own URL.
    Returns:
        The URL exactly as it will be requested, so that the check applies to it.
    Raises:
        ProtocolViolation: not a URL, plain http although the registry uses https, or an
            internal host other than the registry's own.
    Source: REGISTRIES.md 3.3; go-containerregistry issue 2193.
    """
    target = _normalize_url(join_url(registry_url, url))
    realm_origin, registry_origin = origin(target), origin(registry_url)
    if realm_origin[0] == "http" and registry_origin[0] == "https":
        raise ProtocolViolation(
            f"{registry_origin[1]} names a token service without TLS: {redact_url(target)}",
            remedy="the registry may be misconfigured, or the connection may be intercepted",
        )
    if is_internal(realm_origin[1]) and not _is_same_host(realm_origin[1], registry_origin[1]):
        raise ProtocolViolation(
            f"{registry_origin[1]} names a token service in a private network: "
            f"{redact_url(target)}",
            remedy="the registry may be misconfigured, or it may try to steal your credentials",
        )
    return target


def _normalize_url(url: str) -> str:
    """Return the URL as requests sends it; it may turn full-width digits into an address."""
    try:
        prepared = requests.Request("GET", url).prepare()
    except (requests.RequestException, ValueError) as error:
        raise ProtocolViolation(f"not a URL of a token service: {redact_url(url)}") from error
    return prepared.url or ""


def _is_same_host(host: str, registry_host: str) -> bool:
    address, registry_address = parse_ip_address(host), parse_ip_address(registry_host)
    if host == registry_host or (address is not None and address == registry_address):
        return True
    return is_this_machine(host) and is_this_machine(registry_host)  # "127.0.0.1" and "localhost"
