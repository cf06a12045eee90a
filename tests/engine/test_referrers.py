"""Signatures and the like go from any store to any other, and are found there by other tools."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest
import requests

from concil.engine.engine import Engine
from concil.engine.store_factory import StoreFactory
from concil.oci.manifest import Manifest
from concil.oci.reference import Reference
from concil.progress.events import State
from concil.server import EmbeddedRegistry
from tests.engine.engine_setup import QUICK, Registry, blob_path
from tests.engine.image_stores import EITHER, REF_NAME, ImageStore, create_store
from tests.support.docker_registry import DockerRegistry
from tests.support.images import (
    TIMEOUT,
    Image,
    digest_of,
    make_image,
    make_index,
    put_blob,
    put_image,
    write_layout,
)
from tests.support.referrers import (
    EMPTY,
    SBOM,
    SIGNATURE,
    digest_tag,
    list_referrers,
    list_tag_referrers,
    make_cosign_artifact,
    make_referrer,
    put_referrer,
)
from tests.support.relay import Relay
from tests.support.request_log import RequestLog
from tests.transfer.transfer_setup import run_concurrently

IMAGE = make_index([make_image(n, platform=f"linux/{p}") for n, p in enumerate(("amd64", "arm64"))])
CHILD = IMAGE.children[1]
SIGNED = make_referrer(IMAGE)
CHILD_SBOM = make_referrer(CHILD, b"parts", SBOM)
SBOM_SIGNED = make_referrer(CHILD_SBOM, b"signed parts")
TAGGED = make_cosign_artifact()
TAG = digest_tag(IMAGE, ".sig")


@pytest.fixture(params=EITHER)
def source(request: pytest.FixtureRequest) -> ImageStore:
    return create_store(request, request.param, "source")


@pytest.fixture(params=EITHER)
def target(request: pytest.FixtureRequest) -> ImageStore:
    return create_store(request, request.param, "target")


def load(place: ImageStore) -> None:
    place.load(IMAGE, "v1")
    for each in (SIGNED, CHILD_SBOM, SBOM_SIGNED):
        place.load_referrer(each)
    place.load_tagged(TAGGED, TAG)


def listed(place: ImageStore, subject: Image) -> list[tuple[object, object]]:
    return [(e["digest"], e.get("artifactType")) for e in place.referrers(subject.digest)]


def test_referrers_are_copied_between_all_stores(
    engine: Engine, source: ImageStore, target: ImageStore
) -> None:
    load(source)

    result = engine.copy(f"{source.address}:v1", f"{target.address}:v2", referrers=True)
    again = engine.copy(f"{source.address}:v1", f"{target.address}:v2", referrers=True)

    target.assert_same(IMAGE, "v2")
    target.assert_same(TAGGED, TAG)
    target.assert_holds(SIGNED, CHILD_SBOM, SBOM_SIGNED)
    assert listed(target, IMAGE) == [(SIGNED.digest, SIGNATURE)]
    assert listed(target, CHILD) == [(CHILD_SBOM.digest, SBOM)]
    assert listed(target, CHILD_SBOM) == [(SBOM_SIGNED.digest, SIGNATURE)]
    assert (result.state, result.referrers) == (State.DONE, 4)
    assert (again.state, again.referrers, again.bytes_sent) == (State.PRESENT, 0, 0)


def test_new_signature_comes_to_an_old_image_and_others_stay(
    engine: Engine, source: ImageStore, target: ImageStore
) -> None:
    load(source)
    engine.copy(f"{source.address}:v1", f"{target.address}:v1", referrers=True)
    theirs, new = make_referrer(IMAGE, b"by somebody there"), make_referrer(IMAGE, b"new")
    target.load_referrer(theirs)
    source.load_referrer(new)

    result = engine.copy(f"{source.address}:v1", f"{target.address}:v1", referrers=True)

    found = {digest for digest, _ in listed(target, IMAGE)}
    assert found == {SIGNED.digest, theirs.digest, new.digest}
    target.assert_holds(new)
    assert (result.state, result.referrers, result.manifests) == (State.DONE, 1, 1)


def test_what_is_up_to_date_costs_few_requests(
    engine: Engine, registry: Registry, repository: str, tmp_path: Path
) -> None:
    image = make_image(5)
    put_image(registry.url, f"{repository}/a", "v1", image)
    put_referrer(registry.url, f"{repository}/a", make_referrer(image))
    source, target = RequestLog(), RequestLog()
    with (
        Relay(registry.host, observer=source) as one,
        Relay(registry.host, observer=target) as other,
    ):
        addresses = (f"{one.url}/{repository}/a:v1", f"{other.url}/{repository}/b:v1")
        engine.copy(*addresses, referrers=True)
        before = len(source.requests), len(target.requests)
        engine.copy(*addresses, referrers=True)

    made = [len(log.requests) - count for log, count in zip((source, target), before, strict=True)]
    has_list = isinstance(registry, EmbeddedRegistry)
    # The image; its referrers, and those of the referrer; the tags. Without a list of its own
    # a registry is asked once for one.
    assert made == ([4, 2] if has_list else [5, 3])


@pytest.mark.real
def test_threads_that_write_one_tag_lose_nothing(docker_registry: DockerRegistry) -> None:
    repository = "engine/together"
    put_image(docker_registry.url, repository, "v1", CHILD)
    many = [make_referrer(CHILD, b"%d" % number) for number in range(12)]
    for each in many:
        for blob in each.blobs.values():
            put_blob(docker_registry.url, repository, blob)
    address = Reference.parse(f"{docker_registry.url}/{repository}")

    with StoreFactory(QUICK, timeouts=None, cancel=threading.Event()) as stores:
        parsed = [Manifest.parse(each.manifest) for each in many]
        run_concurrently(
            *(
                lambda m=manifest: stores.open_repository(address).put_manifest(m, str(m.digest))
                for manifest in parsed
            )
        )

    found = {e["digest"] for e in list_referrers(docker_registry.url, repository, CHILD.digest)}
    assert found == {each.digest for each in many}


def test_artifact_that_is_copied_alone_is_listed_with_its_subject(
    engine: Engine, registry: Registry, repository: str, tmp_path: Path
) -> None:
    write_layout(tmp_path / "in", {"signature": SIGNED})

    engine.copy(f"oci:{tmp_path}/in:signature", f"{registry.url}/{repository}:signature")

    (entry,) = list_referrers(registry.url, repository, IMAGE.digest)
    assert (entry["digest"], entry["artifactType"]) == (SIGNED.digest, SIGNATURE)
    assert entry["annotations"] == json.loads(SIGNED.manifest)["annotations"]


@pytest.mark.real
def test_list_in_a_tag_may_name_what_is_gone(
    engine: Engine, docker_registry: DockerRegistry, repository: str, tmp_path: Path
) -> None:
    url, tag = docker_registry.url, digest_tag(IMAGE)
    put_image(url, repository, "v1", IMAGE)
    put_referrer(url, repository, SIGNED)
    gone = make_referrer(IMAGE, b"gone")
    put_blob(url, repository, EMPTY)
    # The registry refuses an index of manifests that it has not: so it loses one afterwards.
    put_referrer(url, repository, gone)
    assert len(list_tag_referrers(url, repository, tag)) == 2
    requests.delete(
        f"{url}/v2/{repository}/manifests/{gone.digest}", timeout=TIMEOUT
    ).raise_for_status()

    result = engine.copy(f"{url}/{repository}:v1", f"oci:{tmp_path}/out:v1", referrers=True)

    assert result.notes == (f"{gone.digest} is listed as a referrer, but does not exist",)
    assert blob_path(tmp_path / "out", SIGNED.digest).read_bytes() == SIGNED.manifest


@pytest.mark.real
def test_image_under_the_tag_of_its_digest_is_not_overwritten(
    engine: Engine, docker_registry: DockerRegistry, repository: str, tmp_path: Path
) -> None:
    url = docker_registry.url
    put_image(url, repository, digest_tag(CHILD), CHILD)
    write_layout(tmp_path / "in", {"v1": make_referrer(CHILD)})

    with pytest.raises(Exception, match=f"the tag {digest_tag(CHILD)} is an image"):
        engine.copy(f"oci:{tmp_path}/in:v1", f"{url}/{repository}:v1")

    assert put_image(url, repository, digest_tag(CHILD), CHILD) == CHILD.digest


def test_names_of_a_layout_keep_the_repository(engine: Engine, tmp_path: Path) -> None:
    name = "docker.io/library/app"
    write_layout(tmp_path / "in", {f"{name}:v1": IMAGE, f"{name}:{TAG}": TAGGED, "x:1": CHILD})

    engine.copy(f"oci:{tmp_path}/in:{name}:v1", f"oci:{tmp_path}/out:q.io/b:v2", referrers=True)

    index = json.loads((tmp_path / "out" / "index.json").read_text())
    names = {e["annotations"][REF_NAME]: e["digest"] for e in index["manifests"]}
    assert names == {"q.io/b:v2": IMAGE.digest, f"q.io/b:{TAG}": TAGGED.digest}


def test_layout_of_one_image_and_its_signatures_needs_no_name(
    engine: Engine, tmp_path: Path
) -> None:
    place = ImageStore("", layout=tmp_path / "in")
    place.load(IMAGE, "v1")
    engine.copy(f"oci:{tmp_path}/in:v1", f"oci:{tmp_path}/one")
    ImageStore("", layout=tmp_path / "one").load_referrer(SIGNED)
    engine.copy(f"oci:{tmp_path}/one@{IMAGE.digest}", f"oci:{tmp_path}/two", referrers=True)

    result = engine.copy(f"oci:{tmp_path}/two", f"oci:{tmp_path}/three:v1", referrers=True)

    assert (str(result.digest), result.referrers) == (IMAGE.digest, 1)


def test_list_that_regctl_keeps_in_a_layout_is_read(engine: Engine, tmp_path: Path) -> None:
    place = ImageStore("", layout=tmp_path / "in")
    place.load(IMAGE, "v1")
    for content in (*SIGNED.blobs.values(), SIGNED.manifest):
        blob_path(tmp_path / "in", digest_of(content)).write_bytes(content)
    place.load_tagged(make_index([SIGNED]), digest_tag(IMAGE))

    result = engine.copy(f"oci:{tmp_path}/in:v1", f"oci:{tmp_path}/out:v1", referrers=True)

    ImageStore("", layout=tmp_path / "out").assert_holds(SIGNED)
    assert result.referrers == 1
