"""`--referrers` and `--foreign-layers`: what goes along, and what is said of what does not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from concil.server import EmbeddedRegistry
from tests.cli.runner import Cli, assert_fails
from tests.support.images import Image, assert_same_image, make_image, make_index, put_image
from tests.support.referrers import (
    digest_tag,
    list_referrers,
    make_cosign_artifact,
    make_referrer,
    put_referrer,
)

PARTS = [make_image(n, platform=f"linux/{p}") for n, p in enumerate(("amd64", "arm64", "s390x"))]
IMAGE = make_index(PARTS)
SIGNED = make_referrer(IMAGE)
TAG = digest_tag(IMAGE, ".sig")


@pytest.fixture
def source(registry: EmbeddedRegistry) -> str:
    """Return the address of an image that is signed in two ways."""
    put_image(registry.url, "team/app", "v1", IMAGE)
    put_referrer(registry.url, "team/app", SIGNED)
    put_image(registry.url, "team/app", TAG, make_cosign_artifact())
    return f"{registry.host}/team/app"


def digests(registry: EmbeddedRegistry, repository: str, image: Image = IMAGE) -> list[object]:
    return [entry["digest"] for entry in list_referrers(registry.url, repository, image.digest)]


def test_copy_takes_referrers_along_and_counts_them(
    cli: Cli, registry: EmbeddedRegistry, source: str, jobs: str
) -> None:
    target = f"{registry.host}/to:v1"

    without = cli("copy", jobs, f"{source}:v1", target)
    first = cli("copy", jobs, "--referrers", f"{source}:v1", target)
    second = cli("copy", jobs, "--referrers", f"{source}:v1", target)

    assert digests(registry, "to") == [SIGNED.digest]
    assert_same_image(registry.url, "to", TAG, make_cosign_artifact())
    assert "referrers" not in without.err
    assert f"copied {target}: 2 referrers, " in first.err
    assert "is up to date" in second.err
    assert {run.out for run in (without, first, second)} == {f"{registry.host}/to@{IMAGE.digest}\n"}


def test_rewritten_index_is_told_in_one_line_unless_nobody_wants_to_know(
    cli: Cli, registry: EmbeddedRegistry, source: str, jobs: str
) -> None:
    options = (jobs, "--referrers", "--platform", "linux/amd64,linux/arm64", f"{source}:v1")

    told = cli("copy", *options, f"{registry.host}/to:v1")
    again = cli("copy", *options, f"{registry.host}/to:v1")
    quiet = cli("copy", "-q", *options, f"{registry.host}/quiet:v1")

    new = told.out.strip().partition("@")[2]
    assert told.err.splitlines()[0] == (
        f"concil: note: {registry.host}/to:v1: the index is rewritten for linux/amd64, linux/arm64:"
        f" {new} instead of {IMAGE.digest}; 2 referrers are left behind with {IMAGE.digest}"
    )
    assert "note" not in again.err
    assert quiet.err == ""


def test_plan_says_for_which_images_referrers_go_along(
    cli: Cli, registry: EmbeddedRegistry, source: str, tmp_path: Path, jobs: str
) -> None:
    plan = tmp_path / "plan.toml"
    entry = f'[[mirror]]\nsource = "{source}"\ntarget = '
    plan.write_text(
        f'{entry}"with:{{tag}}"\nreferrers = true\n{entry}"out:{{tag}}"\nreferrers = false\n'
        f'{entry}"open:{{tag}}"\n'
    )
    report = tmp_path / "report.json"

    done = cli("mirror", jobs, "--report", report, plan, registry.host)
    every = cli("mirror", jobs, "--referrers", plan, f"{registry.host}/all")

    assert (done.code, every.code) == (0, 0)
    found = {name: digests(registry, name) for name in ("with", "out", "open", "all/open")}
    assert found == {"with": [SIGNED.digest], "out": [], "open": [], "all/open": [SIGNED.digest]}
    assert digests(registry, "all/out") == []
    # A signature is no image of its own where it goes along.
    entries = json.loads(report.read_text())["images"]
    assert sorted((e["target"].rpartition("/")[2], e["referrers"]) for e in entries) == sorted(
        [("with:v1", 2), ("out:v1", 0), (f"out:{TAG}", 0), ("open:v1", 0), (f"open:{TAG}", 0)]
    )


def test_foreign_layers_are_told_for_each_image_and_counted(
    cli: Cli, registry: EmbeddedRegistry, tmp_path: Path, jobs: str
) -> None:
    document = json.loads(make_image(1).manifest)
    foreign = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"
    document["layers"][0]["mediaType"] = foreign
    body = json.dumps(document).encode()
    image = Image(make_image(1).media_type, body, make_image(1).blobs)
    put_image(registry.url, "win", "v1", image)
    listed = tmp_path / "list"
    listed.write_text(f"{registry.host}/win:v1\n")
    report = tmp_path / "report.json"

    done = cli("mirror", jobs, listed, f"{registry.host}/to", "--report", report)
    layout = f"oci:{tmp_path}/layout:v1"
    with_it = cli("copy", jobs, "--foreign-layers=source", f"{registry.host}/win:v1", layout)

    (entry,) = json.loads(report.read_text())["images"]
    assert entry["skipped_foreign_layers"] == 1
    assert entry["notes"] == ["1 foreign layer is left out"]
    note = f"concil: note: {registry.host}/to/win:v1: 1 foreign layer is left out\n"
    assert done.err.count(note) == 1
    assert with_it.code == 0
    assert "note" not in with_it.err


@pytest.mark.parametrize("words", [("--foreign-layers=all",), ("--foreign-layers",)])
def test_unknown_way_with_foreign_layers_is_a_usage_error(cli: Cli, words: tuple[str, ...]) -> None:
    assert_fails(cli("copy", "a.example/b:1", "a.example/c:1", *words), 2, "--foreign-layers")


def test_signature_that_refers_to_itself_is_one_line(
    cli: Cli, registry: EmbeddedRegistry, source: str, jobs: str
) -> None:
    put_image(registry.url, "team/app", TAG, IMAGE)

    done = cli("copy", jobs, "--referrers", f"{source}:v1", f"{registry.host}/to:v1")

    assert_fails(done, 1, f"{IMAGE.digest} refers to itself, by its tag {TAG}", "without referrers")
