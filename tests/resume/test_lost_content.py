"""A destination that has lost something is given it again, or the image fails.

What counts is what the registry answers, not what was put there once.
"""

from __future__ import annotations

import contextlib
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import requests

from concil import ConcilError, Engine, MirrorItem, TransferConfig
from concil.config import RetryPolicy
from concil.errors import RegistryError
from concil.progress.events import State
from concil.store.registry.mount import MAX_UNCHECKED_SIZE
from tests.resume.child_processes import run
from tests.support.docker_registry import DockerRegistry
from tests.support.images import Image, assert_same_image, make_image, make_index, write_layout
from tests.support.relay import Relay
from tests.support.request_log import RequestLog

# A rare fault is what these tests look for: one failure is enough.
pytestmark = [pytest.mark.real, pytest.mark.flaky(reruns=0)]

KIB = 1024
CHILDREN = [
    make_image(n, (3_000, 500), platform=f"linux/{p}") for n, p in ((1, "amd64"), (2, "s390x"))
]
INDEX = make_index(CHILDREN)
SINGLE = make_image(7, (300 * KIB, 20_000))
CONFIG = RetryPolicy(max_attempts=3, backoff_base=0)


@dataclass
class Lab:
    """A layout to copy from, and a registry behind a relay that counts."""

    source: str
    registry: DockerRegistry
    relay: Relay
    log: RequestLog
    workers: int

    @contextlib.contextmanager
    def engine(self) -> Iterator[Engine]:
        """Return an engine as a run of its own has it."""
        with Engine(TransferConfig(workers=self.workers, retry=CONFIG)) as engine:
            yield engine

    def copy(self, name: str, tag: str, *, repository: str = "app", recheck: bool = False) -> State:
        """Copy an image in a run of its own; say what became of it."""
        with self.engine() as engine:
            target = f"{self.relay.url}/{repository}:{tag}"
            return engine.copy(f"{self.source}:{name}", target, recheck=recheck).state

    def blob(self, digest: str) -> Path:
        """Return the file of a blob or manifest."""
        found = digest.removeprefix("sha256:")
        root = Path(self.registry.storage) / "docker/registry/v2/blobs/sha256"
        return root / found[:2] / found / "data"

    def lose(self, digest: str) -> None:
        """Let the registry lose what a blob or manifest holds."""
        shutil.rmtree(self.blob(digest).parent)

    def lose_manifest(self, digest: str, repository: str = "app") -> None:
        """Let the registry lose a manifest as its garbage collection does."""
        self.lose(digest)
        root = Path(self.registry.storage) / f"docker/registry/v2/repositories/{repository}"
        shutil.rmtree(root / f"_manifests/revisions/sha256/{digest.removeprefix('sha256:')}")

    def tear(self, digest: str, content: bytes = b"") -> None:
        """Leave what a kill leaves that comes while a file is written."""
        self.blob(digest).parent.mkdir(parents=True, exist_ok=True)
        self.blob(digest).write_bytes(content)

    def counted(self) -> Counter[str]:
        """Return the requests since the last call, by method and kind."""
        seen = self.log.requests[self._from :]
        self._from += len(seen)
        kinds = ("manifests", "uploads", "blobs")
        return Counter(
            f"{each.method} {next(kind for kind in kinds if f'/{kind}/' in each.path)}"
            for each in seen
            if each.path != "/v2/"
        )

    _from: int = 0


@pytest.fixture
def lab(fresh_docker_registry: DockerRegistry, tmp_path: Path, workers: int) -> Iterator[Lab]:
    layout = tmp_path / "layout"
    write_layout(layout, {"index": INDEX, "single": SINGLE})
    log = RequestLog()
    with Relay(fresh_docker_registry.host, observer=log) as relay:
        yield Lab(f"oci:{layout}", fresh_docker_registry, relay, log, workers)


def assert_there(lab: Lab, tag: str, image: Image, repository: str = "app") -> None:
    """Read all of an image back, byte for byte."""
    assert_same_image(lab.registry.url, repository, tag, image)


# Manifests that are accepted and not kept ----------------------------------------------


@pytest.mark.parametrize("left", [0, 100])
@pytest.mark.parametrize("which", ["root", "child", "single"])
def test_manifest_that_the_registry_cannot_return_fails_the_image(
    lab: Lab, which: str, left: int
) -> None:
    image = SINGLE if which == "single" else INDEX
    torn = CHILDREN[0] if which == "child" else image
    lab.tear(torn.digest, torn.manifest[:left])

    for _ in range(2):
        with pytest.raises(RegistryError, match="cannot return it: GET returned 500") as caught:
            lab.copy("single" if which == "single" else "index", "v1")
        assert torn.digest in str(caught.value)
        assert "remove blobs/sha256/" in caught.value.remedy
        assert "\n" not in str(caught.value)

    lab.lose(torn.digest)
    lab.copy("single" if which == "single" else "index", "v1")
    assert_there(lab, "v1", image)


def test_damaged_links_are_written_again(lab: Lab) -> None:
    lab.copy("single", "v1")
    root = Path(lab.registry.storage) / "docker/registry/v2/repositories/app"
    for link in ("_layers/sha256/*/link", "_manifests/revisions/sha256/*/link"):
        for each in root.glob(link):
            each.write_bytes(b"")
    (root / "_manifests/tags/v1/current/link").write_bytes(b"")

    assert lab.copy("single", "v1") is State.DONE

    assert_there(lab, "v1", SINGLE)


class TearsManifests(RequestLog):
    """Kills the registry when the first byte of a manifest reaches it."""

    def __init__(self, lab: Lab) -> None:
        super().__init__()
        self.lab = lab
        self.armed = True

    def upstream(self, connection: int, passed: bytes) -> bool:
        super().upstream(connection, passed)
        if self.armed and b"PUT /v2/app/manifests/" in passed:
            self.armed = False
            self.lab.registry.kill()
            self.lab.tear(SINGLE.digest)  # what 2.8 has made of its file by then
            self.lab.registry.restart()
        return False


def test_registry_killed_while_it_writes_a_manifest_fails_the_image(lab: Lab) -> None:
    log = TearsManifests(lab)
    with Relay(lab.registry.host, observer=log) as relay:
        lab.relay = relay

        with pytest.raises(RegistryError, match="cannot return it"):
            lab.copy("single", "v1")

    assert not log.armed
    # The answer was lost: only the bytes themselves tell.
    assert any(each.method == "GET" and "/manifests/v1" in each.path for each in log.requests)


def test_command_line_says_it_in_one_line(lab: Lab) -> None:
    lab.tear(SINGLE.digest)

    ended = run(["copy", f"{lab.source}:single", f"{lab.relay.url}/app:v1"])

    assert ended.code != 0
    assert "copied" not in ended.out + ended.err
    [line] = [line for line in ended.err.splitlines() if "cannot return it" in line]
    assert line.startswith("concil: ")


# What a new image costs ----------------------------------------------------------------


def test_new_images_take_no_more_requests_than_their_blobs_and_manifests(lab: Lab) -> None:
    lab.copy("single", "v1")
    single = lab.counted()
    lab.copy("index", "v1", repository="other")
    index = lab.counted()

    for counted, image in ((single, SINGLE), (index, INDEX)):
        manifests, blobs = len(list(image.walk())), len(image.all_blobs())
        assert counted["PUT manifests"] == manifests
        # One for the tag; PUT and HEAD for a manifest, POST and PUT for a blob. A HEAD confirms
        # that a large blob is missing, because this registry has not found any by a mount yet.
        large = sum(len(blob) > MAX_UNCHECKED_SIZE for blob in image.all_blobs().values())
        assert counted.total() == 1 + 2 * manifests + 2 * blobs + large, counted


def test_an_image_that_is_there_takes_one_request_on_each_side(lab: Lab) -> None:
    lab.copy("index", "v1")
    lab.counted()

    assert lab.copy("index", "v1") is State.PRESENT

    assert lab.counted() == {"HEAD manifests": 1}


# Content that is gone ------------------------------------------------------------------


@pytest.mark.parametrize("which", ["config", "layer"])
@pytest.mark.parametrize("name", ["index", "single"])
def test_recheck_sends_a_blob_that_is_gone(lab: Lab, name: str, which: str) -> None:
    image = {"index": INDEX, "single": SINGLE}[name]
    lab.copy(name, "v1")
    lab.lose(list(image.all_blobs())[0 if which == "config" else 1])
    lab.counted()

    assert lab.copy(name, "v1") is State.PRESENT  # by its tag alone
    lab.counted()
    assert lab.copy(name, "v1", recheck=True) is State.DONE

    assert_there(lab, "v1", image)
    # docs/plans.md: the tag, a GET for each manifest and a HEAD for each blob.
    manifests, blobs = len(list(image.walk())), len(image.all_blobs())
    assert lab.counted() == {
        "HEAD manifests": 1,
        "GET manifests": manifests,
        "HEAD blobs": blobs,
        "POST uploads": 1,
        "PUT uploads": 1,
    }
    assert lab.copy(name, "v1", recheck=True) is State.PRESENT
    assert lab.counted().total() == 1 + manifests + blobs


def test_recheck_puts_children_that_a_garbage_collection_removed(lab: Lab) -> None:
    lab.copy("index", "v1")
    lab.lose_manifest(CHILDREN[1].digest)
    lab.lose(next(iter(CHILDREN[1].blobs)))

    assert lab.copy("index", "v1", recheck=True) is State.DONE

    assert_there(lab, "v1", INDEX)


@pytest.mark.parametrize("lost", ["layer", "child", "all"])
def test_new_tag_of_a_known_image_is_whole(lab: Lab, lost: str) -> None:
    lab.copy("index", "v1")
    if lost == "layer":
        lab.lose(list(INDEX.all_blobs())[1])
    elif lost == "child":
        lab.lose_manifest(CHILDREN[0].digest)
    else:
        shutil.rmtree(Path(lab.registry.storage) / "docker")  # an older backup: nothing yet
        lab.registry.restart()

    assert lab.copy("index", "v2") is State.DONE

    assert_there(lab, "v2", INDEX)


def test_mount_from_where_a_blob_is_gone_is_an_upload(lab: Lab) -> None:
    lab.copy("single", "v1", repository="one")
    for digest in SINGLE.blobs:
        lab.lose(digest)

    assert lab.copy("single", "v1", repository="two") is State.DONE

    assert_there(lab, "v1", SINGLE, "two")


def test_what_a_run_has_put_is_asked_for_again_after_a_restart(lab: Lab) -> None:
    """The registry loses all that it has confirmed between two images of one run."""
    with lab.engine() as engine:
        engine.copy(f"{lab.source}:index", f"{lab.relay.url}/app:v1")
        lab.registry.kill()
        shutil.rmtree(Path(lab.registry.storage) / "docker")
        lab.registry.restart()

        result = engine.copy(f"{lab.source}:index", f"{lab.relay.url}/app:v2")

    assert result.state is State.DONE
    assert_there(lab, "v2", INDEX)


def test_immutable_image_of_a_restored_backup_is_brought_by_a_recheck(lab: Lab) -> None:
    item = MirrorItem(f"{lab.source}:single", f"{lab.relay.url}/app:v1", immutable=True)
    with lab.engine() as engine:
        assert engine.mirror([item]).copied_count == 1
    shutil.rmtree(Path(lab.registry.storage) / "docker")
    lab.registry.restart()
    again = MirrorItem(item.source, item.destination, immutable=True, recheck=True)

    with lab.engine() as engine:
        dry = engine.mirror([again], dry_run=True)
        report = engine.mirror([again])

    assert [each.state for each in dry.pending] == [State.WAITING]
    assert (report.failed, report.copied_count) == ([], 1)
    assert_there(lab, "v1", SINGLE)


def test_dry_run_of_a_recheck_tells_what_is_gone(lab: Lab) -> None:
    lab.copy("index", "v1")
    lost = list(INDEX.all_blobs())[1]
    lab.lose(lost)
    item = MirrorItem(f"{lab.source}:index", f"{lab.relay.url}/app:v1", recheck=True)

    with lab.engine() as engine:
        report = engine.mirror([item], dry_run=True)

    [result] = report.pending
    assert [str(each.blob.digest) for each in result.blobs] == [lost]


def test_blob_of_another_size_that_the_registry_keeps_is_a_failure(lab: Lab) -> None:
    lab.copy("single", "v1")
    largest = max(SINGLE.blobs, key=lambda digest: len(SINGLE.blobs[digest]))
    lab.blob(largest).write_bytes(b"short")

    # 2.8 does not write a file that is there, whatever is in it.
    with pytest.raises(ConcilError, match=f"bytes of {largest}, but stored 5 bytes"):
        lab.copy("single", "v1", recheck=True)


def test_some_platforms_are_rechecked_too(lab: Lab) -> None:
    three = make_index([*CHILDREN, make_image(3, (3_000,), platform="linux/arm64")])
    layout = Path(lab.source.removeprefix("oci:"))
    write_layout(layout.with_name("three"), {"three": three})
    wanted = ("linux/amd64", "linux/s390x")
    source, target = f"oci:{layout.with_name('three')}:three", f"{lab.relay.url}/app:v1"
    with lab.engine() as engine:
        engine.copy(source, target, platforms=wanted)
    lab.lose_manifest(CHILDREN[0].digest)
    lab.lose(list(CHILDREN[1].blobs)[1])

    with lab.engine() as engine:
        result = engine.copy(source, target, platforms=wanted, recheck=True)
        again = engine.copy(source, target, platforms=wanted, recheck=True)

    assert (result.state, again.state) == (State.DONE, State.PRESENT)
    with requests.Session() as session:
        session.trust_env = False
        for child in CHILDREN:
            url = f"{lab.registry.url}/v2/app/manifests/{child.digest}"
            found = session.get(url, headers={"Accept": child.media_type}, timeout=30)
            assert found.content == child.manifest
            for digest, blob in child.blobs.items():
                answer = session.get(f"{lab.registry.url}/v2/app/blobs/{digest}", timeout=30)
                assert answer.content == blob


SIGNATURE = make_image(40, (900,), subject=CHILDREN[0])


def test_what_refers_to_an_image_is_rechecked_too(lab: Lab) -> None:
    layout = Path(lab.source.removeprefix("oci:")).with_name("signed")
    write_layout(layout, {"index": INDEX, "signature": SIGNATURE})
    target = f"{lab.relay.url}/app:v1"

    def copy(*, recheck: bool = True) -> State:
        with lab.engine() as engine:
            source = f"oci:{layout}:index"
            return engine.copy(source, target, referrers=True, recheck=recheck).state

    copy(recheck=False)
    lab.lose(max(SIGNATURE.blobs, key=lambda digest: len(SIGNATURE.blobs[digest])))
    assert copy() is State.DONE
    lab.lose_manifest(SIGNATURE.digest)
    assert copy() is State.DONE
    assert copy() is State.PRESENT

    assert_there(lab, "v1", INDEX)
    assert_there(lab, SIGNATURE.digest, SIGNATURE)


# Layouts -------------------------------------------------------------------------------


@pytest.mark.parametrize("damage", ["removed", "truncated", "child"])
def test_layout_that_lost_something_is_mended(lab: Lab, tmp_path: Path, damage: str) -> None:
    target = tmp_path / "there"

    def copy(*, recheck: bool = False) -> State:
        with lab.engine() as engine:
            result = engine.copy(f"{lab.source}:index", f"oci:{target}:v1", recheck=recheck)
        return result.state

    copy()
    digest = CHILDREN[0].digest if damage == "child" else list(INDEX.all_blobs())[1]
    file = target / "blobs/sha256" / digest.removeprefix("sha256:")
    content = file.read_bytes()
    if damage == "removed":
        file.unlink()
    else:
        file.write_bytes(content[:100])

    assert copy(recheck=True) is State.DONE

    assert file.read_bytes() == content
    assert copy(recheck=True) is State.PRESENT
