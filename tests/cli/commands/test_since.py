"""`concil mirror --since`: only what is new is carried over, and comes out whole."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from concil.server import EmbeddedRegistry
from tests.cli.runner import Cli, assert_fails, assert_one_line
from tests.support.docker_registry import DockerRegistry
from tests.support.images import (
    Image,
    Layer,
    assert_same_image,
    make_image,
    make_index,
    make_layer,
    put_image,
)
from tests.support.referrers import (
    digest_tag,
    list_referrers,
    make_cosign_artifact,
    make_referrer,
    put_referrer,
)

pytestmark = pytest.mark.slow

BASE = make_layer(1, 50_000)


def with_base(seed: int, *layers: Layer | int) -> Image:
    return make_image(seed, (BASE, *layers))


BEFORE = {
    "team/base:1": with_base(1),
    "team/app:1": with_base(2, 3000),
    "team/other:1": make_image(3),
}
# One image has changed, one is new, with a layer that only other repositories have.
AFTER = {"team/app:1": with_base(4, 4000), "team/new:1": make_index([with_base(5, 500)])}


@dataclass(frozen=True)
class AirGap:
    """Two registries, and a directory for the layouts between them."""

    outside: EmbeddedRegistry
    inside: EmbeddedRegistry | DockerRegistry
    directory: Path
    cli: Cli

    def publish(self, images: dict[str, Image]) -> None:
        """Put images into the registry outside, and on the list."""
        for name, image in images.items():
            repository, _, tag = name.rpartition(":")
            put_image(self.outside.url, repository, tag, image)
        known = self.list.read_text().split() if self.list.exists() else []
        lines = dict.fromkeys([*known, *(f"{self.outside.host}/{name}" for name in images)])
        self.list.write_text("\n".join(lines))

    @property
    def list(self) -> Path:
        """The list of what is mirrored."""
        return self.directory / "list"

    def mirror(self, name: str, *options: str | Path) -> str:
        """Mirror into a layout of a name; return its address."""
        address = name if ":" in name else f"oci:{self.directory / name}"
        result = self.cli("mirror", self.list, address, *options)
        assert result.code == 0, result.err
        return address

    def import_layout(self, address: str, *options: str) -> None:
        """Copy a layout into the registry inside."""
        result = self.cli("copy", "--all", *options, address, f"{self.inside.host}/in")
        assert result.code == 0, result.err

    def assert_inside(self, images: dict[str, Image]) -> None:
        """Assert that the registry inside has images, byte for byte."""
        for name, image in images.items():
            repository, _, tag = name.rpartition(":")
            assert_same_image(self.inside.url, f"in/{repository}", tag, image)

    def blobs(self, name: str) -> set[str]:
        """The digests of what lies in a layout."""
        found = (self.directory / name / "blobs" / "sha256").iterdir()
        return {f"sha256:{path.name}" for path in found}


@pytest.fixture
def air_gap(
    request: pytest.FixtureRequest, registry: EmbeddedRegistry, tmp_path: Path, cli: Cli
) -> Iterator[AirGap]:
    """Return a gap with a first mirror to cross it, in the layout `full` and the report `first`.

    The registry inside is the embedded one, or what a test asks for as a parameter.
    """
    with EmbeddedRegistry(tmp_path / "inside") as embedded:
        asked = getattr(request, "param", None)
        air_gap = AirGap(
            registry, request.getfixturevalue(asked) if asked else embedded, tmp_path, cli
        )
        air_gap.publish(BEFORE)
        air_gap.mirror("full", f"--report={tmp_path}/first")
        yield air_gap


RUNS = pytest.mark.parametrize(
    ("air_gap", "run"),
    [
        pytest.param("fresh_docker_registry", "oci:{}/full", marks=pytest.mark.real),
        (None, "{}/full"),
        (None, "{}/first"),
        (None, "oci-archive:{}/f.tar"),
    ],
    indirect=["air_gap"],
    ids=["docker-registry", "layout", "report", "archive"],
)


@RUNS
def test_only_new_content_is_exported_and_all_of_it_is_imported(air_gap: AirGap, run: str) -> None:
    air_gap.import_layout(f"oci:{air_gap.directory}/full")
    if "archive" in run:
        air_gap.mirror(f"oci-archive:{air_gap.directory}/f.tar")
    air_gap.publish(AFTER)

    new = air_gap.mirror("new", f"--since={run.format(air_gap.directory)}")

    names = air_gap.cli("tags", new).lines
    assert sorted(names) == sorted(f"{air_gap.outside.host}/{name}" for name in AFTER)
    wanted = {digest for image in AFTER.values() for digest in image.all_blobs()}
    manifests = {one.digest for image in AFTER.values() for one in image.walk()}
    had = {digest for image in BEFORE.values() for digest in image.all_blobs()}
    assert air_gap.blobs("new") == (wanted - had) | manifests
    air_gap.import_layout(new)
    air_gap.assert_inside(BEFORE | AFTER)


def test_nothing_new_is_an_empty_layout(air_gap: AirGap) -> None:
    new = air_gap.mirror("new", f"--since=oci:{air_gap.directory}/full")

    assert air_gap.cli("tags", new).lines == []


def test_the_new_part_may_be_one_file(air_gap: AirGap) -> None:
    air_gap.import_layout(f"oci:{air_gap.directory}/full")
    air_gap.publish(AFTER)
    archive = f"oci-archive:{air_gap.directory}/new.tar"

    air_gap.mirror(archive, f"--since={air_gap.directory}/full")

    assert (air_gap.directory / "new.tar").stat().st_size < 50_000
    air_gap.import_layout(archive)
    air_gap.assert_inside(BEFORE | AFTER)


def test_parts_follow_one_another(air_gap: AirGap) -> None:
    air_gap.import_layout(f"oci:{air_gap.directory}/full")
    air_gap.publish(AFTER)
    second = air_gap.mirror("second", f"--since={air_gap.directory}/full")
    air_gap.import_layout(second)
    latest = {"team/app:1": with_base(7, 100), "team/last:1": with_base(8, 200)}
    air_gap.publish(latest)

    third = air_gap.mirror("third", f"--since={second}", f"--since={air_gap.directory}/full")

    base = json.loads(BEFORE["team/base:1"].manifest)["layers"][0]["digest"]
    assert base not in air_gap.blobs("second") | air_gap.blobs("third")
    assert sorted(air_gap.cli("tags", third).lines) == sorted(
        f"{air_gap.outside.host}/{name}" for name in latest
    )
    air_gap.import_layout(third)
    air_gap.assert_inside(BEFORE | AFTER | latest)


def test_a_part_is_added_to_the_layout_that_it_belongs_to(air_gap: AirGap) -> None:
    air_gap.publish(AFTER)
    new = air_gap.mirror("new", f"--since={air_gap.directory}/full")

    result = air_gap.cli("copy", "--all", new, f"oci:{air_gap.directory}/full")

    assert result.code == 0, result.err
    with EmbeddedRegistry(air_gap.directory / "another") as another:
        later = replace(air_gap, inside=another)
        later.import_layout(f"oci:{air_gap.directory}/full")
        later.assert_inside(BEFORE | AFTER)


def test_a_blob_that_neither_side_has_is_named(air_gap: AirGap, tmp_path: Path) -> None:
    air_gap.publish(AFTER)
    new = air_gap.mirror("new", f"--since={air_gap.directory}/full")
    base = json.loads(BEFORE["team/base:1"].manifest)["layers"][0]["digest"]

    with EmbeddedRegistry(tmp_path / "empty") as empty:
        all_of_it = air_gap.cli("copy", "--all", "-q", new, f"{empty.host}/in")
        name = f"{new}:{air_gap.outside.host}/team/app:1"
        one = air_gap.cli("copy", name, f"{empty.host}/in/team/app:1")
        assert air_gap.cli("digest", f"{empty.host}/in/team/app:1").code == 4
    layout = air_gap.cli("copy", name, f"oci:{tmp_path}/empty-layout:app")

    assert (all_of_it.code, all_of_it.raw) == (4, b"")
    assert all_of_it.err.count(base) == 2
    for result in (one, layout):
        assert result.code == 4
        assert_one_line(result.err, base, "neither in", "exported before", "--since")


def test_invalid_baseline_is_refused_before_the_export(air_gap: AirGap, tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no report")
    (tmp_path / "json").write_text('{"images": 1}')
    target = f"oci:{tmp_path}/new"
    cases = {
        f"{tmp_path}/text": (2, "is not a report"),
        f"{tmp_path}/json": (2, "not a report of a mirror"),
        f"{tmp_path}/none": (4, "no report or layout"),
        f"oci:{tmp_path}/none": (4, "no layout"),
        f"oci-archive:{tmp_path}/none": (4, "no archive"),
        f"oci:{tmp_path}/full:name": (2, "cannot be the baseline"),
        f"docker-archive:{tmp_path}/x": (2, "cannot be the baseline"),
        target: (4, "no layout"),
    }

    for run, (code, words) in cases.items():
        assert_fails(air_gap.cli("mirror", air_gap.list, target, f"--since={run}"), code, words)
    for other in (f"{air_gap.inside.host}/in", f"docker-archive:{tmp_path}/x"):
        result = air_gap.cli("mirror", air_gap.list, other, f"--since={tmp_path}/full")
        assert_fails(result, 2, "--since omits blobs", "oci:DIR")
    same = air_gap.cli(
        "mirror", air_gap.list, f"oci:{tmp_path}/full", f"--since=oci:{tmp_path}/full"
    )
    assert_fails(same, 2, "is both the baseline of --since and the destination")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("version", [None, 0, 2, "1", True])
def test_a_report_of_another_schema_is_refused(
    air_gap: AirGap, tmp_path: Path, version: object
) -> None:
    report = json.loads((tmp_path / "first").read_text())
    report["schema_version"] = version
    (tmp_path / "first").write_text(json.dumps(report))

    result = air_gap.cli("mirror", air_gap.list, f"oci:{tmp_path}/new", f"--since={tmp_path}/first")

    assert_fails(result, 2, "is not a report of this version of concil", "schema_version")
    assert not (tmp_path / "new").exists()


def test_invalid_entries_of_a_report_are_exported_again(air_gap: AirGap, tmp_path: Path) -> None:
    report = json.loads((tmp_path / "first").read_text())
    for entry in report["images"]:
        entry["blob_digests"] = ["nonsense", 1, None]
    report["images"] += [1, {}, {"outcome": "copied"}, {"outcome": "copied", "digest": 1}]
    report["images"][0]["digest"] = "nonsense"
    report["images"][1]["outcome"] = "failed"
    (tmp_path / "first").write_text(json.dumps(report))

    new = air_gap.mirror("new", f"--since={tmp_path}/first")

    left = report["images"][2]["target"].partition(":")[2].partition(":")[2]
    assert left not in air_gap.cli("tags", new).lines
    assert len(air_gap.cli("tags", new).lines) == 2
    air_gap.import_layout(new)  # it holds all that it names


def test_a_note_without_sense_is_none(air_gap: AirGap, monkeypatch: pytest.MonkeyPatch) -> None:
    air_gap.import_layout(f"oci:{air_gap.directory}/full")
    air_gap.publish({"team/new:1": AFTER["team/new:1"]})
    new = air_gap.mirror("new", f"--since={air_gap.directory}/full")
    index = json.loads((air_gap.directory / "new" / "index.json").read_text())
    (entry,) = index["manifests"]
    assert entry["annotations"]["concil.left-out"].startswith('{"sha256:')
    entry["annotations"]["concil.left-out"] = "nonsense"
    (air_gap.directory / "new" / "index.json").write_text(json.dumps(index))

    # The journal would know where the blob is.
    monkeypatch.setenv("XDG_STATE_HOME", str(air_gap.directory / "forgetful"))

    result = air_gap.cli("copy", "--all", "-q", new, f"{air_gap.inside.host}/in")

    assert_fails(result, 4, "team/new:1", "neither in")


SIGNED_RUNS = pytest.mark.parametrize("run", ["oci:{}/full", "{}/first"], ids=["layout", "report"])


def sign(air_gap: AirGap, name: str, image: Image) -> tuple[Image, ...]:
    """Sign an image outside, and the signature, and once more as cosign does."""
    repository = name.rpartition(":")[0]
    signed = make_referrer(image, name.encode())
    again = make_referrer(signed, b"again " + name.encode())
    for referrer in (signed, again):
        put_referrer(air_gap.outside.url, repository, referrer)
    put_image(
        air_gap.outside.url,
        repository,
        digest_tag(image, ".sig"),
        make_cosign_artifact(name.encode()),
    )
    return signed, again


def assert_signed(air_gap: AirGap, name: str, image: Image, signatures: tuple[Image, ...]) -> None:
    """Assert that the registry inside has them all."""
    repository = f"in/{name.rpartition(':')[0]}"
    for subject, referrer in zip((image, signatures[0]), signatures, strict=True):
        listed = list_referrers(air_gap.inside.url, repository, subject.digest)
        assert referrer.digest in [entry["digest"] for entry in listed]
        assert_same_image(air_gap.inside.url, repository, referrer.digest, referrer)
    tag = digest_tag(image, ".sig")
    assert_same_image(air_gap.inside.url, repository, tag, make_cosign_artifact(name.encode()))


@SIGNED_RUNS
def test_a_new_image_takes_its_signatures_over(air_gap: AirGap, run: str) -> None:
    air_gap.import_layout(f"oci:{air_gap.directory}/full")
    air_gap.publish(AFTER)
    signatures = {name: sign(air_gap, name, image) for name, image in AFTER.items()}

    air_gap.import_layout(
        air_gap.mirror("new", "--referrers", f"--since={run.format(air_gap.directory)}"),
        "--referrers",
    )

    air_gap.assert_inside(AFTER)
    for name, image in AFTER.items():
        assert_signed(air_gap, name, image, signatures[name])


@SIGNED_RUNS
def test_new_signature_of_an_old_image_is_exported_without_its_layers(
    air_gap: AirGap, run: str
) -> None:
    air_gap.import_layout(f"oci:{air_gap.directory}/full")
    name, image = "team/app:1", BEFORE["team/app:1"]
    signatures = sign(air_gap, name, image)

    new = air_gap.mirror("new", "--referrers", f"--since={run.format(air_gap.directory)}")
    air_gap.import_layout(new, "--referrers")

    assert_signed(air_gap, name, image, signatures)
    assert f"{air_gap.outside.host}/{name}" in air_gap.cli("tags", new).lines
    assert not air_gap.blobs("new") & set(image.all_blobs())


def test_an_image_that_a_report_knows_by_its_digest_alone_is_not_sent_for_a_signature(
    air_gap: AirGap,
) -> None:
    air_gap.import_layout(f"oci:{air_gap.directory}/full")
    air_gap.mirror("full", f"--report={air_gap.directory}/second")  # all of it is up to date
    name, image = "team/other:1", BEFORE["team/other:1"]
    signatures = sign(air_gap, name, image)

    new = air_gap.mirror("new", "--referrers", f"--since={air_gap.directory}/second")
    air_gap.import_layout(new, "--referrers")

    assert_signed(air_gap, name, image, signatures)
    assert not air_gap.blobs("new") & set(image.all_blobs())


def test_a_signature_whose_image_a_kill_has_kept_out_of_the_layout_is_found_again(
    air_gap: AirGap,
) -> None:
    name, image = "team/app:1", BEFORE["team/app:1"]
    signatures = sign(air_gap, name, image)
    options = "--referrers", f"--since=oci:{air_gap.directory}/full"
    new = air_gap.mirror("new", *options)
    assert air_gap.cli("delete", f"{new}:{air_gap.outside.host}/{name}").code == 0

    air_gap.mirror("new", *options)

    air_gap.import_layout(f"oci:{air_gap.directory}/full")
    air_gap.import_layout(new, "--referrers")
    assert_signed(air_gap, name, image, signatures)


def test_signatures_in_the_baseline_are_not_exported_again(air_gap: AirGap) -> None:
    sign(air_gap, "team/app:1", BEFORE["team/app:1"])
    air_gap.mirror("signed", "--referrers")

    new = air_gap.mirror("new", "--referrers", f"--since=oci:{air_gap.directory}/signed")

    assert air_gap.cli("tags", new).lines == []
