"""A destination that misses blobs it was given is given them, or its manifest, again."""

from __future__ import annotations

import pytest
import requests

from concil.content import Manifest
from concil.errors import ProtocolViolation, StatusError
from tests.store.faults import RefusesRequests
from tests.store.memory import MemoryStore
from tests.transfer.imaging import Lab, assert_same, load
from tests.transfer.test_image import BLOBS, IMAGE, SIZE
from tests.transfer.world import ALWAYS


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
def test_registry_that_sees_its_blobs_late_gets_the_manifest_again(lab: Lab, times: int) -> None:
    # Distribution 2.8 does, while another client writes the same blob.
    load(lab.source(), IMAGE, "v1")
    lab.host.faults.append(RefusesRequests("PUT manifest", unknown_blob(), times=times))

    result = lab.copier.copy(lab.job(lab.source(), lab.target()))

    assert_same(lab.target(), "v1", IMAGE)
    assert result.sent == lab.host.received == SIZE
    # Nothing that is there is written again.
    assert lab.host.requests["POST upload"] == len(BLOBS)


def test_registry_that_never_sees_its_blobs_fails_the_image(lab: Lab) -> None:
    load(lab.source(), IMAGE, "v1")
    lab.host.faults.append(RefusesRequests("PUT manifest", unknown_blob(), times=ALWAYS))

    with pytest.raises(StatusError, match="MANIFEST_BLOB_UNKNOWN"):
        lab.copier.copy(lab.job(lab.source(), lab.target()))

    assert lab.host.requests["PUT manifest"] == 3
    assert lab.target().names == {}


def test_blob_that_the_destination_has_lost_since_is_brought_again(lab: Lab) -> None:
    load(lab.source(), IMAGE, "v1")
    target = Strict(lab.host, "strict")
    lab.copier.copy(lab.job(lab.source(), target))
    for held in (target.blobs, target.manifests, target.names):
        held.clear()

    lab.copier.copy(lab.job(lab.source(), target))

    assert_same(target, "v1", IMAGE)
