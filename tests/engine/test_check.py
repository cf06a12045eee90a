"""`Engine.check` against registries whose storage was tampered with, and against layouts."""

from __future__ import annotations

import shutil
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from concil import Condition, Engine, MirrorItem, MirrorReport, Outcome
from concil.errors import NotFound, UsageError
from concil.transfer.journal import Journal
from tests.engine.engine_setup import QUICK, blob_path, engine_of
from tests.support.docker_registry import DockerRegistry
from tests.support.images import (
    Image,
    assert_same_image,
    get_blob,
    make_image,
    make_index,
    put_image,
    write_layout,
)

FLIPPED = make_image(1, (30_000, 500))
HOLED = make_image(2, (3_000, 500))
MULTI = make_index(
    [make_image(n, (900,), platform=f"linux/{p}") for n, p in ((3, "amd64"), (4, "arm64"))]
)
OLD, NEW = make_image(5), make_image(6)
WHOLE = make_image(7)
SHORT = make_image(8, (4_000,))


@dataclass
class TamperedMirror:
    """A mirror in a docker-registry, and its storage."""

    source: Path
    registry: DockerRegistry

    @property
    def items(self) -> list[MirrorItem]:
        return [
            MirrorItem(f"oci:{self.source}:{name}", f"{self.registry.host}/mirror/{name}:v1")
            for name in ("flipped", "holed", "multi", "tagged", "whole", "short")
        ]

    def data(self, digest: str) -> Path:
        """The file of a blob or manifest."""
        found = digest.removeprefix("sha256:")
        root = self.registry.storage / "docker/registry/v2/blobs/sha256"
        return root / found[:2] / found / "data"

    def tamper(self) -> None:
        """Flip a byte, remove a blob and a platform, cut a blob, and move a tag."""
        flip(self.data(layer_of(FLIPPED)))
        shutil.rmtree(self.data(layer_of(HOLED)).parent)
        child = MULTI.children[1].digest
        repository = self.registry.storage / "docker/registry/v2/repositories/mirror/multi"
        shutil.rmtree(repository / "_manifests/revisions/sha256" / child.removeprefix("sha256:"))
        shutil.rmtree(self.data(child).parent)
        put_image(self.registry.url, "mirror/tagged", "v1", OLD)
        data = self.data(layer_of(SHORT))
        data.write_bytes(data.read_bytes()[:-7])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x10
    path.write_bytes(content)


def layer_of(image: Image) -> str:
    return max(image.all_blobs(), key=lambda digest: len(image.all_blobs()[digest]))


def conditions(report: MirrorReport) -> dict[str, str]:
    """The condition of each image, by the last part of its repository or its name."""
    return {
        outcome.item.destination.rpartition("/")[2].removesuffix(":v1"): str(
            outcome.result.condition if outcome.result else type(outcome.error).__name__
        )
        for outcome in report.outcomes
    }


def only(report: MirrorReport) -> Outcome:
    (outcome,) = report.outcomes
    return outcome


@pytest.fixture
def mirror(fresh_docker_registry: DockerRegistry, tmp_path: Path, engine: Engine) -> TamperedMirror:
    images = {"flipped": FLIPPED, "holed": HOLED, "multi": MULTI, "tagged": NEW}
    write_layout(tmp_path / "source", {**images, "whole": WHOLE, "short": SHORT})
    mirror = TamperedMirror(tmp_path / "source", fresh_docker_registry)
    assert engine.mirror(mirror.items).copied_count == 6
    return mirror


@pytest.mark.real
def test_a_mirror_that_was_just_made_is_ok(mirror: TamperedMirror, engine: Engine) -> None:
    for report in (engine.check(mirror.items), engine.check(mirror.items, deep=True)):
        assert report.count_by_condition == {Condition.OK: 6}
        assert (report.drift_count, report.failed) == (0, [])


@pytest.mark.real
def test_a_quick_check_finds_what_requests_show(mirror: TamperedMirror, engine: Engine) -> None:
    mirror.tamper()

    report = engine.check(mirror.items)

    assert conditions(report) == {
        "flipped": "ok",  # no registry reads a blob to answer a HEAD
        "holed": "missing",
        "multi": "missing",
        "tagged": "behind",
        "whole": "ok",
        "short": "damaged",
    }
    assert report.bytes_verified == 0


@pytest.mark.real
def test_a_deep_check_finds_all_of_it(mirror: TamperedMirror, engine: Engine) -> None:
    mirror.tamper()

    report = engine.check(mirror.items, deep=True)

    assert conditions(report) == {
        "flipped": "damaged",
        "holed": "missing",
        "multi": "missing",
        "tagged": "behind",
        "whole": "ok",
        "short": "damaged",
    }
    found = {f.digest for result in report.pending for f in result.findings}
    assert {str(digest) for digest in found} == {
        layer_of(FLIPPED),
        layer_of(HOLED),
        MULTI.children[1].digest,
        NEW.digest,
        layer_of(SHORT),
    }
    platforms = [f.platform for result in report.pending for f in result.findings if f.platform]
    assert platforms == ["linux/arm64"]
    assert report.drift_count == 5


@pytest.mark.real
def test_a_repair_mends_all_that_the_registry_lets_it(
    mirror: TamperedMirror, engine: Engine
) -> None:
    mirror.tamper()

    report = engine.check(mirror.items, deep=True, repair=True)

    assert conditions(report) == {
        "flipped": "damaged",
        "holed": "ok",
        "multi": "ok",
        "tagged": "ok",
        "whole": "ok",
        "short": "damaged",
    }
    # Distribution keeps a damaged file whatever is uploaded or deleted.
    for name, image in (("flipped", FLIPPED), ("short", SHORT)):
        layer = layer_of(image).removeprefix("sha256:")
        (finding,) = next(r for r in report.pending if f"/{name}:" in r.destination).findings
        assert f"remove blobs/sha256/{layer[:2]}/{layer} from" in finding.remedy
        shutil.rmtree(mirror.data(layer_of(image)).parent)  # as it says
    report = engine.check(mirror.items, deep=True, repair=True)
    assert report.count_by_condition == {Condition.OK: 6}
    assert engine.check(mirror.items, deep=True).up_to_date_count == 6
    pairs = {"flipped": FLIPPED, "holed": HOLED, "multi": MULTI, "tagged": NEW, "short": SHORT}
    for name, image in pairs.items():
        assert_same_image(mirror.registry.url, f"mirror/{name}", "v1", image)


@pytest.mark.real
def test_a_damaged_manifest_is_found_and_its_file_named(
    mirror: TamperedMirror, engine: Engine
) -> None:
    child = MULTI.children[0].digest
    path = mirror.data(child)
    path.write_bytes(path.read_bytes().replace(b"linux", b"linus").replace(b'"', b'"', 1) + b" ")

    report = engine.check(mirror.items)
    repaired = engine.check(mirror.items, repair=True)

    assert conditions(report)["multi"] == "damaged"
    (result,) = repaired.pending
    (finding,) = result.findings
    assert (finding.kind, str(finding.digest)) == ("manifest", child)
    assert f"remove blobs/sha256/{child[7:9]}/{child[7:]}" in finding.remedy
    shutil.rmtree(path.parent)
    assert engine.check(mirror.items, repair=True).count_by_condition == {Condition.OK: 6}
    assert_same_image(mirror.registry.url, "mirror/multi", "v1", MULTI)


@pytest.mark.real
def test_a_repair_relies_on_nothing_that_the_same_engine_has_put(
    mirror: TamperedMirror, engine: Engine
) -> None:
    mirror.tamper()

    engine.check(mirror.items, deep=True, repair=True)

    assert (
        get_blob(mirror.registry.url, "mirror/holed", layer_of(HOLED))
        == HOLED.blobs[layer_of(HOLED)]
    )


@pytest.mark.real
def test_an_image_of_a_registry_is_checked_alone(mirror: TamperedMirror, engine: Engine) -> None:
    mirror.tamper()
    addresses = [item.destination for item in mirror.items]

    report = engine.check(addresses, deep=True)

    assert conditions(report)["tagged"] == "ok"  # there is no source to be behind of
    assert conditions(report)["multi"] == "missing"
    assert conditions(report)["flipped"] == "damaged"


@pytest.mark.real
def test_a_missing_tag_without_a_source_is_an_error(mirror: TamperedMirror, engine: Engine) -> None:
    outcome = only(engine.check([f"{mirror.registry.host}/mirror/whole:v2"]))

    assert isinstance(outcome.error, NotFound)


@pytest.mark.real
def test_a_registry_that_answers_from_a_cache_is_read(tmp_path: Path, engine: Engine) -> None:
    write_layout(tmp_path / "source", {"holed": HOLED, "short": SHORT})
    with DockerRegistry(tmp_path / "registry", has_cache=True) as registry:
        items = [
            MirrorItem(f"oci:{tmp_path}/source:{name}", f"{registry.host}/mirror/{name}:v1")
            for name in ("holed", "short")
        ]
        engine.mirror(items)
        mirror = TamperedMirror(tmp_path, registry)
        assert engine.check(items, deep=True).drift_count == 0
        shutil.rmtree(mirror.data(layer_of(HOLED)).parent)
        cut = mirror.data(layer_of(SHORT))
        cut.write_bytes(cut.read_bytes()[:-7])

        # Its answers to HEAD do not show the damage; those to GET have the size in the cache.
        assert conditions(engine.check(items)) == {"holed": "ok", "short": "ok"}
        assert conditions(engine.check(items, deep=True)) == {
            "holed": "damaged",
            "short": "damaged",
        }
        repaired = engine.check(items, deep=True, repair=True)
        assert conditions(repaired) == {"holed": "ok", "short": "damaged"}
        assert_same_image(registry.url, "mirror/holed", "v1", HOLED)


@pytest.mark.real
def test_deleting_is_not_needed_where_it_is_disabled(tmp_path: Path, engine: Engine) -> None:
    write_layout(tmp_path / "source", {"flipped": FLIPPED})
    with DockerRegistry(tmp_path / "registry", delete=False) as registry:
        item = MirrorItem(f"oci:{tmp_path}/source:flipped", f"{registry.host}/app:v1")
        engine.mirror([item])
        mirror = TamperedMirror(tmp_path, registry)
        flip(mirror.data(layer_of(FLIPPED)))

        result = only(engine.check([item], deep=True, repair=True)).result

    assert result is not None
    assert "cannot delete it (405" in result.findings[0].remedy


# Layouts and archives ------------------------------------------------------------------


@pytest.fixture
def layouts(tmp_path: Path, engine: Engine) -> Path:
    """A directory with a layout `source`, and its mirror in the layout `copy`."""
    write_layout(tmp_path / "source", {"a:1": FLIPPED, "b:1": MULTI})
    assert engine.mirror(items_of(tmp_path)).copied_count == 2
    return tmp_path


def items_of(directory: Path, scheme: str = "oci:", name: str = "copy") -> list[MirrorItem]:
    return [
        MirrorItem(f"oci:{directory}/source:{tag}", f"{scheme}{directory}/{name}:{tag}")
        for tag in ("a:1", "b:1")
    ]


@pytest.mark.parametrize("kind", ["source", "alone"])
def test_a_layout_is_read_and_hashed(layouts: Path, engine: Engine, kind: str) -> None:
    items: Sequence[MirrorItem | str]
    items = items_of(layouts) if kind == "source" else [f"oci:{layouts}/copy"]
    assert engine.check(items, deep=True).count_by_condition == {Condition.OK: 2}
    flip(blob_path(layouts / "copy", layer_of(FLIPPED)))
    blob_path(layouts / "copy", MULTI.children[1].digest).unlink()

    quick, deep = engine.check(items), engine.check(items, deep=True)

    assert quick.count_by_condition == {Condition.OK: 1, Condition.MISSING: 1}
    assert deep.count_by_condition == {Condition.DAMAGED: 1, Condition.MISSING: 1}


def test_a_layout_is_repaired(layouts: Path, engine: Engine) -> None:
    flip(blob_path(layouts / "copy", layer_of(FLIPPED)))
    flip(blob_path(layouts / "copy", MULTI.children[0].digest))
    blob_path(layouts / "copy", MULTI.children[1].digest).unlink()

    report = engine.check(items_of(layouts), deep=True, repair=True)

    assert report.count_by_condition == {Condition.OK: 2}
    assert len(report.copied) == 2
    for image in (FLIPPED, MULTI):
        for digest, blob in image.all_blobs().items():
            assert blob_path(layouts / "copy", digest).read_bytes() == blob
        for each in image.walk():
            assert blob_path(layouts / "copy", each.digest).read_bytes() == each.manifest


@pytest.mark.parametrize("change", [lambda p: p.unlink(), flip, lambda p: p.write_bytes(b"{}")])
def test_an_index_entry_without_its_manifest_is_a_finding(
    layouts: Path, engine: Engine, change: object
) -> None:
    assert callable(change)
    change(blob_path(layouts / "copy", FLIPPED.digest))

    report = engine.check([f"oci:{layouts}/copy"])

    assert report.failed == []
    assert report.drift_count == 1
    (result,) = report.pending
    assert str(result.findings[0].digest) == FLIPPED.digest


def test_all_images_are_missing_in_a_layout_that_does_not_exist(
    layouts: Path, engine: Engine
) -> None:
    report = engine.check(items_of(layouts, name="gone"))

    assert report.count_by_condition == {Condition.MISSING: 2}
    assert not (layouts / "gone").exists()


def test_a_repair_creates_a_missing_layout(layouts: Path, engine: Engine) -> None:
    report = engine.check(items_of(layouts, name="gone"), repair=True)

    assert report.count_by_condition == {Condition.OK: 2}
    assert engine.check([f"oci:{layouts}/gone"], deep=True).up_to_date_count == 2


def test_a_layout_without_index_is_named(layouts: Path, engine: Engine) -> None:
    (layouts / "copy" / "index.json").unlink()

    with pytest.raises(Exception, match=r"copy/index\.json"):
        engine.check([f"oci:{layouts}/copy"])


def test_an_oci_archive_is_checked_but_not_repaired(layouts: Path, engine: Engine) -> None:
    items = items_of(layouts, "oci-archive:", "copy.tar")
    engine.mirror(items)
    assert engine.check(items, deep=True).count_by_condition == {Condition.OK: 2}
    assert engine.check([f"oci-archive:{layouts}/copy.tar"]).up_to_date_count == 2
    damage_archive(layouts / "copy.tar", layer_of(FLIPPED))

    report = engine.check(items, deep=True)

    assert report.count_by_condition == {Condition.OK: 1, Condition.DAMAGED: 1}
    with pytest.raises(UsageError, match="an archive is written as a whole"):
        engine.check(items, repair=True)


def damage_archive(path: Path, digest: str) -> None:
    name = f"blobs/{digest.replace(':', '/')}"
    with tarfile.open(path) as tar:
        offset = tar.getmember(name).offset_data
    content = bytearray(path.read_bytes())
    content[offset + 20] ^= 1
    path.write_bytes(content)


def test_docker_archives_are_refused(layouts: Path, engine: Engine) -> None:
    item = MirrorItem(f"oci:{layouts}/source:a:1", f"docker-archive:{layouts}/a.tar:a:1")
    engine.mirror([item])

    with pytest.raises(UsageError, match="does not keep their manifests"):
        engine.check([item])
    error = only(engine.check([f"docker-archive:{layouts}/a.tar:a:1"])).error
    assert isinstance(error, UsageError)
    assert "no digests of its layers" in str(error)


def test_a_repair_needs_a_source(layouts: Path, engine: Engine) -> None:
    with pytest.raises(UsageError, match="cannot be repaired without its source"):
        engine.check([f"oci:{layouts}/copy"], repair=True)


def test_one_address_is_no_list_of_addresses(layouts: Path, engine: Engine) -> None:
    with pytest.raises(TypeError, match="items"):
        engine.check(f"oci:{layouts}/copy")
    with pytest.raises(TypeError, match="items"):
        engine.check([7])  # type: ignore[list-item]


# Outcomes ------------------------------------------------------------------------------


def test_outcomes_are_reported_as_they_come(layouts: Path, engine: Engine) -> None:
    outcomes: list[Outcome] = []

    report = engine.check(items_of(layouts), on_image=outcomes.append, keep_outcomes=False)

    assert len(outcomes) == 2
    assert report.outcomes == []
    assert report.count_by_condition == {Condition.OK: 2}


def test_an_exception_of_the_callback_is_raised(layouts: Path, engine: Engine) -> None:
    def fail(_outcome: Outcome) -> None:
        raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"):
        engine.check(items_of(layouts), on_image=fail)

    assert engine.check(items_of(layouts)).up_to_date_count == 2


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    journal = Journal(tmp_path / "journal.sqlite")
    yield journal
    journal.close()


def test_a_check_in_which_an_image_failed_is_continued(layouts: Path, journal: Journal) -> None:
    items = [*items_of(layouts), MirrorItem(f"oci:{layouts}/source:none", f"oci:{layouts}/copy:n")]
    with engine_of(QUICK, journal=journal) as engine:
        first = engine.check(items, deep=True)
        second = engine.check(items[:2], deep=True)
        third = engine.check(items[:2], deep=True)

    assert len(first.failed) == 1
    assert first.bytes_verified > 0
    assert (second.bytes_verified, second.bytes_verified_before) == (0, first.bytes_verified)
    assert third.bytes_verified == first.bytes_verified
