"""A destination that misses blobs it was given is given them, or its manifest, again."""

from __future__ import annotations

import pytest
import requests

from concil.errors import ProtocolViolation, StatusError
from concil.oci.manifest import Manifest
from tests.support.memory_store import MemoryStore
from tests.support.store_faults import RefusesRequests
from tests.transfer.image.test_copier import BLOBS, IMAGE, SIZE
from tests.transfer.image_copies import TransferHarness, assert_same, load
from tests.transfer.transfer_setup import ALWAYS


def unknown_blob() -> StatusError:
    """Return what a registry answers to a manifest whose blobs it does not see."""
    response = requests.Response()
    response.status_code = 400
    return StatusError("400 Client Error: MANIFEST_BLOB_UNKNOWN", response=response)


class Strict(MemoryStore):
    """A repository that answers as registries do where a blob is missing."""

    def put_manifest(self, manifest: Manifest, reference: str) -> None:
        try:
            super().put_manifest(manifest, reference)
        except ProtocolViolation as error:
            raise unknown_blob() from error


@pytest.mark.parametrize("times", [1, 2])
def test_registry_that_sees_its_blobs_late_gets_the_manifest_again(
    harness: TransferHarness, times: int
) -> None:
    # Distribution 2.8 does, while another client writes the same blob.
    load(harness.source(), IMAGE, "v1")
    harness.host.faults.append(RefusesRequests("PUT manifest", unknown_blob(), times=times))

    result = harness.copier.copy(harness.job(harness.source(), harness.destination()))

    assert_same(harness.destination(), "v1", IMAGE)
    assert result.bytes_sent == harness.host.received == SIZE
    # Nothing that is there is written again.
    assert harness.host.requests["POST upload"] == len(BLOBS)


def test_registry_that_never_sees_its_blobs_fails_the_image(harness: TransferHarness) -> None:
    load(harness.source(), IMAGE, "v1")
    harness.host.faults.append(RefusesRequests("PUT manifest", unknown_blob(), times=ALWAYS))

    with pytest.raises(StatusError, match="MANIFEST_BLOB_UNKNOWN"):
        harness.copier.copy(harness.job(harness.source(), harness.destination()))

    assert harness.host.requests["PUT manifest"] == 3
    assert harness.destination().names == {}


def test_blob_that_the_destination_has_lost_since_is_brought_again(
    harness: TransferHarness,
) -> None:
    load(harness.source(), IMAGE, "v1")
    target = Strict(harness.host, "strict")
    harness.copier.copy(harness.job(harness.source(), target))
    for held in (target.blobs, target.manifests, target.names):
        held.clear()

    harness.copier.copy(harness.job(harness.source(), target))

    assert_same(target, "v1", IMAGE)
