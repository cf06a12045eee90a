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
class Gap:
    """Two registries, and the directory that is carried between them."""

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
        done = self.cli("mirror", self.list, address, *options)
        assert done.code == 0, done.err
        return address

    def carry(self, address: str, *options: str) -> None:
        """Copy a layout into the registry inside."""
        done = self.cli("copy", "--all", *options, address, f"{self.inside.host}/in")
        assert done.code == 0, done.err

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
def gap(
    request: pytest.FixtureRequest, registry: EmbeddedRegistry, tmp_path: Path, cli: Cli
) -> Iterator[Gap]:
    """Return a gap with a first mirror to cross it, in the layout `full` and the report `first`.

    The registry inside is the embedded one, or what a test asks for as a parameter.
    """
    with EmbeddedRegistry(tmp_path / "inside") as embedded:
        asked = getattr(request, "param", None)
        gap = Gap(registry, request.getfixturevalue(asked) if asked else embedded, tmp_path, cli)
        gap.publish(BEFORE)
        gap.mirror("full", f"--report={tmp_path}/first")
        yield gap


RUNS = pytest.mark.parametrize(
    ("gap", "run"),
    [
        pytest.param("fresh_docker_registry", "oci:{}/full", marks=pytest.mark.real),
        (None, "{}/full"),
        (None, "{}/first"),
        (None, "oci-archive:{}/f.tar"),
    ],
    indirect=["gap"],
    ids=["docker-registry", "layout", "report", "archive"],
)


@RUNS
def test_only_what_is_new_is_carried_over_and_all_of_it_arrives(gap: Gap, run: str) -> None:
    gap.carry(f"oci:{gap.directory}/full")
    if "archive" in run:
        gap.mirror(f"oci-archive:{gap.directory}/f.tar")
    gap.publish(AFTER)

    new = gap.mirror("new", f"--since={run.format(gap.directory)}")

    names = gap.cli("tags", new).lines
    assert sorted(names) == sorted(f"{gap.outside.host}/{name}" for name in AFTER)
    wanted = {digest for image in AFTER.values() for digest in image.all_blobs()}
    manifests = {one.digest for image in AFTER.values() for one in image.walk()}
    had = {digest for image in BEFORE.values() for digest in image.all_blobs()}
    assert gap.blobs("new") == (wanted - had) | manifests
    gap.carry(new)
    gap.assert_inside(BEFORE | AFTER)


def test_nothing_new_is_an_empty_layout(gap: Gap) -> None:
    new = gap.mirror("new", f"--since=oci:{gap.directory}/full")

    assert gap.cli("tags", new).lines == []


def test_the_new_part_may_be_one_file(gap: Gap) -> None:
    gap.carry(f"oci:{gap.directory}/full")
    gap.publish(AFTER)
    archive = f"oci-archive:{gap.directory}/new.tar"

    gap.mirror(archive, f"--since={gap.directory}/full")

    assert (gap.directory / "new.tar").stat().st_size < 50_000
    gap.carry(archive)
    gap.assert_inside(BEFORE | AFTER)


def test_parts_follow_one_another(gap: Gap) -> None:
    gap.carry(f"oci:{gap.directory}/full")
    gap.publish(AFTER)
    second = gap.mirror("second", f"--since={gap.directory}/full")
    gap.carry(second)
    latest = {"team/app:1": with_base(7, 100), "team/last:1": with_base(8, 200)}
    gap.publish(latest)

    third = gap.mirror("third", f"--since={second}", f"--since={gap.directory}/full")

    base = json.loads(BEFORE["team/base:1"].manifest)["layers"][0]["digest"]
    assert base not in gap.blobs("second") | gap.blobs("third")
    assert sorted(gap.cli("tags", third).lines) == sorted(
        f"{gap.outside.host}/{name}" for name in latest
    )
    gap.carry(third)
    gap.assert_inside(BEFORE | AFTER | latest)


def test_a_part_is_added_to_the_layout_that_it_belongs_to(gap: Gap) -> None:
    gap.publish(AFTER)
    new = gap.mirror("new", f"--since={gap.directory}/full")

    done = gap.cli("copy", "--all", new, f"oci:{gap.directory}/full")

    assert done.code == 0, done.err
    with EmbeddedRegistry(gap.directory / "another") as another:
        later = replace(gap, inside=another)
        later.carry(f"oci:{gap.directory}/full")
        later.assert_inside(BEFORE | AFTER)


def test_a_blob_that_neither_side_has_is_named(gap: Gap, tmp_path: Path) -> None:
    gap.publish(AFTER)
    new = gap.mirror("new", f"--since={gap.directory}/full")
    base = json.loads(BEFORE["team/base:1"].manifest)["layers"][0]["digest"]

    with EmbeddedRegistry(tmp_path / "empty") as empty:
        all_of_it = gap.cli("copy", "--all", "-q", new, f"{empty.host}/in")
        name = f"{new}:{gap.outside.host}/team/app:1"
        one = gap.cli("copy", name, f"{empty.host}/in/team/app:1")
        assert gap.cli("digest", f"{empty.host}/in/team/app:1").code == 4
    layout = gap.cli("copy", name, f"oci:{tmp_path}/empty-layout:app")

    assert (all_of_it.code, all_of_it.raw) == (4, b"")
    assert all_of_it.err.count(base) == 2
    for done in (one, layout):
        assert done.code == 4
        assert_one_line(done.err, base, "neither in", "carried over before", "--since")


def test_what_tells_nothing_of_an_earlier_run_is_told_at_once(gap: Gap, tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no report")
    (tmp_path / "json").write_text('{"images": 1}')
    target = f"oci:{tmp_path}/new"
    cases = {
        f"{tmp_path}/text": (2, "is no report"),
        f"{tmp_path}/json": (2, "no report of a mirror"),
        f"{tmp_path}/none": (4, "no report or layout"),
        f"oci:{tmp_path}/none": (4, "no layout"),
        f"oci-archive:{tmp_path}/none": (4, "no archive"),
        f"oci:{tmp_path}/full:name": (2, "nothing of an earlier run"),
        f"docker-archive:{tmp_path}/x": (2, "nothing of an earlier run"),
        target: (4, "no layout"),
    }

    for run, (code, words) in cases.items():
        assert_fails(gap.cli("mirror", gap.list, target, f"--since={run}"), code, words)
    for other in (f"{gap.inside.host}/in", f"docker-archive:{tmp_path}/x"):
        done = gap.cli("mirror", gap.list, other, f"--since={tmp_path}/full")
        assert_fails(done, 2, "--since leaves blobs out", "oci:DIR")
    same = gap.cli("mirror", gap.list, f"oci:{tmp_path}/full", f"--since=oci:{tmp_path}/full")
    assert_fails(same, 2, "cannot lack what it holds itself")
    assert not (tmp_path / "new").exists()


def test_what_makes_no_sense_in_a_report_is_carried_over_again(gap: Gap, tmp_path: Path) -> None:
    report = json.loads((tmp_path / "first").read_text())
    for entry in report["images"]:
        entry["contents"] = ["nonsense", 1, None]
    report["images"] += [1, {}, {"outcome": "copied"}, {"outcome": "copied", "digest": 1}]
    report["images"][0]["digest"] = "nonsense"
    report["images"][1]["outcome"] = "failed"
    (tmp_path / "first").write_text(json.dumps(report))

    new = gap.mirror("new", f"--since={tmp_path}/first")

    left = report["images"][2]["target"].partition(":")[2].partition(":")[2]
    assert left not in gap.cli("tags", new).lines
    assert len(gap.cli("tags", new).lines) == 2
    gap.carry(new)  # it holds all that it names


def test_a_note_without_sense_is_none(gap: Gap, monkeypatch: pytest.MonkeyPatch) -> None:
    gap.carry(f"oci:{gap.directory}/full")
    gap.publish({"team/new:1": AFTER["team/new:1"]})
    new = gap.mirror("new", f"--since={gap.directory}/full")
    index = json.loads((gap.directory / "new" / "index.json").read_text())
    (entry,) = index["manifests"]
    assert entry["annotations"]["concil.left-out"].startswith('{"sha256:')
    entry["annotations"]["concil.left-out"] = "nonsense"
    (gap.directory / "new" / "index.json").write_text(json.dumps(index))

    # The journal would know where the blob is.
    monkeypatch.setenv("XDG_STATE_HOME", str(gap.directory / "forgetful"))

    done = gap.cli("copy", "--all", "-q", new, f"{gap.inside.host}/in")

    assert_fails(done, 4, "team/new:1", "neither in")


SIGNED_RUNS = pytest.mark.parametrize("run", ["oci:{}/full", "{}/first"], ids=["layout", "report"])


def sign(gap: Gap, name: str, image: Image) -> tuple[Image, ...]:
    """Sign an image outside, and the signature, and once more as cosign does."""
    repository = name.rpartition(":")[0]
    signed = make_referrer(image, name.encode())
    again = make_referrer(signed, b"again " + name.encode())
    for referrer in (signed, again):
        put_referrer(gap.outside.url, repository, referrer)
    put_image(
        gap.outside.url, repository, digest_tag(image, ".sig"), make_cosign_artifact(name.encode())
    )
    return signed, again


def assert_signed(gap: Gap, name: str, image: Image, signatures: tuple[Image, ...]) -> None:
    """Assert that the registry inside has them all."""
    repository = f"in/{name.rpartition(':')[0]}"
    for subject, referrer in zip((image, signatures[0]), signatures, strict=True):
        listed = list_referrers(gap.inside.url, repository, subject.digest)
        assert referrer.digest in [entry["digest"] for entry in listed]
        assert_same_image(gap.inside.url, repository, referrer.digest, referrer)
    tag = digest_tag(image, ".sig")
    assert_same_image(gap.inside.url, repository, tag, make_cosign_artifact(name.encode()))


@SIGNED_RUNS
def test_a_new_image_takes_its_signatures_over(gap: Gap, run: str) -> None:
    gap.carry(f"oci:{gap.directory}/full")
    gap.publish(AFTER)
    signatures = {name: sign(gap, name, image) for name, image in AFTER.items()}

    gap.carry(
        gap.mirror("new", "--referrers", f"--since={run.format(gap.directory)}"), "--referrers"
    )

    gap.assert_inside(AFTER)
    for name, image in AFTER.items():
        assert_signed(gap, name, image, signatures[name])


@SIGNED_RUNS
def test_a_new_signature_of_an_old_image_is_carried_over_without_its_layers(
    gap: Gap, run: str
) -> None:
    gap.carry(f"oci:{gap.directory}/full")
    name, image = "team/app:1", BEFORE["team/app:1"]
    signatures = sign(gap, name, image)

    new = gap.mirror("new", "--referrers", f"--since={run.format(gap.directory)}")
    gap.carry(new, "--referrers")

    assert_signed(gap, name, image, signatures)
    assert f"{gap.outside.host}/{name}" in gap.cli("tags", new).lines
    assert not gap.blobs("new") & set(image.all_blobs())


def test_an_image_that_a_report_knows_by_its_digest_alone_is_not_sent_for_a_signature(
    gap: Gap,
) -> None:
    gap.carry(f"oci:{gap.directory}/full")
    gap.mirror("full", f"--report={gap.directory}/second")  # all of it is up to date
    name, image = "team/other:1", BEFORE["team/other:1"]
    signatures = sign(gap, name, image)

    new = gap.mirror("new", "--referrers", f"--since={gap.directory}/second")
    gap.carry(new, "--referrers")

    assert_signed(gap, name, image, signatures)
    assert not gap.blobs("new") & set(image.all_blobs())


def test_a_signature_whose_image_a_kill_has_kept_out_of_the_layout_is_found_again(
    gap: Gap,
) -> None:
    name, image = "team/app:1", BEFORE["team/app:1"]
    signatures = sign(gap, name, image)
    options = "--referrers", f"--since=oci:{gap.directory}/full"
    new = gap.mirror("new", *options)
    assert gap.cli("delete", f"{new}:{gap.outside.host}/{name}").code == 0

    gap.mirror("new", *options)

    gap.carry(f"oci:{gap.directory}/full")
    gap.carry(new, "--referrers")
    assert_signed(gap, name, image, signatures)


def test_signatures_that_a_layout_has_carried_over_are_not_carried_again(gap: Gap) -> None:
    sign(gap, "team/app:1", BEFORE["team/app:1"])
    gap.mirror("signed", "--referrers")

    new = gap.mirror("new", "--referrers", f"--since=oci:{gap.directory}/signed")

    assert gap.cli("tags", new).lines == []
