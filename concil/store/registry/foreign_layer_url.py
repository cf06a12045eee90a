"""Reads foreign layers from the URLs of their descriptors."""

from __future__ import annotations

from functools import partial

import requests

from concil.errors import Cancelled, ConcilError, NotFound, ProtocolViolation, SizeMismatch
from concil.http import status_errors
from concil.http.content_range import parse_content_range_start
from concil.http.network_policy import check_public, resolve_host
from concil.http.redirects import resolve_location
from concil.http.transport import SendOptions, Transport, content_length, read_error
from concil.http.urls import redact_url
from concil.oci.descriptor import Descriptor
from concil.store.registry.blob_body import RegistryBlobReader


def open_foreign_layer(
    transport: Transport, blob: Descriptor, start: int = 0, stop: int | None = None
) -> RegistryBlobReader:
    """Open a layer from ``start`` at the first of its URLs that works; unverified.

    The URLs come from an untrusted manifest. Therefore no credentials are sent, only https is
    used, and no private address is contacted, neither directly nor after a redirect.

    Raises:
        NotFound: the manifest has no URL for the layer.
        ConcilError: the error of the last URL.
    Source: REGISTRIES.md 4; CVE-2020-15157.
    """
    failure: ConcilError = NotFound(
        f"the foreign layer {blob.digest} is not at the source, and its manifest has no URL for it",
        remedy="skip foreign layers, or push the image again with its layer",
    )
    for url in blob.urls:
        try:
            return _open(transport, url, blob, (start, stop))
        except Cancelled:
            raise
        except ConcilError as error:
            failure = error
    raise failure


def _open(
    transport: Transport, url: str, blob: Descriptor, byte_range: tuple[int, int | None]
) -> RegistryBlobReader:
    start, stop = byte_range
    headers = {"Accept-Encoding": "identity"}
    if blob.size and (start or (stop is not None and stop < blob.size)):
        headers["Range"] = f"bytes={start}-{'' if stop is None else stop - 1}"
    response = _get(transport, url, headers)
    if response.status_code not in (200, 206):
        raise status_errors.create_status_error(response, read_error(response))
    body_start, size = 0, blob.size
    if response.status_code == requests.codes.partial_content:
        body_start, size = start, min(stop or blob.size, blob.size) - start
        range_start = parse_content_range_start(response.headers.get("Content-Range", ""))
        if range_start != start:
            response.close()
            raise ProtocolViolation(f"GET {redact_url(url)}: requested bytes from {start}")
    length = content_length(response)
    if length is not None and length != size:
        response.close()
        raise SizeMismatch(
            f"GET {redact_url(url)}: {length} bytes instead of the {size} in the manifest",
            remedy="the layer was changed at its URL; skip foreign layers",
        )
    return RegistryBlobReader(response, body_start)


def _get(transport: Transport, url: str, headers: dict[str, str]) -> requests.Response:
    """Request a URL and follow its redirects; each URL is checked before the request."""
    _check_public(transport, url)
    request = requests.Request("GET", url, headers=headers)
    options = SendOptions(resolve_redirect=partial(_resolve_redirect, transport))
    return transport.send(request, options)


def _resolve_redirect(transport: Transport, response_url: str, location: str) -> str:
    url = resolve_location(response_url, location)
    _check_public(transport, url)
    return url


def _check_public(transport: Transport, url: str) -> None:
    check_public(url, resolve_name=None if transport.is_proxied(url) else resolve_host)
