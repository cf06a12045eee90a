"""`concil mirror --report`: JSON and the page, however the mirror ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from concil.server import EmbeddedRegistry
from tests.cli.runner import PATIENCE, Cli, Program, assert_fails
from tests.report.html.recorded_runs import read_page_data
from tests.support.docker_registry import DockerRegistry
from tests.support.faults import Fault
from tests.support.images import Image, make_image, make_layer, put_image, write_layout
from tests.support.relay import Relay

LARGE = 6_000_000  # bytes


@pytest.fixture
def images(registry: EmbeddedRegistry) -> dict[str, Image]:
    """Return three images that share a layer; one has a large one of its own."""
    shared = make_layer(99, 40_000)
    found = {
        name: make_image(n, (shared, LARGE if name == "b" else 3000))
        for n, name in enumerate(("a", "b", "c"))
    }
    for name, image in found.items():
        put_image(registry.url, f"team/{name}", "v1", image)
    return found


@pytest.fixture
def listed(registry: EmbeddedRegistry, images: dict[str, Image], tmp_path: Path) -> Path:
    path = tmp_path / "images.txt"
    path.write_text("".join(f"{registry.host}/team/{name}:v1\n" for name in images))
    return path


@pytest.fixture
def link(registry: EmbeddedRegistry) -> Iterator[Relay]:
    with Relay(registry.host) as relay:
        yield relay


def page_of(path: Path) -> dict[str, Any]:
    return read_page_data(path.read_text(encoding="utf-8"))


def names(columns: dict[str, Any], state: str) -> set[str]:
    """What is in a state."""
    key = "digest" if "digest" in columns else "source"
    pairs = zip(columns[key], columns["state"], strict=True)
    return {name for name, each in pairs if each == state}


def test_one_run_writes_both(  # noqa: PLR0917  # fixtures
    cli: Cli,
    registry: EmbeddedRegistry,
    images: dict[str, Image],
    listed: Path,
    tmp_path: Path,
    jobs: str,
) -> None:
    reports = (f"--report={tmp_path}/r.json", f"--report={tmp_path}/r.HTML")

    done = cli("mirror", jobs, *reports, listed, f"user:secret@{registry.host}/mirror")

    assert done.code == 0, done.err
    document = json.loads((tmp_path / "r.json").read_text())
    page = page_of(tmp_path / "r.HTML")
    assert page["title"] == f"Mirror of images.txt to {registry.host}/mirror"
    assert {image["source"] for image in document["images"]} == names(page["images"], "done")
    assert page["totals"]["images"]["done"] == page["totals"]["expected"] == 3
    blobs = {digest for image in images.values() for digest in image.blobs}
    assert names(page["transfers"], "done") | names(page["transfers"], "mounted") == blobs
    assert page["totals"]["bytes"]["done"] == document["summary"]["bytes_sent"]
    assert sum(page["throughput"]["bytes"]) == pytest.approx(
        document["summary"]["bytes_sent"], rel=0.01
    )
    assert all(0 <= lane < len(page["lanes"]) for lane in page["transfers"]["lane"])
    if jobs != "--jobs=0":
        assert all(name.startswith("worker-") for name in page["lanes"])
    assert "secret" not in (tmp_path / "r.HTML").read_text()


@pytest.mark.real
def test_failures_losses_and_mounts_are_on_the_page(  # noqa: PLR0917  # fixtures
    cli: Cli,
    link: Relay,
    images: dict[str, Image],
    docker_registry: DockerRegistry,
    tmp_path: Path,
    jobs: str,
) -> None:
    link.add_fault(Fault(action="rst", after=LARGE // 2, times=1))
    lines = [f"{link.url}/team/{name}:v1\n" for name in (*images, "none")]
    (tmp_path / "list").write_text("".join(lines))
    page = tmp_path / "page.html"

    done = cli(
        "mirror", jobs, f"--report={page}", tmp_path / "list", f"{docker_registry.host}/cli/pages"
    )

    assert done.code == 3, done.err
    found = page_of(page)
    transfers, texts = found["transfers"], found["texts"]
    assert names(transfers, "mounted")
    assert {source.rpartition("/")[2] for source in names(found["images"], "failed")} == {"none:v1"}
    [why] = found["images"]["why"].values()
    assert "404" in texts[why]
    assert found["totals"]["losses"] == sum(transfers["lost"]) >= 1
    [[_, at, until, why], *_] = next(iter(transfers["losses"].values()))
    assert 0 < at <= until
    assert texts[why]


def test_a_second_run_has_images_that_are_up_to_date(
    cli: Cli, registry: EmbeddedRegistry, listed: Path, tmp_path: Path, jobs: str
) -> None:
    words = ("mirror", jobs, f"--report={tmp_path}/page.html", listed, f"{registry.host}/mirror")
    cli(*words)

    assert cli(*words).code == 0

    page = page_of(tmp_path / "page.html")
    assert len(names(page["images"], "present")) == 3
    assert page["transfers"]["digest"] == []


def test_a_repository_that_cannot_be_listed_is_on_the_page(
    cli: Cli, registry: EmbeddedRegistry, images: dict[str, Image], tmp_path: Path, jobs: str
) -> None:
    plan = tmp_path / "plan.toml"
    plan.write_text(
        "".join(
            f'[[mirror]]\nsource = "{registry.host}/team/{name}"\nmatch = ".*"\n'
            for name in ("a", "none")
        )
    )

    done = cli("mirror", jobs, f"--report={tmp_path}/page.html", plan, f"{registry.host}/mirror")

    assert done.code == 3, done.err
    found = page_of(tmp_path / "page.html")["images"]
    assert names(found, "failed") == {f"{registry.host}/team/none"}
    assert len(names(found, "done")) == 1


@pytest.fixture
def stalled(
    program: Program, link: Relay, images: dict[str, Image]
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a mirror whose large layer stands still half way."""
    write_layout(program.directory / "layout", {"x/b:v1": images["b"], "x/a:v1": images["a"]})
    (program.directory / "list").write_text("oci:layout:x/b:v1\noci:layout:x/a:v1\n")
    link.add_fault(Fault(action="stall", after=LARGE // 2, direction="up", times=None))
    reports = ("--report=r.json", "--report=page.html")
    running = program.start("mirror", "--progress=none", *reports, "list", f"{link.url}/copy")
    link.wait_for(lambda relay: relay.fired_count > 0)
    yield running
    running.kill()
    running.communicate()


def test_an_interrupted_mirror_has_both(
    stalled: subprocess.Popen[bytes], link: Relay, tmp_path: Path
) -> None:
    stalled.send_signal(signal.SIGINT)
    link.clear_faults()
    stalled.communicate(timeout=PATIENCE)

    assert stalled.returncode == 130
    page = page_of(tmp_path / "page.html")
    assert page["complete"] is False
    assert page["totals"]["expected"] == 2
    assert not names(page["images"], "failed")
    assert not names(page["transfers"], "failed")
    assert json.loads((tmp_path / "r.json").read_text())["summary"]["complete"] is False


def test_a_mirror_that_is_ended_at_once_has_both(
    stalled: subprocess.Popen[bytes], images: dict[str, Image], tmp_path: Path
) -> None:
    while stalled.poll() is None:  # two at once may arrive as one
        stalled.send_signal(signal.SIGTERM)
        try:
            stalled.wait(0.5)
        except subprocess.TimeoutExpired:
            continue

    assert stalled.returncode == 130
    page = page_of(tmp_path / "page.html")
    large = max(images["b"].blobs, key=lambda digest: len(images["b"].blobs[digest]))
    assert large in names(page["transfers"], "moving")
    assert page["complete"] is False
    assert json.loads((tmp_path / "r.json").read_text())["summary"]["complete"] is False
    assert {each.name for each in tmp_path.iterdir() if each.name.startswith(".")} == set()


@pytest.mark.parametrize("place", ["missing/page.html", "missing/r.json", "pipe.html", "pipe.json"])
def test_a_place_that_cannot_be_written_to_is_told_before_anything_starts(
    cli: Cli, registry: EmbeddedRegistry, listed: Path, tmp_path: Path, place: str
) -> None:
    for pipe in ("pipe.html", "pipe.json"):
        os.mkfifo(tmp_path / pipe)
    registry.clear_requests()
    before = sorted(tmp_path.iterdir())

    done = cli(
        "mirror",
        f"--report={tmp_path}/good.json",
        f"--report={tmp_path}/good.html",
        f"--report={tmp_path}/{place}",
        listed,
        f"{registry.host}/mirror",
    )

    assert_fails(done, 1, "cannot write the report", str(tmp_path / place))
    assert registry.requests == []
    assert sorted(tmp_path.iterdir()) == before


def test_two_reports_need_two_places(
    cli: Cli, listed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.iterdir())

    done = cli("mirror", "--report=r.json", f"--report={tmp_path}/r.json", listed, "h.example")

    assert_fails(done, 2, "two reports", "r.json")
    assert sorted(tmp_path.iterdir()) == before
