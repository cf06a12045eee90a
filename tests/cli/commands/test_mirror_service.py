"""`concil mirror --every`: it runs until it is stopped, whatever happens to its plan."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from concil.server import EmbeddedRegistry
from concil.service.run_lock import plan_lock
from concil.transfer.journal import Journal
from tests.cli.runner import Cli, Program, assert_fails
from tests.cli.service_program import service
from tests.support.images import Image, assert_same_image, make_image, put_image

IMAGE = make_image(1, (3000,))
OTHER = make_image(2, (3000,))


@pytest.fixture
def plan(tmp_path: Path, registry: EmbeddedRegistry) -> Path:
    put_image(registry.url, "app", "v1", IMAGE)
    path = tmp_path / "list"
    path.write_text(f"{registry.host}/app:v1\n")
    return path


@pytest.fixture
def target(registry: EmbeddedRegistry) -> str:
    return f"{registry.host}/mirror"


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def replace_text(path: Path, text: str) -> None:
    """Replace a file as a whole: a service that reads it meanwhile must not find it empty."""
    new = path.with_name(f"{path.name}.new")
    new.write_text(text)
    new.replace(path)


def is_mirrored(registry: EmbeddedRegistry, tag: str, image: Image) -> None:
    assert_same_image(registry.url, "mirror/app", tag, image)


pytestmark = pytest.mark.process


def test_it_runs_again_and_copies_what_has_changed(
    program: Program, registry: EmbeddedRegistry, plan: Path, target: str
) -> None:
    with service(program, plan, target, "--every=1s", "--jitter=0s") as running:
        running.wait_for("1 image: 1 copied")
        put_image(registry.url, "app", "v1", OTHER)
        running.wait_for("1 image: 1 copied")
        code = running.stop()

    assert code == 0
    assert "concil: stopped after " in running.lines[-1]
    is_mirrored(registry, "v1", OTHER)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_while_it_waits(
    program: Program, plan: Path, target: str, number: signal.Signals
) -> None:
    with service(program, plan, target, "--every=1h") as running:
        running.wait_for("concil: next run at ")
        code = running.stop(number)

    assert code == 0
    assert "concil: stopped after 1 run\n" in running.lines


def test_a_changed_plan_is_used_by_the_next_run_and_a_broken_one_is_not(
    program: Program, registry: EmbeddedRegistry, plan: Path, target: str
) -> None:
    put_image(registry.url, "app", "v2", OTHER)
    with service(program, plan, target, "--every=1s", "--jitter=0s") as running:
        running.wait_for("1 image: 1 copied")
        replace_text(plan, "no reference\n")
        running.wait_for("the last good one goes on")
        running.wait_for("1 image: 0 copied, 1 up to date")
        replace_text(plan, f"{registry.host}/app:v1\n{registry.host}/app:v2\n")
        running.wait_for("has changed and was read again")
        running.wait_for("2 images: 1 copied, 1 up to date")
        plan.unlink()
        line = running.wait_for("the last good one goes on")
        running.wait_for("2 images: 0 copied, 2 up to date")
        assert running.stop() == 0

    assert "no such file" in line
    is_mirrored(registry, "v2", OTHER)


def test_sighup_reads_the_plan_again(
    program: Program, registry: EmbeddedRegistry, plan: Path, target: str
) -> None:
    with service(program, plan, target, "--every=1h") as running:
        running.wait_for("concil: next run at ")
        running.send(signal.SIGHUP)
        replace_text(plan, f"{registry.host}/app:v1\n# a comment\n{registry.host}/app:v2\n")
        running.wait_for("has changed and was read again")
        assert running.stop() == 0


def test_a_failed_image_is_retried_before_the_next_run(
    program: Program, registry: EmbeddedRegistry, plan: Path, target: str, tmp_path: Path
) -> None:
    plan.write_text(f"{registry.host}/app:v1\n{registry.host}/app:late\n")
    report = tmp_path / "report.json"
    with service(program, plan, target, "--every=1h", "--report", report) as running:
        line = running.wait_for("2 images: 1 copied, 0 up to date, 1 failed")
        running.wait_for("1 failed image before")
        before = report.read_bytes()
        registry.clear_requests()
        put_image(registry.url, "app", "late", OTHER)
        running.wait_for("1 image: 1 copied")
        assert running.stop() == 0

    assert "1 failed" in line
    is_mirrored(registry, "late", OTHER)
    assert not [each for each in registry.requests if each.path == "/v2/app/manifests/v1"]
    assert report.read_bytes() == before


def test_a_failed_image_that_left_the_plan_is_not_retried(
    program: Program, registry: EmbeddedRegistry, plan: Path, target: str
) -> None:
    good = plan.read_text()
    plan.write_text(f"{good}{registry.host}/app:gone\n")
    with service(program, plan, target, "--every=3s", "--jitter=0s") as running:
        running.wait_for("1 failed image before")
        replace_text(plan, good)
        running.wait_for("has changed and was read again")
        before = len(running.lines)
        running.wait_for("1 image: 0 copied, 1 up to date")
        assert running.stop() == 0

    assert "there are no images" not in "".join(running.lines)
    assert len(running.lines) - before < 10  # no retry after the other


def test_two_services_never_run_one_plan_at_once(
    program: Program, registry: EmbeddedRegistry, plan: Path, target: str
) -> None:

    lock = plan_lock(Journal.default_path(), str(plan), target)
    assert lock.acquire(0)
    try:
        with service(program, plan, target, "--every=1s", "--jitter=0s") as running:
            running.wait_for("another process mirrors this plan: this run is left out")
            lock.release()
            running.wait_for("1 image: 1 copied")
            assert running.stop() == 0
    finally:
        lock.release()


def test_a_registry_that_is_away_does_not_end_it(
    program: Program, registry: EmbeddedRegistry, plan: Path, tmp_path: Path
) -> None:
    with EmbeddedRegistry(tmp_path / "other") as other:
        target = f"{other.host}/mirror"
    with service(program, plan, target, "--every=1s", "--jitter=0s", "--retry=1") as running:
        running.wait_for("1 failed")
        running.wait_for("1 failed")
        assert running.stop() == 0


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--every=0s"], "not between 1 second and 366 days"),
        (["--every=soon"], "not a duration: 'soon'"),
        (["--cron=61 * * * *"], "not a cron line: '61 * * * *'"),
        (["--jitter=5s"], "--jitter delays the runs of a schedule, and there is none"),
        (["--every=1m", "--cron=* * * * *"], "exclude each other"),
        (["--every=1m", "--dry-run"], "--dry-run is for a single run"),
        (["--every=1m", "--fail-fast"], "--fail-fast is for a single run"),
        (["--every=1m", "--retry-failed=x"], "--retry-failed is for a single run"),
    ],
)
def test_options_that_make_no_sense_are_refused(
    cli: Cli, plan: Path, target: str, words: list[str], expected: str
) -> None:
    assert_fails(cli("mirror", plan, target, *words), 2, expected)


def test_standard_input_is_no_plan_of_a_service(cli: Cli, target: str) -> None:
    assert_fails(cli("mirror", "-", target, "--every=1m"), 2, "can be read only once")


def test_a_broken_plan_at_the_beginning_is_an_error(cli: Cli, plan: Path, target: str) -> None:
    plan.write_text("no reference\n")

    assert_fails(cli("mirror", plan, target, "--every=1m"), 2, "not a reference: 'no reference'")
