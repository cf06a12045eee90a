"""The contract of stores, kept by each of them."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from concil.errors import ConcilError, DigestMismatch, NotFound, UsageError
from concil.fs.partial_file import PartialFile
from concil.oci.descriptor import Descriptor
from concil.oci.manifest import Digest, Manifest
from concil.oci.referrers_tag import referrers_tag
from concil.store.protocols import Destination, Source, SupportsTags
from tests.support.store_contract import (
    CHUNK,
    FACTORIES,
    LAYER,
    Blob,
    Store,
    Window,
    put_image,
    put_index,
    put_referrer,
    read,
    write,
)

SIZES = [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK + 7]
ABSENT = Digest.from_bytes(b"never written")


@pytest.fixture(params=FACTORIES)
def store(request: pytest.FixtureRequest) -> Store:
    """Return an empty store of each kind."""
    made: Store = request.param(request)
    return made


def test_store_tells_what_it_is_and_where(store: Store) -> None:
    assert store.name
    assert store.mount_scope
    assert "@" not in store.name


# Referrers.


def test_what_refers_to_a_manifest_is_listed_with_what_it_is(store: Store) -> None:
    image = put_image(store, 1, "v1")
    one, two = put_referrer(store, image, 1, "@"), put_referrer(store, image, 2, "signature")
    deeper = put_referrer(store, one, 3, "@")

    found = {entry.digest: entry for entry in store.referrers(image.digest)}

    assert found.keys() == {one.digest, two.digest}
    for each in (one, two):
        entry = found[each.digest]
        assert (entry.media_type, entry.size) == (each.media_type, len(each.body))
    assert found[one.digest].artifact_type == "application/x-1"
    assert dict(found[one.digest].annotations) == {"seed": "1"}
    assert [entry.digest for entry in store.referrers(one.digest)] == [deeper.digest]
    assert store.referrers(deeper.digest) == store.referrers(ABSENT)
    assert store.get_manifest(str(one.digest)).body == one.body


def test_referrer_may_come_before_its_subject_and_twice(store: Store) -> None:
    image = Manifest.parse(put_image(store, 1, "v1").body.rstrip())
    one = put_referrer(store, image, 1, "@")
    store.put_manifest(one, str(one.digest))
    store.put_manifest(image, "late")

    assert [entry.digest for entry in store.referrers(image.digest)] == [one.digest]


def test_tags_that_are_named_by_a_digest_are_found(store: Store) -> None:
    image = put_image(store, 1, "v1")
    stem = referrers_tag(image.digest)
    put_image(store, 2, f"{stem}.sig")
    put_image(store, 3, f"{referrers_tag(ABSENT)}.sig")

    assert list(store.digest_tags(image.digest)) == [f"{stem}.sig"]


# Manifests.


def test_manifest_comes_back_byte_for_byte_by_tag_and_by_digest(store: Store) -> None:
    manifest = put_image(store, 1, "v1")

    assert store.get_manifest("v1").body == manifest.body
    assert store.get_manifest(str(manifest.digest)).body == manifest.body


def test_find_describes_the_manifest_by_tag_and_by_digest(store: Store) -> None:
    manifest = put_image(store, 1, "v1")

    for reference in ("v1", str(manifest.digest)):
        found = store.find_manifest(reference)
        assert found is not None
        assert (found.digest, found.size) == (manifest.digest, len(manifest.body))
        assert found.media_type == manifest.media_type


@pytest.mark.parametrize("reference", ["absent", str(ABSENT)])
def test_absent_manifest_is_none_to_find_and_an_error_to_get(store: Store, reference: str) -> None:
    put_image(store, 1, "v1")

    assert store.find_manifest(reference) is None
    with pytest.raises(NotFound):
        store.get_manifest(reference)


def test_empty_store_has_no_manifest(store: Store) -> None:
    assert store.find_manifest("v1") is None
    with pytest.raises(NotFound):
        store.get_manifest("v1")


def test_manifest_without_tag_is_found_by_digest_only(store: Store) -> None:
    put_image(store, 1, "v1")
    manifest = put_image(store, 2, "@")

    assert store.get_manifest(str(manifest.digest)).body == manifest.body
    assert list(store.tags()) == ["v1"]


def test_overwritten_tag_leads_to_the_later_manifest(store: Store) -> None:
    first = put_image(store, 1, "v1")
    second = put_image(store, 2, "v1")

    assert store.get_manifest("v1").body == second.body
    assert store.get_manifest(str(first.digest)).body == first.body
    assert list(store.tags()) == ["v1"]


def test_same_manifest_may_be_put_twice_and_under_two_tags(store: Store) -> None:
    manifest = put_image(store, 1, "v1")
    store.put_manifest(manifest, "v1")
    store.put_manifest(manifest, "v2")

    assert store.get_manifest("v1") == store.get_manifest("v2") == manifest
    assert sorted(store.tags()) == ["v1", "v2"]


def test_nested_index_keeps_its_bytes_and_its_children(store: Store) -> None:
    inner = put_index(store, [put_image(store, 1, "@"), put_image(store, 2, "@")], "@")
    outer = put_index(store, [inner], "multi")

    found = store.get_manifest("multi")

    assert found.body == outer.body
    assert found.is_index
    (child,) = found.children()
    nested = store.get_manifest(str(child.digest))
    assert nested.body == inner.body
    for grandchild in nested.children():
        assert store.get_manifest(str(grandchild.digest)).digest == grandchild.digest
    assert list(store.tags()) == ["multi"]


def test_manifest_under_a_digest_that_is_not_its_own_is_refused(store: Store) -> None:
    manifest = put_image(store, 1, "v1")

    with pytest.raises(ConcilError):
        store.put_manifest(manifest, str(ABSENT))

    assert store.find_manifest(str(ABSENT)) is None


def test_deleted_digest_is_gone_with_its_tags(store: Store) -> None:
    kept, unwanted = put_image(store, 1, "kept"), put_image(store, 2, "gone")

    store.delete_manifest(str(unwanted.digest))

    assert store.find_manifest("gone") is None
    assert store.find_manifest(str(unwanted.digest)) is None
    assert store.get_manifest("kept").body == kept.body
    with pytest.raises(NotFound):
        store.get_manifest(str(unwanted.digest))


@pytest.mark.parametrize("reference", ["absent", str(ABSENT)])
def test_absent_manifest_cannot_be_deleted(store: Store, reference: str) -> None:
    manifest = put_image(store, 1, "v1")

    with pytest.raises(NotFound):
        store.delete_manifest(reference)

    assert store.get_manifest("v1").body == manifest.body


def test_tags_are_told_each_once(store: Store) -> None:
    for number in range(5):
        put_image(store, number, f"v{number}")

    assert sorted(store.tags()) == [f"v{number}" for number in range(5)]


# Blobs.


@pytest.mark.parametrize("size", SIZES)
def test_blob_of_any_size_comes_back(store: Store, size: int) -> None:
    blob = Blob.random(size)
    assert not store.has_blob(blob.descriptor)

    write(store, blob.content, blob.descriptor.digest)

    assert store.has_blob(blob.descriptor)
    assert read(store, blob.descriptor) == blob.content


def test_sha512_blob_comes_back(store: Store) -> None:
    blob = Blob.random(CHUNK + 1, algorithm="sha512")

    write(store, blob.content, blob.descriptor.digest)

    assert store.has_blob(blob.descriptor)
    assert read(store, blob.descriptor) == blob.content


@pytest.mark.parametrize(
    ("start", "stop"),
    [(0, 1), (1, 2), (0, CHUNK), (CHUNK - 1, CHUNK + 1), (CHUNK, None), (3 * CHUNK + 6, None)],
)
def test_range_of_a_blob_has_just_its_bytes(store: Store, start: int, stop: int | None) -> None:
    blob = Blob.random(3 * CHUNK + 7)
    write(store, blob.content, blob.descriptor.digest)

    assert read(store, blob.descriptor, start, stop) == blob.content[start:stop]


def test_reader_can_be_closed_in_the_middle(store: Store) -> None:
    blob = Blob.random(3 * CHUNK + 7)
    write(store, blob.content, blob.descriptor.digest)

    reader = store.open_blob(blob.descriptor)
    assert reader.readinto(memoryview(bytearray(10))) > 0
    reader.close()
    reader.close()

    assert read(store, blob.descriptor) == blob.content


def test_unknown_blob_is_not_there_and_not_found(store: Store) -> None:
    write(store, b"another", Digest.from_bytes(b"another"))
    unknown = Descriptor(LAYER, ABSENT, 13)

    assert not store.has_blob(unknown)
    with pytest.raises(NotFound):
        store.open_blob(unknown)


def test_blob_of_another_size_is_not_there(store: Store) -> None:
    blob = Blob.random(100)
    write(store, blob.content, blob.descriptor.digest)

    assert not store.has_blob(Descriptor(LAYER, blob.descriptor.digest, 99))


@pytest.mark.parametrize("size", [1, CHUNK, 3 * CHUNK + 7])
def test_bytes_of_another_digest_are_refused_and_nothing_is_visible(
    store: Store, size: int
) -> None:
    blob = Blob.random(size)
    promised = Descriptor(LAYER, ABSENT, size)

    with pytest.raises(DigestMismatch):
        write(store, blob.content, ABSENT)

    assert not store.has_blob(promised)
    assert not store.has_blob(blob.descriptor)
    with pytest.raises(NotFound):
        store.open_blob(promised)


def test_blob_can_be_written_after_a_wrong_try(store: Store) -> None:
    blob = Blob.random(2 * CHUNK)
    with pytest.raises(DigestMismatch):
        write(store, bytes(2 * CHUNK), blob.descriptor.digest)

    write(store, blob.content, blob.descriptor.digest)

    assert read(store, blob.descriptor) == blob.content


def test_blob_that_is_begun_and_left_is_not_visible(store: Store) -> None:
    blob = Blob.random(2 * CHUNK)

    writer = store.begin_blob(len(blob.content), blob.descriptor.digest)
    if isinstance(writer, PartialFile):
        taken = writer.reserve_range(CHUNK)
        assert taken is not None
        writer.write_at(taken[0], memoryview(blob.content)[slice(*taken)])
    elif writer.chunk_size < len(blob.content):
        writer.append(Window(blob.content[: writer.chunk_size]))
    writer.close()

    assert not store.has_blob(blob.descriptor)


def test_two_writers_of_one_blob_both_end_well(store: Store) -> None:
    blob = Blob.random(CHUNK + 1)
    digest = blob.descriptor.digest

    outer = store.begin_blob(len(blob.content), digest)
    write(store, blob.content, digest)
    if isinstance(outer, PartialFile):
        while taken := outer.reserve_range(CHUNK):
            outer.write_at(taken[0], memoryview(blob.content)[slice(*taken)])
        outer.commit()
    else:
        while outer.offset < len(blob.content):
            stop = outer.offset + outer.chunk_size
            outer.append(Window(blob.content[outer.offset : stop]))
        outer.commit(digest)
    outer.close()

    assert read(store, blob.descriptor) == blob.content


def test_many_threads_write_the_same_and_other_blobs(store: Store) -> None:
    blobs = [Blob.random(CHUNK + number, seed=number) for number in range(4)]

    with ThreadPoolExecutor(8) as pool:
        running = [
            pool.submit(write, store, blob.content, blob.descriptor.digest) for blob in blobs * 4
        ]
        for each in running:
            each.result()

    for blob in blobs:
        assert read(store, blob.descriptor) == blob.content


def test_many_threads_put_manifests_and_none_is_lost(store: Store) -> None:
    names = [f"v{number}" for number in range(24)]

    with ThreadPoolExecutor(8) as pool:
        manifests = list(pool.map(lambda n: put_image(store, int(n[1:]), n), names))

    assert sorted(store.tags()) == sorted(names)
    for name, manifest in zip(names, manifests, strict=True):
        assert store.get_manifest(name).body == manifest.body


def test_store_has_the_powers_the_engine_asks_for(store: Store) -> None:
    source: Source = store
    destination: Destination = store

    tagged: SupportsTags = store

    assert source.name == destination.name
    put_image(store, 1, "v1")
    assert list(tagged.tags()) == ["v1"]


def test_unfinished_writer_is_gone_on_with(store: Store) -> None:
    blob = Blob.random(3 * CHUNK)
    writer = store.begin_blob(len(blob.content), blob.descriptor.digest)
    if isinstance(writer, PartialFile):
        writer.abort()
        write(store, blob.content, blob.descriptor.digest)
    else:
        writer.append(Window(blob.content[:CHUNK]))
        state = writer.state()
        writer.close()
        if state is None:  # an archive keeps nothing of a writer
            write(store, blob.content, blob.descriptor.digest)
            assert read(store, blob.descriptor) == blob.content
            return

        later = store.begin_blob(len(blob.content), blob.descriptor.digest, state)
        assert not isinstance(later, PartialFile)
        assert later.resync() == later.offset == CHUNK
        while later.offset < len(blob.content):
            later.append(Window(blob.content[later.offset : later.offset + later.chunk_size]))
        later.commit(blob.descriptor.digest)
        later.close()

    assert read(store, blob.descriptor) == blob.content


def test_digest_may_come_last_where_writing_is_in_order(store: Store) -> None:
    blob = Blob.random(2 * CHUNK + 7)

    try:
        writer = store.begin_blob(len(blob.content))
    except UsageError:
        return  # it names what it writes from the start
    assert not isinstance(writer, PartialFile)
    while writer.offset < len(blob.content):
        writer.append(Window(blob.content[writer.offset : writer.offset + writer.chunk_size]))
    writer.commit(blob.descriptor.digest)
    writer.close()

    assert read(store, blob.descriptor) == blob.content


def test_mount_is_refused_for_a_blob_that_is_not_there(store: Store) -> None:
    if store.repository:
        assert not store.mount(Descriptor(LAYER, ABSENT, 13), store.repository).is_mounted

    assert not store.has_blob(Descriptor(LAYER, ABSENT, 13))
