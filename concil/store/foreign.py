"""A foreign layer at one of the URLs that its manifest has for it."""

from __future__ import annotations

import requests

from concil.content import Descriptor
from concil.errors import Cancelled, ConcilError, NotFound, ProtocolViolation, SizeMismatch
from concil.registry import failures
from concil.registry.client import first_byte
from concil.registry.session import Options, Transport, content_length, discard, read_error
from concil.registry.urls import addresses_of, check_public, redacted, resolve
from concil.store.remote import RemoteBlob

MAX_REDIRECTS = 5
_REDIRECTS = frozenset({301, 302, 303, 307, 308})


def open_elsewhere(
    transport: Transport, blob: Descriptor, start: int = 0, stop: int | None = None
) -> RemoteBlob:
    """Open a layer from ``start`` at the first of its URLs that has it; unverified.

    A manifest is the word of a stranger. So nobody is told any credentials, only https is
    spoken, and nothing inside the network is asked, neither at first nor behind a redirect.

    Raises:
        NotFound: no URL is known.
        ConcilError: what the last of them came to.
    Source: REGISTRIES.md 4; CVE-2020-15157.
    """
    failure: ConcilError = NotFound(
        f"the foreign layer {blob.digest} is not at the source, and its manifest has no URL for it",
        remedy="leave foreign layers out, or push the image again with its layer",
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
    transport: Transport, url: str, blob: Descriptor, part: tuple[int, int | None]
) -> RemoteBlob:
    start, stop = part
    headers = {"Accept-Encoding": "identity"}
    if blob.size and (start or (stop is not None and stop < blob.size)):
        headers["Range"] = f"bytes={start}-{'' if stop is None else stop - 1}"
    response = _get(transport, url, headers)
    if response.status_code not in (200, 206):
        raise failures.status_error(response, read_error(response))
    begins, size = 0, blob.size
    if response.status_code == requests.codes.partial_content:
        begins, size = start, min(stop or blob.size, blob.size) - start
        told = first_byte(response.headers.get("Content-Range", ""))
        if told != start:
            response.close()
            raise ProtocolViolation(f"GET {redacted(url)}: asked for bytes from {start}")
    length = content_length(response)
    if length is not None and length != size:
        response.close()
        raise SizeMismatch(
            f"GET {redacted(url)}: {length} bytes, the manifest says {size}",
            remedy="somebody has changed the layer; leave foreign layers out",
        )
    return RemoteBlob(response, begins)


def _get(transport: Transport, url: str, headers: dict[str, str]) -> requests.Response:
    """Ask for a URL, and for where it leads to; each of them is judged first."""
    for _ in range(MAX_REDIRECTS + 1):
        check_public(url, look_up=None if transport.is_proxied(url) else addresses_of)
        request = requests.Request("GET", url, headers=headers)
        response = transport.send(request, Options(follow=False))
        location = response.headers.get("Location")
        if response.status_code not in _REDIRECTS or location is None:
            return response
        discard(response)
        url = resolve(response.url, location)
    raise ProtocolViolation(f"{redacted(url)}: more than {MAX_REDIRECTS} redirects")
