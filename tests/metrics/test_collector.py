"""What the metrics count, as a Prometheus reads it."""

from __future__ import annotations

import re

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from concil.errors import ConcilError, NotTried
from concil.metrics.collector import MAX_HOSTS, MetricsCollector
from concil.oci.digest import Digest
from concil.plan.registry_rules import rule_for_repository
from concil.plan.rule import NameFilter, Rule
from concil.plan.tag_filter import TagFilter
from concil.progress.events import Event, State
from concil.progress.request_observer import Exchange
from concil.transfer.image.result import ImageResult
from concil.transfer.mirror.report import MirrorItem, Outcome

APP = Rule("plan:1", "r.example/app", tag_filter=TagFilter())
ONE = Rule("plan:2", "user:hunter2@r.example/team/one:v1")
ALL = Rule("plan:3", "all.example", repository_filter=NameFilter())
RULES = (APP, ONE, ALL)
DIGEST = Digest.parse(f"sha256:{'0' * 64}")
Labels = tuple[tuple[str, str], ...]


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def collector(clock: Clock) -> MetricsCollector:
    return MetricsCollector(clock, lambda: 7)


def samples(collector: MetricsCollector, name: str) -> dict[Labels, float]:
    """Return the samples of one name, by their labels."""
    return {
        tuple(sample.labels.items()): sample.value
        for family in parse_openmetrics(collector.render().decode())  # type: ignore[no-untyped-call]
        for sample in family.samples
        if sample.name == f"concil_{name}"
    }


def value(collector: MetricsCollector, name: str, **labels: str) -> float:
    return samples(collector, name)[tuple(labels.items())]


def outcome(source: str, state: State | ConcilError) -> Outcome:
    item = MirrorItem(source, f"d.example/{source.rpartition('/')[2]}")
    if isinstance(state, ConcilError):
        return Outcome(item, error=state)
    return Outcome(item, ImageResult(item.source, item.destination, state, DIGEST))


def run(
    collector: MetricsCollector, *outcomes: Outcome, result: str = "partial", retry: bool = False
) -> None:
    collector.begin_run(RULES, is_complete=not retry)
    for each in outcomes:
        collector.record_outcome(each)
    collector.end_run(result, is_complete=not retry)


def blob(state: State, position: int, *, total: int = 100, subject: str = "blob") -> Event:
    return Event("blob", subject, "d.example/app", state, position, total)


def test_images_are_counted_by_entry_and_state(collector: MetricsCollector) -> None:
    repository = rule_for_repository(ALL, "some/thing")

    run(
        collector,
        outcome("r.example/app:v1", State.DONE),
        outcome("r.example/app:v2", State.PRESENT),
        outcome(ONE.source, ConcilError("refused")),
        outcome(f"{repository.source}:latest", NotTried("its host is down")),
    )

    assert value(collector, "images", entry="r.example/app", state="copied") == 1
    assert value(collector, "images", entry="r.example/app", state="up_to_date") == 1
    assert value(collector, "images", entry="r.example/team/one:v1", state="failed") == 1
    assert value(collector, "images", entry="all.example", state="not_tried") == 1
    assert value(collector, "runs_total", result="partial") == 1
    assert b"hunter2" not in collector.render()


def test_an_entry_has_succeeded_when_all_its_images_are_in_place(
    collector: MetricsCollector, clock: Clock
) -> None:
    collector.begin_run(RULES, is_complete=True)
    collector.record_outcome(outcome("r.example/app:v1", ConcilError("refused")))
    collector.record_listing_failure(rule_for_repository(ALL, "x").source)
    collector.end_run("partial", is_complete=True)
    assert collector.last_success() == {"r.example/team/one:v1": 1000}

    clock.now = 2000
    run(collector, outcome("r.example/app:v1", State.DONE), result="success", retry=True)

    assert collector.last_success() == {"r.example/team/one:v1": 1000, "r.example/app": 2000}
    assert value(collector, "images", entry="r.example/app", state="failed") == 0
    assert value(collector, "images", entry="r.example/app", state="copied") == 1
    assert value(collector, "retry_runs_total") == 1


@pytest.mark.parametrize("result", ["cancelled", "failed"])
def test_a_run_that_did_not_end_is_no_success(
    collector: MetricsCollector, clock: Clock, result: str
) -> None:
    run(collector, outcome("r.example/app:v1", State.DONE), result="success")
    clock.now = 2000

    run(collector, result=result)

    assert set(collector.last_success().values()) == {1000}
    assert value(collector, "images", entry="r.example/app", state="copied") == 1
    assert value(collector, "runs_total", result=result) == 1


def test_a_retry_of_another_process_knows_the_entries(collector: MetricsCollector) -> None:
    run(collector, outcome("r.example/app:v1", State.DONE), result="success", retry=True)

    assert value(collector, "images", entry="r.example/app", state="copied") == 1
    assert collector.last_success() == {}


def test_a_success_of_an_earlier_process_stays(collector: MetricsCollector) -> None:
    collector.restore({"r.example/app": 5.0, "gone": 6.0})

    run(collector, outcome("r.example/app:v1", ConcilError("refused")))

    times = samples(collector, "last_success_timestamp_seconds")
    assert times[("entry", "r.example/app"),] == 5
    assert (("entry", "gone"),) not in times


def test_bytes_that_are_lost_are_counted_twice(collector: MetricsCollector) -> None:
    for event in (
        blob(State.WAITING, 0),
        blob(State.STARTED, 0),
        blob(State.STARTED, 10),
        blob(State.MOVING, 60),
        blob(State.RETRYING, 60),
        blob(State.MOVING, 40),
        blob(State.DONE, 100),
        blob(State.MOVING, 90),
        blob(State.MOUNTED, 30, total=30, subject="other"),
        blob(State.WAITING, 0, subject="next"),
        blob(State.STARTED, 0, subject="running"),
    ):
        collector(event)

    assert value(collector, "moved_bytes_total") == 50 + 60
    assert value(collector, "resent_bytes_total") == 20
    assert value(collector, "resumed_bytes_total") == 10
    assert value(collector, "mounted_bytes_total") == 30
    assert value(collector, "blob_retries_total") == 1
    assert value(collector, "blobs_total", state="done") == 1
    assert value(collector, "queued_blobs") == value(collector, "running_blobs") == 1
    run(collector)
    assert value(collector, "queued_blobs") == value(collector, "running_blobs") == 0


def test_hosts_are_counted_by_requests_pauses_and_quota(collector: MetricsCollector) -> None:
    for status in (200, 200, 429, 599, 7, None):
        url = "https://r.example/v2/app/blobs/uploads/1?_state=secret"
        collector.record_request(Exchange("PUT", url, "r.example", status, 0.0, 0.5))
    pause = Event("host", "r.example", "", State.PAUSED, 0, None, "too many", seconds=3.0)
    collector(pause)
    collector.record_retry("r.example")
    collector.record_token("r.example")
    collector.record_quota("r.example", 97, 100)

    requests = samples(collector, "requests_total")
    assert {labels[1][1]: count for labels, count in requests.items()} == {
        "200": 2, "429": 1, "5xx": 1, "other": 1, "none": 1,
    }  # fmt: skip
    for name, expected in {
        "request_seconds_total": 3,
        "pauses_total": 1,
        "pause_seconds_total": 3,
        "request_retries_total": 1,
        "tokens_total": 1,
        "quota_remaining": 97,
        "quota_limit": 100,
    }.items():
        assert value(collector, name, host="r.example") == expected
    assert b"secret" not in collector.render()


def test_hostile_hosts_and_names_do_not_multiply_the_series(collector: MetricsCollector) -> None:
    for number in range(1000):
        name = f"h{number}.example\n# EOF"
        collector.record_request(Exchange("GET", "https://x", name, 200 + number, 0.0, 0.1))
        collector(Event("host", name, "", State.PAUSED, 0, None, seconds=1.0))
        collector.record_outcome(outcome(f"evil.example/{number}:v1", State.DONE))

    assert len(samples(collector, "pauses_total")) == MAX_HOSTS + 1
    assert len(samples(collector, "requests_total")) < MAX_HOSTS * 2
    assert value(collector, "pauses_total", host="other") == 1000 - MAX_HOSTS
    assert len(samples(collector, "image_outcomes_total")) == 1


def test_both_formats_have_the_same_samples_in_base_units(collector: MetricsCollector) -> None:
    run(collector, outcome("r.example/app:v1", State.DONE), result="success")
    collector.record_request(Exchange("GET", "https://x", "r.example", 200, 0.0, 0.1))

    families = list(parse_openmetrics(collector.render().decode()))  # type: ignore[no-untyped-call]
    text = list(parse_text(collector.render_text().decode()))

    names = {sample.name for family in families for sample in family.samples}
    assert names == {sample.name for family in text for sample in family.samples}
    assert all(family.documentation.endswith(".") for family in families)
    assert not [name for name in names if re.search("milli|minutes|kilo|_count$", name)]
    for family in families:
        suffix = "_total" if family.type == "counter" else ""
        assert {sample.name for sample in family.samples} <= {family.name + suffix}


def test_a_run_during_which_the_clock_is_set_back_lasts_no_negative_time(
    collector: MetricsCollector, clock: Clock
) -> None:
    collector.begin_run(RULES, is_complete=True)
    clock.now -= 500

    collector.end_run("success", is_complete=True)

    assert value(collector, "last_run_duration_seconds") == 0
