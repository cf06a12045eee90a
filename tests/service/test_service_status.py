"""What a service remembers of its runs and images, and what it forgets."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from concil.cli.output.mirror_page import describe_failure
from concil.errors import NotFound, NotTried
from concil.oci.manifest import Digest
from concil.progress.events import State
from concil.service import service_status
from concil.service.service_status import (
    MAX_RUNS,
    ImageStatus,
    RunKind,
    RunResult,
    ServiceStatus,
)
from concil.transfer.image.result import ImageResult
from concil.transfer.mirror.report import MirrorItem, Outcome
from tests.service.conftest import FakeClock

DIGEST = Digest.parse(f"sha256:{'0' * 64}")


@pytest.fixture
def status(clock: FakeClock) -> ServiceStatus:
    return ServiceStatus(describe_failure, clock)


def item_of(name: str) -> MirrorItem:
    return MirrorItem(f"r.example/{name}", f"m.example/{name}")


def copied(name: str, state: State = State.DONE) -> Outcome:
    item = item_of(name)
    return Outcome(item, ImageResult(item.source, item.destination, state, DIGEST))


def failed(name: str) -> Outcome:
    return Outcome(item_of(name), error=NotFound("no such tag", remedy="check the tag"))


def run(
    status: ServiceStatus,
    *outcomes: Outcome,
    kind: RunKind = RunKind.PLAN,
    result: RunResult = RunResult.DONE,
) -> None:
    status.begin_run(kind)
    for outcome in outcomes:
        status.record_outcome(outcome)
    status.end_run(result)


def images(status: ServiceStatus) -> dict[str, ImageStatus]:
    return {image.source.removeprefix("r.example/"): image for image in status.images()[0]}


def test_an_image_is_confirmed_when_the_destination_has_what_the_source_has(
    status: ServiceStatus, clock: FakeClock
) -> None:
    run(status, copied("a:1"), copied("b:1", State.PRESENT))
    began = clock.seconds
    clock.advance(100)
    run(status, failed("a:1"), copied("b:1", State.PRESENT))
    clock.advance(100)
    run(status, failed("a:1"), kind=RunKind.RETRY)
    found = images(status)

    assert (found["a:1"].confirmed, found["b:1"].confirmed) == (began, began + 100)
    assert (found["a:1"].failed_since, found["a:1"].failures) == (began + 100, 2)
    assert (found["a:1"].error, found["a:1"].remedy) == ("no such tag", "check the tag")
    run(status, copied("a:1"), kind=RunKind.RETRY)
    now = images(status)["a:1"]
    assert (now.confirmed, now.failures, now.error, now.outcome) == (began + 200, 0, "", "copied")


def test_images_that_left_the_plan_are_forgotten_after_a_whole_run_only(
    status: ServiceStatus,
) -> None:
    run(status, copied("a:1"), copied("b:1"))
    run(status, copied("a:1"), kind=RunKind.RETRY)
    run(status, copied("a:1"), result=RunResult.INTERRUPTED)
    run(status, copied("a:1"), result=RunResult.FAILED)
    assert set(images(status)) == {"a:1", "b:1"}

    run(status, copied("a:1"))

    assert set(images(status)) == {"a:1"}


def test_images_of_a_repository_that_cannot_be_listed_stay(status: ServiceStatus) -> None:
    run(status, copied("team/a:1"), copied("team/ab:1"), copied("other:1"))
    status.begin_run(RunKind.PLAN)
    status.record_failed_listing("r.example/team/a", NotFound("gone"))
    status.end_run(RunResult.DONE)
    snapshot = status.snapshot()

    assert set(images(status)) == {"team/a:1"}
    assert (snapshot.runs[0].result, snapshot.runs[0].failed) == (RunResult.FAILURES, 1)
    assert [listing.source for listing in snapshot.failed_listings] == ["r.example/team/a"]
    run(status, copied("team/a:1"))
    assert status.snapshot().failed_listings == ()


def test_a_run_counts_its_images(status: ServiceStatus, clock: FakeClock) -> None:
    status.begin_run(RunKind.PLAN)
    for outcome in (copied("a:1"), copied("b:1", State.PRESENT), failed("c:1")):
        status.record_outcome(outcome)
    status.record_outcome(Outcome(item_of("d:1"), error=NotTried("no")))
    clock.advance(12)
    found = status.end_run(RunResult.DONE)

    assert (found.copied, found.up_to_date, found.failed) == (1, 1, 2)
    assert (found.seconds, found.result) == (12, RunResult.FAILURES)
    assert images(status)["d:1"].outcome == "not_tried"


def test_memory_does_not_grow_with_the_runs(status: ServiceStatus) -> None:
    for number in range(3 * MAX_RUNS):
        names = [f"app:{number + n}" for n in range(20)]  # the tags of the plan move on
        run(status, *(copied(name) for name in names), failed("broken:1"))

    assert len(images(status)) == 21
    assert len(status._changes) == 21
    assert len(status.snapshot().runs) == MAX_RUNS


def test_there_is_a_limit_of_images(status: ServiceStatus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service_status, "MAX_IMAGES", 3)
    run(status, *(copied(f"app:{n}") for n in range(5)))

    assert len(images(status)) == 3
    assert status.snapshot().runs[0].copied == 5


def test_very_long_texts_are_cut(status: ServiceStatus) -> None:
    error = NotFound("x" * 5000, remedy="y" * 5000)
    status.begin_run(RunKind.PLAN)
    status.record_outcome(Outcome(item_of("a:1"), error=error))
    status.end_run(RunResult.FAILED, "z" * 5000)
    image = images(status)["a:1"]

    assert len(image.error) == len(image.remedy) == len(status.snapshot().runs[0].detail) == 600


def test_times_do_not_depend_on_the_clock_that_people_set(
    status: ServiceStatus, clock: FakeClock
) -> None:
    run(status, copied("a:1"))
    clock.advance(50)
    clock.wall -= 86_400
    snapshot = status.snapshot()
    confirmed = images(status)["a:1"].confirmed

    assert confirmed is not None
    assert snapshot.now - confirmed == 50
    assert status.describe_stuck() == ""
    assert status.describe_unready() == ""


def test_a_state_that_stays_is_no_change(status: ServiceStatus, clock: FakeClock) -> None:
    status.record_plan_problem("p" * 5000)
    status.record_turn(60, 30)
    before = status.snapshot()
    clock.advance(2)
    status.record_plan_problem("p" * 5000)
    status.record_turn(58, 28)

    assert status.snapshot().version == before.version
    status.record_turn(60, None)
    assert status.snapshot().version > before.version


class InterruptedClock(FakeClock):
    """Lets another thread do something when the time is read next."""

    def __init__(self) -> None:
        super().__init__()
        self.interrupt: Callable[[], object] | None = None

    def monotonic(self) -> float:
        interrupt, self.interrupt = self.interrupt, None
        if interrupt is not None:
            thread = threading.Thread(target=interrupt)
            thread.start()
            thread.join()
        return super().monotonic()


def test_a_pause_counts_although_another_thread_reports_something_meanwhile() -> None:
    clock = InterruptedClock()
    status = ServiceStatus(describe_failure, clock)
    status.begin_run(RunKind.PLAN)
    clock.interrupt = lambda: status.record_activity(100_000.0)

    status.record_activity()

    clock.advance(90_000.0)
    assert status.describe_stuck() == ""
