"""Reads a manifest back after it was put."""

from __future__ import annotations

import logging
from collections.abc import Callable

import requests

from concil import retry
from concil.errors import InvalidDigest, NotFound, RegistryError, StatusError
from concil.http.transport import content_length
from concil.oci.manifest import Digest, Manifest
from concil.oci.media_types import ACCEPTED_TYPES
from concil.registry.client import RegistryClient, drain_head_response
from concil.registry.confirmed_manifests import ConfirmedManifests
from concil.registry.endpoint import Call

logger = logging.getLogger(__name__)

MAX_PUT_ATTEMPTS = 3  # PUTs of a manifest before it is reported as lost
_MAX_BODY_SIZE = 8 * 1024 * 1024  # bytes; larger than any manifest


def confirm_manifest(
    client: RegistryClient,
    manifest: Manifest,
    reference: str,
    put_manifest: Callable[[], object],
    confirmed_manifests: ConfirmedManifests,
) -> None:
    """Read a manifest back after its PUT, and put it again if that fails.

    Distribution 2.8 leaves an empty file if it is killed while writing a manifest. After that
    it answers 201 to each PUT of the same manifest, because the file exists, and 500 to each
    GET and HEAD. The response to a PUT does not show this.

    A manifest confirmed in this run is not checked again under further tags, until a response
    of the host is lost. After a loss it is read with GET instead of HEAD.

    Args:
        put_manifest: puts the manifest again.
        confirmed_manifests: the manifests confirmed in this run.
    Raises:
        RegistryError: the registry accepts the manifest but cannot return it.
    """
    endpoint, lost_responses = client.endpoint, client.endpoint.lost_response_count
    key = endpoint.base_url, client.repository, manifest.digest
    if confirmed_manifests.is_confirmed(*key, lost_responses):
        return
    problem = ""
    for attempt in range(1, MAX_PUT_ATTEMPTS + 1):
        if attempt > 1:
            operation = f"{client.repository}: manifest {reference}"
            logger.warning("%s: %s; sending it again", operation, problem)
            retry.sleep_or_raise(retry.backoff_delay(client.policy, attempt), endpoint.cancel)
            put_manifest()
        is_confirmed = (
            not lost_responses
            and attempt == 1
            and _is_confirmed_by_head(client, manifest, reference)
        )
        problem = "" if is_confirmed else _find_problem(client, manifest, reference)
        if not problem:
            confirmed_manifests.add(*key, lost_responses)
            return
    raise _lost_manifest_error(client, manifest, reference, problem)


def _accept_header(manifest: Manifest) -> dict[str, str]:
    return {"Accept": ", ".join(dict.fromkeys((manifest.media_type, *ACCEPTED_TYPES)))}


def _is_confirmed_by_head(client: RegistryClient, manifest: Manifest, reference: str) -> bool:
    """Return whether a HEAD confirms the manifest; if False, a GET is needed.

    A HEAD suffices for distribution, which parses the stored file to answer it.
    """
    call = Call(
        "HEAD",
        client.path(f"manifests/{reference}"),
        client.pull_scopes,
        _accept_header(manifest),
        expected_statuses=frozenset({200, 400, 404, 405, 500}),
    )
    response = client.endpoint.send_with_retry(call, client.policy)
    drain_head_response(response)
    if response.status_code != requests.codes.ok:
        return False
    length = content_length(response)
    try:
        returned = Digest.parse(response.headers.get("Docker-Content-Digest", ""))
    except InvalidDigest:
        return False
    # The registry may report another algorithm's digest, so compute that of the body.
    is_same = returned == Digest.from_bytes(manifest.body, returned.algorithm)
    return is_same and length in (None, len(manifest.body))


def _find_problem(client: RegistryClient, manifest: Manifest, reference: str) -> str:
    """Read the manifest with GET and describe the problem; "" if there is none."""
    call = Call(
        "GET",
        client.path(f"manifests/{reference}"),
        client.pull_scopes,
        _accept_header(manifest),
        expected_statuses=frozenset({200, 500}),
        max_response_size=_MAX_BODY_SIZE,
        operation=f"{client.repository}: {reference}",
    )
    try:
        response = client.endpoint.send_with_retry(call, client.policy)
    except StatusError as error:
        if not isinstance(error, NotFound) and error.status != requests.codes.bad_request:
            raise
        return f"GET returned {error.status}"
    if response.status_code != requests.codes.ok:
        return f"GET returned {response.status_code}"
    if response.content != manifest.body:
        return f"GET returned {Digest.from_bytes(response.content)}"
    return ""


def _lost_manifest_error(
    client: RegistryClient, manifest: Manifest, reference: str, problem: str
) -> RegistryError:
    host, digest = client.endpoint.base_url.partition("://")[2], manifest.digest
    return RegistryError(
        f"{host}/{client.repository}: the registry accepted the manifest {digest} as "
        f"{reference}, but cannot return it: {problem}",
        remedy="its stored file may be damaged, or another client writes the same tag: remove "
        "blobs/"
        f"{digest.algorithm}/{digest.hex[:2]}/{digest.hex}"
        " from the registry's storage, then try again",
    )
