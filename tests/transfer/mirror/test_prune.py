"""Deleting never takes what another tag needs, and never believes a list alone."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from concil.errors import AccessDenied, Cancelled, ConcilError
from concil.oci.descriptor import Descriptor
from concil.transfer.mirror.prune import PruneOptions, Pruner, PruneResult
from tests.support.images import make_image, make_index
from tests.support.memory_store import MemoryStore
from tests.support.store_faults import RefusesRequests
from tests.transfer.image_copies import TransferHarness, assert_same, load
from tests.transfer.transfer_setup import ALWAYS

OLD, NEW = make_image(1, (900,)), make_image(2, (900,))


def prune(lab: TransferHarness, store: MemoryStore, *gone: str, limit: bool = False) -> PruneResult:
    """Prune the tags; the source still has what the lab's repository ``app`` has."""

    def find(address: str) -> Descriptor | None:
        return lab.source().find_manifest(address)

    def judge(tag: str) -> Sequence[str] | None:
        return [tag] if tag in gone else ()

    return Pruner(lab.pool, find).prune(store, PruneOptions(judge, without_limit=not limit))


def test_tag_that_the_source_has_in_spite_of_its_list_stays(harness: TransferHarness) -> None:
    load(harness.source(), OLD, "v1")
    load(harness.destination(), OLD, "v1")
    load(harness.destination(), NEW, "v2")

    done = prune(harness, harness.destination(), "v1", "v2")

    assert done.error is None
    assert list(harness.destination().names) == ["v1"]
    assert_same(harness.destination(), "v1", OLD)


def test_source_that_cannot_be_asked_deletes_nothing(harness: TransferHarness) -> None:
    load(harness.destination(), OLD, "v1")
    harness.origin.faults.append(RefusesRequests("HEAD manifest", AccessDenied("no"), times=ALWAYS))

    done = prune(harness, harness.destination(), "v1")

    assert isinstance(done.error, AccessDenied)
    assert "v1" in harness.destination().names


def test_destination_that_does_not_tell_all_deletes_nothing(harness: TransferHarness) -> None:
    load(harness.destination(), OLD, "v1")
    load(harness.destination(), make_index([NEW]), "v2")
    harness.host.faults.append(RefusesRequests("GET manifest", ConcilError("no"), times=ALWAYS))

    done = prune(harness, harness.destination(), "v1")

    assert str(done.error) == "no"
    assert set(harness.destination().names) == {"v1", "v2"}


def test_tag_beside_another_goes_alone_where_the_registry_can(harness: TransferHarness) -> None:
    load(harness.destination(), OLD, "v1")
    load(harness.destination(), OLD, "v2")

    done = prune(harness, harness.destination(), "v1")

    assert [one.tag for one in done.removed] == ["v1"]
    assert_same(harness.destination(), "v2", OLD)


def test_child_of_an_index_in_an_index_is_needed(harness: TransferHarness) -> None:
    inner = make_index([make_index([OLD])])
    load(harness.destination(), inner, "v2")
    load(harness.destination(), OLD, "v1")

    prune(harness, harness.destination(), "v1")

    assert_same(harness.destination(), "v2", inner)


class Rough(MemoryStore):
    """A repository that deletes the manifest, whatever it is asked for."""

    def delete_tag(self, tag: str) -> None:
        self.delete_manifest(str(self.names[tag]))


def test_registry_that_deletes_more_than_the_tag_is_told_at_once(harness: TransferHarness) -> None:
    store = Rough(harness.host, "rough")
    for tag in ("v1", "v2", "v3"):
        load(store, OLD, tag)
    load(store, NEW, "v4")
    load(store, NEW, "v5")

    done = prune(harness, store, "v1", "v4")

    assert "the registry has deleted" in str(done.error)
    assert "mirror again" in done.error.remedy if done.error else ""
    assert set(store.names) == {"v4", "v5"}


def test_two_tags_of_one_manifest_go_by_one_request(harness: TransferHarness) -> None:
    load(harness.destination(), OLD, "v1")
    load(harness.destination(), OLD, "v2")
    harness.forget_requests()

    done = prune(harness, harness.destination(), "v1", "v2")

    assert len(done.removed) == 2
    assert harness.destination().names == {}
    assert harness.host.requests["DELETE manifest"] == 1


@pytest.mark.parametrize(("count", "gone", "goes"), [(6, 5, True), (20, 6, False), (24, 6, True)])
def test_more_than_a_quarter_is_too_much(
    harness: TransferHarness, count: int, gone: int, *, goes: bool
) -> None:
    for n in range(count):
        load(harness.destination(), make_image(100 + n, (10,)), f"v{n}")

    done = prune(harness, harness.destination(), *(f"v{n}" for n in range(gone)), limit=True)

    assert (done.error is None) is goes
    assert len(harness.destination().names) == (count - gone if goes else count)


def test_repository_that_is_not_there_has_nothing_to_prune(harness: TransferHarness) -> None:
    assert prune(harness, harness.destination("none")) == PruneResult("target/none")


def test_cancel_ends_it(harness: TransferHarness) -> None:
    load(harness.destination(), OLD, "v1")
    harness.pool.cancel.set()
    harness.pool.close()

    with pytest.raises(Cancelled):
        prune(harness, harness.destination(), "v1")

    assert "v1" in harness.destination().names
