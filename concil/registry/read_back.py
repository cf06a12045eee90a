"""Reading back a manifest that was put: some registries accept what they cannot return."""

from __future__ import annotations

import logging
from collections.abc import Callable

import requests

from concil import retry
from concil.content import ACCEPTED_TYPES, Digest, Manifest
from concil.errors import InvalidDigest, NotFound, RegistryError, StatusError
from concil.registry.client import RegistryClient, discard_head
from concil.registry.endpoint import Call
from concil.registry.returned import Returned
from concil.registry.session import content_length, read_error

logger = logging.getLogger(__name__)

ROUNDS = 3  # times that a manifest is put before the registry is said to lose it
_BODY_LIMIT = 8 * 1024 * 1024  # bytes; more than any manifest has


def confirm(
    client: RegistryClient,
    manifest: Manifest,
    reference: str,
    put: Callable[[], object],
    returned: Returned,
) -> None:
    """Ask for a manifest that was put, and put it again if it does not come back.

    Distribution 2.8 that is killed while it writes a manifest leaves an empty file. From
    then on it accepts each PUT of the same manifest with 201, because a file of that name
    is there, and answers 500 to each GET and HEAD. No answer to a PUT shows this.

    A manifest that has come back in this run needs no question under its next tags, until
    an answer of the host is lost. After a loss it is read with its body.

    Args:
        put: puts it once more.
        returned: what has come back in this run.
    Raises:
        RegistryError: the registry accepts it, and cannot return it.
    """
    endpoint, losses = client.endpoint, client.endpoint.losses
    place = endpoint.base, client.repository, manifest.digest
    if returned.has(*place, losses):
        return
    trouble = ""
    for attempt in range(1, ROUNDS + 1):
        if attempt > 1:
            what = f"{client.repository}: manifest {reference}"
            logger.warning("%s: %s; putting it again", what, trouble)
            retry.sleep(retry.backoff(client.policy, attempt), endpoint.cancel)
            put()
        is_fine = not losses and attempt == 1 and _is_named(client, manifest, reference)
        trouble = "" if is_fine else _trouble(client, manifest, reference)
        if not trouble:
            returned.add(*place, losses)
            return
    raise _lost(client, manifest, reference, trouble)


def _accept(manifest: Manifest) -> dict[str, str]:
    return {"Accept": ", ".join(dict.fromkeys((manifest.media_type, *ACCEPTED_TYPES)))}


def _is_named(client: RegistryClient, manifest: Manifest, reference: str) -> bool:
    """Whether a HEAD says that the manifest is there; False: only a GET can tell.

    That is enough for distribution, which parses its file to answer a HEAD.
    """
    call = Call(
        "HEAD",
        client.path(f"manifests/{reference}"),
        client.pull,
        _accept(manifest),
        expect=frozenset({200, 400, 404, 405, 500}),
    )
    response = client.endpoint.repeat(call, client.policy)
    discard_head(response)
    if response.status_code != requests.codes.ok:
        return False
    length = content_length(response)
    try:
        told = Digest.parse(response.headers.get("Docker-Content-Digest", ""))
    except InvalidDigest:
        return False
    # Of an algorithm that distribution does not store it says nothing: the length has to do.
    is_same = told == Digest.of(manifest.body, told.algorithm)
    return is_same and length in (None, len(manifest.body))


def _trouble(client: RegistryClient, manifest: Manifest, reference: str) -> str:
    """Read the manifest; say what is wrong with the answer, "" if nothing is."""
    call = Call(
        "GET",
        client.path(f"manifests/{reference}"),
        client.pull,
        _accept(manifest),
        expect=frozenset({200, 500}),
    )
    try:
        response, body = client.read(call, _BODY_LIMIT, f"{client.repository}: {reference}")
    except StatusError as error:
        if not isinstance(error, NotFound) and error.status != requests.codes.bad_request:
            raise
        return f"GET answers {error.status}"
    if response.status_code != requests.codes.ok:
        read_error(response)
        return f"GET answers {response.status_code}"
    if body != manifest.body:
        return f"GET answers with {Digest.of(body)}"
    return ""


def _lost(
    client: RegistryClient, manifest: Manifest, reference: str, trouble: str
) -> RegistryError:
    host, digest = client.endpoint.base.partition("://")[2], manifest.digest
    return RegistryError(
        f"{host}/{client.repository}: the registry accepts the manifest {digest} as"
        f" {reference} and cannot return it: {trouble}",
        remedy="its stored file is damaged, as by a kill while it was written, or somebody else"
        f" writes the same tag: remove blobs/{digest.algorithm}/{digest.hex[:2]}/{digest.hex}"
        " from the registry's storage, then run it again",
    )
