"""What a timeline knows of a run after its events."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from concil.progress.events import Event, State
from concil.report.html.records import MAX_INTERRUPTIONS
from concil.report.html.sampling import LargestItems, QueueDepth, Throughput
from concil.report.timeline import Timeline
from tests.report.html.recorded_runs import HOST, MIB, RESET, RecordedRun, digest, read_page_data


@pytest.fixture
def recorded_run() -> RecordedRun:
    return RecordedRun()


def only(columns: dict[str, Any]) -> dict[str, Any]:
    """The only row of columns."""
    return {
        name: (value[0] if isinstance(value, list) else value) for name, value in columns.items()
    }


def test_a_transfer_has_its_worker_and_its_times(recorded_run: RecordedRun) -> None:
    recorded_run.emit(1, "concil-image-3", Event("blob", digest("a"), HOST, State.WAITING, 0, 1000))
    recorded_run.emit(
        3, "concil-worker-5", Event("blob", digest("a"), HOST, State.STARTED, 0, 1000)
    )
    recorded_run.emit(3, "concil-worker-5", Event("blob", digest("a"), HOST, State.MOVING, 0, 1000))
    recorded_run.emit(
        7, "concil-worker-5", Event("blob", digest("a"), HOST, State.DONE, 1000, 1000)
    )

    data = recorded_run.data(9)
    one = only(data["transfers"])
    assert (one["queued"], one["started"], one["ended"]) == (1000, 3000, 7000)
    assert data["lanes"][one["lane"]] == "worker-5"
    assert (one["digest"], data["strings"][one["target"]]) == (digest("a"), HOST)
    assert (one["state"], one["position"], one["total"]) == ("done", 1000, 1000)
    assert data["milliseconds"] == 9000
    assert sum(data["throughput"]["bytes"]) == pytest.approx(1000, rel=0.01)


@pytest.mark.parametrize("state", [State.MOUNTED, State.PRESENT])
def test_present_blob_has_only_an_end_time(recorded_run: RecordedRun, state: State) -> None:
    recorded_run.blob(1, 0, "a", State.WAITING)
    recorded_run.blob(2, 4, "a", state, 1000)

    data = recorded_run.data(3)
    one = only(data["transfers"])
    assert (one["state"], one["started"], one["ended"]) == (state, None, 2000)
    assert data["lanes"][one["lane"]] == "worker-4"
    assert sum(data["throughput"]["bytes"]) == pytest.approx(0)
    assert data["totals"]["bytes"][state] == 1000


def test_a_loss_lasts_until_bytes_move_again(recorded_run: RecordedRun) -> None:
    recorded_run.blob(0, 0, "a", State.STARTED)
    recorded_run.blob(1, 0, "a", State.MOVING, 0)
    recorded_run.blob(2, 0, "a", State.RETRYING, 400, 1000, "first")
    recorded_run.blob(5, 0, "a", State.MOVING, 300)
    recorded_run.blob(6, 0, "a", State.RETRYING, 500, 1000, "second")
    recorded_run.blob(9, 0, "a", State.FAILED, 500, 1000, "gave up")

    data = recorded_run.data(10)
    one = only(data["transfers"])
    texts = data["strings"]
    losses = [(at, until, texts[why]) for _, at, until, why in one["interruptions"]["0"]]
    assert losses == [(2000, 5000, "first"), (6000, 9000, "second")]
    assert (one["retries"], data["totals"]["interruptions"]) == (2, 2)
    assert (one["state"], texts[one["detail"]["0"]]) == ("failed", "gave up")
    # 400 before the first loss, and from 300 to 500 after it.
    assert sum(data["throughput"]["bytes"]) == pytest.approx(600, rel=0.01)


def test_many_losses_are_counted_and_the_first_are_kept(recorded_run: RecordedRun) -> None:
    recorded_run.blob(0, 0, "a", State.STARTED)
    for n in range(100):
        recorded_run.blob(n, 0, "a", State.RETRYING, 0, 1000, RESET)

    one = only(recorded_run.data(100)["transfers"])
    assert one["retries"] == 100
    assert len(one["interruptions"]["0"]) == MAX_INTERRUPTIONS


def test_workers_that_help_are_named(recorded_run: RecordedRun) -> None:
    recorded_run.blob(0, 0, "a", State.STARTED)
    recorded_run.blob(1, 0, "a", State.MOVING, 0)
    recorded_run.blob(2, 7, "a", State.MOVING, 100)
    recorded_run.blob(3, 0, "a", State.MOVING, 200)
    recorded_run.blob(4, 7, "a", State.MOVING, 300)
    recorded_run.blob(5, 7, "a", State.DONE, 1000)

    data = recorded_run.data(6)
    one = only(data["transfers"])
    assert data["lanes"][one["lane"]] == "worker-0"
    [[lane, first, last]] = one["helpers"]["0"]
    assert (data["lanes"][lane], first, last) == ("worker-7", 2000, 4000)


def test_what_an_earlier_run_brought_is_no_throughput(recorded_run: RecordedRun) -> None:
    recorded_run.blob(0, 0, "a", State.STARTED)
    recorded_run.blob(0, 0, "a", State.STARTED, 700)
    recorded_run.blob(1, 0, "a", State.MOVING, 800)
    recorded_run.blob(2, 0, "a", State.DONE, 1000)

    data = recorded_run.data(3)
    assert sum(data["throughput"]["bytes"]) == pytest.approx(300, rel=0.01)
    one = only(data["transfers"])
    assert (one["resumeOffset"], one["started"]) == (700, 0)


def test_what_has_not_ended_is_shown_as_it_stands(recorded_run: RecordedRun) -> None:
    recorded_run.blob(0, 0, "a", State.WAITING)
    recorded_run.blob(0, 0, "b", State.WAITING)
    recorded_run.blob(1, 0, "b", State.STARTED)
    recorded_run.blob(2, 0, "b", State.MOVING, 10)
    recorded_run.image(0, "app:v1", State.STARTED)

    data = recorded_run.data(3, complete=False)
    transfers = data["transfers"]
    assert transfers["state"] == ["waiting", "moving"]
    assert transfers["ended"] == [None, None]
    assert transfers["lane"][0] == -1
    assert data["images"]["state"] == ["started"]
    assert data["complete"] is False


def test_what_an_interrupt_ends_is_unfinished_and_no_failure(recorded_run: RecordedRun) -> None:
    recorded_run.image(0, "app:v1", State.STARTED)
    recorded_run.blob(1, 0, "a", State.STARTED)
    recorded_run.blob(1, 0, "b", State.WAITING)
    recorded_run.blob(2, 1, "c", State.FAILED, 0, 1000, "404")
    recorded_run.timeline.interrupt()
    recorded_run.blob(3, 0, "a", State.FAILED, 10, 1000, "cancelled")
    recorded_run.blob(3, 0, "b", State.FAILED, 0, 1000, "cancelled")
    recorded_run.image(3, "app:v1", State.FAILED, 0, "cancelled")

    data = recorded_run.data(4, complete=False)
    transfers = data["transfers"]
    assert dict(zip(transfers["digest"], transfers["state"], strict=True)) == {
        digest("a"): "started",
        digest("b"): "waiting",
        digest("c"): "failed",
    }
    assert data["images"]["state"] == ["started"]
    assert (data["totals"]["blobs"]["failed"], data["totals"]["images"]["failed"]) == (1, 0)


def test_a_blob_that_is_moved_twice_is_two_transfers(recorded_run: RecordedRun) -> None:
    for at in (0, 10):
        recorded_run.blob(at, 0, "a", State.STARTED)
        recorded_run.blob(at + 1, 0, "a", State.DONE, 1000)

    assert recorded_run.data(20)["transfers"]["started"] == [0, 10_000]


def test_images_have_their_outcome(recorded_run: RecordedRun) -> None:
    recorded_run.image(0, "a:1", State.STARTED)
    recorded_run.image(2, "a:1", State.DONE, 500)
    recorded_run.image(3, "b:1", State.PRESENT)
    recorded_run.image(4, "c:1", State.FAILED, 0, "404 not there")
    with recorded_run._at(5, "main"):
        recorded_run.timeline.add_failure("quay.io/d", "no list")
        recorded_run.timeline.set_expected_images(9)

    data = recorded_run.data(6, title="of a test")
    images = data["images"]
    assert images["source"] == ["quay.io/a:1", "quay.io/b:1", "quay.io/c:1", "quay.io/d"]
    assert images["state"] == ["done", "present", "failed", "failed"]
    assert images["started"] == [0, None, None, None]
    assert images["sent"] == [500, 0, 0, 0]
    assert {n: data["strings"][why] for n, why in images["detail"].items()} == {
        "2": "404 not there",
        "3": "no list",
    }
    assert data["totals"]["images"] == {
        "done": 1,
        "present": 1,
        "mounted": 0,
        "failed": 2,
        "cancelled": 0,
    }
    assert (data["totals"]["expectedImages"], data["title"]) == (9, "of a test")


def test_several_destinations_have_a_line_each(recorded_run: RecordedRun) -> None:
    for target, state in (
        (f"{HOST}/a:1", State.DONE),
        ("oci:/srv/base:a:1", State.FAILED),
        (f"{HOST}/b:1", State.PRESENT),
    ):
        sent = 500 if state is State.DONE else 0
        recorded_run.emit(1, "main", Event("image", "quay.io/a:1", target, state, sent, None, ""))

    assert recorded_run.data(2)["totals"]["destinations"] == [
        {"name": "oci:/srv/base", "done": 0, "present": 0, "failed": 1, "bytes": 0},
        {"name": "registry.example:5000", "done": 1, "present": 1, "failed": 0, "bytes": 500},
    ]


def test_a_single_destination_has_no_line(recorded_run: RecordedRun) -> None:
    recorded_run.image(0, "a:1", State.DONE)

    assert recorded_run.data(1)["totals"]["destinations"] == []


def test_of_too_many_transfers_the_failed_and_slowest_are_kept() -> None:
    recorded_run = RecordedRun(most=4)
    for n in range(100):
        name = f"{n:02x}"
        recorded_run.blob(n, 0, name, State.STARTED)
        if n == 20:
            recorded_run.blob(n, 0, name, State.RETRYING, 0, 1000, RESET)
        state = State.FAILED if n == 10 else State.DONE
        recorded_run.blob(n + (0.9 if n in {30, 40} else 0.1), 0, name, state, 1000)

    data = recorded_run.data(200)
    assert data["transfers"]["digest"] == [digest(f"{n:02x}") for n in (10, 20, 30, 40)]
    totals = data["totals"]
    assert (totals["blobs"]["done"], totals["blobs"]["failed"]) == (99, 1)
    assert totals["droppedTransfers"] == 96
    assert totals["bytes"]["done"] == 99_000


def test_long_texts_are_truncated(recorded_run: RecordedRun) -> None:
    recorded_run.image(0, "a:1", State.FAILED, 0, "x" * 100_000)

    assert len(recorded_run.page(1)) < 100_000


def test_any_thread_may_send_events() -> None:
    timeline = Timeline()

    def tell(number: int) -> None:
        for n in range(200):
            subject = f"{number}-{n}"
            for state in (State.WAITING, State.STARTED, State.MOVING, State.DONE):
                timeline(Event("blob", subject, "t", state, 1, 1))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(tell, range(8)))

    data = read_page_data(timeline.page())
    assert data["totals"]["blobs"]["done"] == 1600
    assert len(data["lanes"]) <= 8
    assert threading.current_thread().name not in data["lanes"]


def test_kept_items_are_the_heaviest_in_the_order_in_which_they_came() -> None:
    kept: LargestItems[str] = LargestItems(3)
    for item, weight in (("a", 1), ("b", 5), ("c", 1), ("d", 0), ("e", 7)):
        kept.add(item, weight)

    assert kept.items == ["a", "b", "e"]
    assert (kept.total_count, kept.dropped_count) == (5, 2)


def test_throughput_loses_no_byte_however_long_the_run() -> None:
    moved = Throughput()
    for second in range(0, 100_000, 50):
        moved.add(second, second + 75.5, MIB)

    assert sum(moved.buckets) == pytest.approx(2000 * MIB)
    assert len(moved.buckets) <= 1024
    assert moved.bucket_width * len(moved.buckets) >= 100_000


def test_throughput_is_spread_over_the_time_it_took() -> None:
    moved = Throughput()
    moved.add(0.1, 0.3, 400)

    assert moved.buckets[:6] == pytest.approx([0, 0, 100, 100, 100, 100])


def test_depth_keeps_the_peaks() -> None:
    depth = QueueDepth()
    for at in range(1000):
        depth.add(at, 3)
        depth.add(at + 0.5, -2)

    assert len(depth.buckets) <= 1024
    assert depth.buckets[-1] >= 1000
    assert depth.buckets == sorted(depth.buckets)


def test_a_live_timeline_says_what_has_changed_and_what_it_no_longer_keeps() -> None:
    timeline = Timeline(2, is_live=True)

    def blob(name: str, state: State, position: int = 0) -> None:
        timeline(Event("blob", digest(name), HOST, state, position, 1000))

    for name in "ab":
        blob(name, State.STARTED)
    document, version = timeline.live_document("")
    for name in "ab":
        blob(name, State.DONE, 1000)
    for name in "cd":
        blob(name, State.PRESENT, 1000)
    changes = timeline.changes_since(version, 100)

    assert document["transferNumbers"] == [1, 2]
    assert changes is not None
    assert changes.document["transferNumbers"] == [1, 2]
    assert changes.removed == [4, 3]  # what had to be transferred is kept
    nothing = timeline.changes_since(changes.version, 100)
    assert nothing is not None
    assert (nothing.document["transferNumbers"], nothing.removed) == ([], [])
    assert not changes.document["complete"]
    timeline.stop()
    assert timeline.live_document("")[0]["complete"]
    assert timeline.changes_since(changes.version + 100, 100) is None  # of another timeline
