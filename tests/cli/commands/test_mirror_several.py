"""`concil mirror` and `check` with several destinations: each has its own line and outcome."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import requests

from concil.server import EmbeddedRegistry
from tests.cli.commands.test_mirror_plan import tags_of
from tests.cli.runner import Cli, Program, assert_fails
from tests.cli.service_program import service
from tests.support.images import assert_same_image, make_image, put_image
from tests.support.relay import Relay

IMAGES = {"v1": make_image(1, (3000,)), "v2": make_image(2, (3000,))}


@dataclass
class Lab:
    """A plan for two registries, one of them behind a relay that can be closed."""

    source: EmbeddedRegistry
    first: EmbeddedRegistry
    second: EmbeddedRegistry
    relay: Relay
    plan: Path

    @property
    def lines(self) -> tuple[str, str]:
        """How the lines of the destinations begin."""
        return f"{self.first.host}: ", f"{self.relay.host}: "

    def assert_has_all(self) -> None:
        for registry in (self.first, self.second):
            for tag, image in IMAGES.items():
                assert_same_image(registry.url, "copy/app", tag, image)


@pytest.fixture
def lab(tmp_path: Path, registry: EmbeddedRegistry) -> Iterator[Lab]:
    with (
        EmbeddedRegistry(tmp_path / "first") as first,
        EmbeddedRegistry(tmp_path / "second") as second,
        Relay(second.host) as relay,
    ):
        for tag, image in IMAGES.items():
            put_image(registry.url, "team/app", tag, image)
        plan = tmp_path / "plan.toml"
        targets = [f"{host}/copy/{{name}}" for host in (first.host, relay.host)]
        plan.write_text(
            f'[[mirror]]\nsource = "{registry.host}/team/app"\ntarget = {json.dumps(targets)}\n'
        )
        yield Lab(registry, first, second, relay, plan)


def blob_reads(registry: EmbeddedRegistry) -> int:
    return sum(
        1
        for request in registry.requests
        if request.method == "GET" and "/blobs/sha256" in request.path
    )


def test_each_destination_has_a_line_and_the_source_is_read_once(cli: Cli, lab: Lab) -> None:
    result = cli("mirror", lab.plan)

    assert result.code == 0, result.err
    assert result.lines[0].startswith("4 images: 4 copied")
    assert {line.partition(";")[0] for line in result.lines[1:]} == {
        f"{name}2 copied, 0 up to date, 0 failed" for name in lab.lines
    }
    lab.assert_has_all()
    assert blob_reads(lab.source) == len(
        {digest for image in IMAGES.values() for digest in image.blobs}
    )


def test_only_the_destination_that_was_down_is_tried_again(
    cli: Cli, lab: Lab, tmp_path: Path
) -> None:
    lab.relay.stop_accepting()
    report, page, again = (tmp_path / name for name in ("r.json", "r.html", "again.json"))

    result = cli("mirror", lab.plan, "--retry=0", "--report", report, "--report", page)

    assert result.code == 3
    assert {line.partition(";")[0] for line in result.lines[1:]} == {
        f"{lab.lines[0]}2 copied, 0 up to date, 0 failed",
        f"{lab.lines[1]}0 copied, 0 up to date, 2 failed",
    }
    counts = json.loads(report.read_text())["destinations"]
    assert counts[lab.first.host]["copied"] == 2
    assert counts[lab.relay.host]["failed"] == 2
    assert f'"name":"{lab.relay.host}"' in page.read_text().replace(": ", ":")
    lab.relay.resume_accepting()
    written = lab.first.requests

    result = cli("mirror", lab.plan, "--retry-failed", report, "--report", again)

    assert result.code == 0, result.err
    assert result.lines[0].startswith("2 images: 2 copied")
    assert lab.first.requests == written
    lab.assert_has_all()
    assert "destinations" not in json.loads(again.read_text())


@pytest.mark.process
def test_a_service_retries_only_the_destination_that_was_down(program: Program, lab: Lab) -> None:
    with lab.plan.open("a") as plan:
        plan.write('tags = ["v1"]\n')
    lab.relay.stop_accepting()
    with service(program, lab.plan, "--every=1h", "--retry=0") as running:
        running.wait_for("2 images: 1 copied, 0 up to date, 1 failed")
        lab.relay.resume_accepting()
        running.wait_for("1 image: 1 copied")
        assert running.stop() == 0
    for registry in (lab.first, lab.second):
        assert_same_image(registry.url, "copy/app", "v1", IMAGES["v1"])


def test_several_options_are_several_destinations(cli: Cli, lab: Lab, tmp_path: Path) -> None:
    images = tmp_path / "list"
    images.write_text(f"{lab.source.host}/team/app:v1\n")
    places = [f"--dest={lab.first.host}/x", f"--dest={lab.relay.host}/y", "--dest=oci:here"]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)

        assert cli("mirror", images, *places).code == 0
        assert cli("check", "--deep", images, *places).lines[0].startswith("3 images: 3 ok")

    assert_same_image(lab.first.url, "x/team/app", "v1", IMAGES["v1"])
    assert_same_image(lab.second.url, "y/team/app", "v1", IMAGES["v1"])


def test_every_destination_is_pruned_and_previewed(cli: Cli, lab: Lab) -> None:
    assert cli("mirror", lab.plan).code == 0
    requests.delete(
        f"{lab.source.url}/v2/team/app/manifests/{IMAGES['v2'].digest}", timeout=60
    ).raise_for_status()

    preview = cli("mirror", lab.plan, "--prune", "--dry-run")

    assert [line for line in preview.lines if line.startswith("prune ")] == [
        f"prune {host}/copy/app:v2 ({IMAGES['v2'].digest})"
        for host in (lab.first.host, lab.relay.host)
    ]
    assert cli("mirror", lab.plan, "--prune").code == 0
    for registry in (lab.first, lab.second):
        assert tags_of(registry.url, "copy/app") == ["v1"]


def test_an_image_is_mended_where_it_is_damaged(cli: Cli, lab: Lab) -> None:
    assert cli("mirror", lab.plan).code == 0
    requests.delete(
        f"{lab.second.url}/v2/copy/app/manifests/{IMAGES['v2'].digest}", timeout=60
    ).raise_for_status()

    assert cli("check", lab.plan).code == 6
    assert cli("mirror", lab.plan, "--recheck").code == 0
    assert cli("check", lab.plan, "--deep").code == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--processes=2"], "--processes splits the mirror"),
        (["--spool=missing"], "'missing', does not exist"),
        (["--cache=oci:x:v1"], "a cache is a directory"),
    ],
)
def test_what_cannot_be_combined(cli_here: Cli, lab: Lab, words: list[str], message: str) -> None:
    assert_fails(cli_here("mirror", lab.plan, *words), 2, message)


def test_options_for_one_destination(cli_here: Cli, lab: Lab, tmp_path: Path) -> None:
    (tmp_path / "list").write_text(f"{lab.source.host}/team/app:v1\n")
    place = f"{lab.first.host}/x"

    assert_fails(cli_here("mirror", "list", place, "--spool=."), 2, "are for several destinations")
    assert_fails(cli_here("mirror", "list", place, f"--dest={place}"), 2, "two destinations")
    words = ["mirror", "list", f"--dest={place}", f"--dest={place}/"]
    assert_fails(cli_here(*words), 2, "is given twice")


def test_an_image_that_fails_everywhere_is_named_once(
    cli_here: Cli, lab: Lab, tmp_path: Path
) -> None:
    name = f"{lab.source.host}/team/app:none"
    (tmp_path / "list").write_text(f"{name}\n")

    result = cli_here("mirror", "list", f"--dest={lab.first.host}/x", f"--dest={lab.second.host}/x")

    assert result.code == 4
    assert f"concil: failed: 2 images ({name}): " in result.err
