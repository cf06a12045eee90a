"""What is notified: each cause once, until it changes."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from concil.errors import AccessDenied, Cancelled, ConcilError, NotFound, NotTried
from concil.notify.delivery import Delivery
from concil.notify.notification import MAX_SUBJECTS, Notification, Subject
from concil.notify.notifier import MAX_QUOTA_NOTIFICATIONS, Notifier
from concil.oci.digest import Digest
from concil.plan.notify_settings import EVENTS, NotifySettings
from concil.plan.rule import Rule
from concil.progress.events import State
from concil.runtime.marks import HIDDEN
from concil.transfer.image.result import ImageResult
from concil.transfer.mirror.report import MirrorItem, Outcome
from tests.cli.test_schemas import load

ALL = NotifySettings("plan.toml:1", "https://h.example", events=frozenset(EVENTS))
DIGEST = Digest.parse(f"sha256:{'0' * 64}")
Sent = list[tuple[str, list[str]]]


class FakeDelivery(Delivery):
    """Delivers at once, or never."""

    def __init__(self) -> None:
        super().__init__({})
        self.sent: list[Notification] = []
        self.is_up = True

    def submit(
        self,
        notification: Notification,
        settings: NotifySettings,
        on_end: Callable[[bool], object],
    ) -> None:
        self.sent.append(notification)
        on_end(self.is_up)

    def take(self) -> Sent:
        """Return the events and subjects since the last call."""
        sent = [
            (each.event, [subject.cause.partition(" ")[2] for subject in each.subjects])
            for each in self.sent
        ]
        self.sent.clear()
        return sent


@pytest.fixture
def delivery() -> FakeDelivery:
    return FakeDelivery()


@pytest.fixture
def notified() -> dict[str, str]:
    return {}


@pytest.fixture
def notifier(delivery: FakeDelivery, notified: dict[str, str]) -> Notifier:
    return Notifier(delivery, notified, plan="plan.toml", destinations=["user:hunter2@d.example"])


def outcome(name: str, result: State | ConcilError) -> Outcome:
    item = MirrorItem(f"user:hunter2@s.example/{name}", f"d.example/{name}")
    if isinstance(result, ConcilError):
        return Outcome(item, error=result)
    return Outcome(item, ImageResult(item.source, item.destination, result, DIGEST))


def run(
    notifier: Notifier,
    *outcomes: Outcome,
    settings: NotifySettings | None = ALL,
    error: ConcilError | None = None,
    is_complete: bool = True,
) -> None:
    notifier.begin_run(settings)
    for each in outcomes:
        notifier.record_outcome(each)
    if error is not None:
        notifier.record_run_error(error)
    notifier.end_run(has_ended=error is None, is_complete=is_complete)


def names(*images: str) -> list[str]:
    return [f"{HIDDEN}@s.example/{name} d.example/{name}" for name in images]


def test_a_failure_is_notified_once_until_its_reason_changes_or_it_recovers(
    notifier: Notifier, delivery: FakeDelivery, notified: dict[str, str]
) -> None:
    run(notifier, outcome("a", NotFound("gone")), outcome("b", NotFound("gone")))
    assert delivery.take() == [("failure", names("a", "b"))]

    run(notifier, outcome("a", NotFound("gone, again")), outcome("b", AccessDenied("no")))
    assert delivery.take() == [("failure", names("b"))]

    run(notifier, outcome("a", State.PRESENT), is_complete=False)
    assert delivery.take() == [("recovery", names("a"))]

    run(notifier, outcome("a", State.PRESENT), outcome("b", NotTried("denied before")))
    assert delivery.take() == []
    assert len(notified) == 1

    run(notifier, outcome("a", NotFound("gone")))
    assert delivery.take() == [("failure", names("a"))]
    assert len(notified) == 1  # the plan no longer has b


def test_what_was_not_delivered_is_notified_by_the_next_run(
    notifier: Notifier, delivery: FakeDelivery
) -> None:
    delivery.is_up = False
    run(notifier, outcome("a", NotFound("gone")))
    delivery.is_up = True

    run(notifier, outcome("a", NotFound("gone")))

    assert delivery.take() == [("failure", names("a")), ("failure", names("a"))]
    run(notifier, outcome("a", NotFound("gone")))
    assert delivery.take() == []


def test_another_process_knows_what_was_notified(
    notifier: Notifier, delivery: FakeDelivery, notified: dict[str, str]
) -> None:
    run(notifier, outcome("a", NotFound("gone")))
    delivery.take()
    second = Notifier(delivery, dict(notified), plan="plan.toml", destinations=["d.example"])

    run(second, outcome("a", NotFound("gone")))
    assert delivery.take() == []
    run(second, outcome("a", State.DONE))
    assert delivery.take() == [("recovery", names("a")), ("new", names("a"))]


def test_entries_and_whole_runs_fail_and_recover(
    notifier: Notifier, delivery: FakeDelivery
) -> None:
    notifier.begin_run(ALL)
    notifier.record_listing_failure(Rule("plan.toml:1", "s.example/app"), NotFound("gone"))
    notifier.end_run(has_ended=True, is_complete=True)
    run(notifier, error=ConcilError("no cluster"))
    assert delivery.take() == [("failure", ["s.example/app"]), ("failure", [""])]

    run(notifier)

    (recovery,) = delivery.sent
    assert {subject.kind for subject in recovery.subjects} == {"entry", "run"}


def test_a_cancelled_image_is_no_failure_and_a_cancelled_run_no_recovery(
    notifier: Notifier, delivery: FakeDelivery
) -> None:
    run(notifier, error=ConcilError("no cluster"))
    delivery.take()

    notifier.begin_run(ALL)
    notifier.record_outcome(outcome("a", Cancelled("cancelled")))
    notifier.end_run(has_ended=False, is_complete=True)

    assert delivery.take() == []


def test_a_low_quota_is_notified_once_until_there_is_enough(
    notifier: Notifier, delivery: FakeDelivery
) -> None:
    notifier.begin_run(ALL)
    for remaining in (50, 10, 9, 11, 3, 100, 0):
        notifier.record_quota("docker.io", remaining, 100)

    assert [each.subjects[0].remaining for each in delivery.sent] == [10, 0]
    assert delivery.sent[0].text == "concil plan.toml: docker.io has 10 of 100 requests left"


def test_a_registry_does_not_cause_any_number_of_notifications(
    notifier: Notifier, delivery: FakeDelivery
) -> None:
    for _ in range(2):
        notifier.begin_run(ALL)
        for n in range(MAX_QUOTA_NOTIFICATIONS):
            for remaining in (0, 100, 0):
                notifier.record_quota(f"{n}.example", remaining, 100)

    assert len(delivery.sent) == 2 * MAX_QUOTA_NOTIFICATIONS


def test_only_the_events_that_the_plan_asks_for_are_sent(
    notifier: Notifier, delivery: FakeDelivery
) -> None:
    recoveries = replace(ALL, events=frozenset({"recovery"}))

    run(notifier, outcome("a", NotFound("gone")), settings=recoveries)
    notifier.record_quota("docker.io", 0, 100)
    assert delivery.take() == []
    run(notifier, outcome("a", State.DONE), settings=recoveries)
    assert delivery.take() == [("recovery", names("a"))]
    run(notifier, outcome("a", NotFound("gone")), settings=None)
    assert delivery.take() == []


def test_notifications_have_the_schema_and_no_passwords(
    notifier: Notifier, delivery: FakeDelivery
) -> None:
    run(notifier, *(outcome(str(n), NotFound("gone")) for n in range(MAX_SUBJECTS + 5)))
    run(notifier, *(outcome(str(n), State.DONE) for n in range(3)))
    notifier.record_quota("docker.io", 0, None)
    run(notifier, error=ConcilError("no cluster"))
    validator = Draft202012Validator(load("notification.schema.json"))

    documents: list[dict[str, Any]] = [_document(each) for each in delivery.sent]

    assert [each["event"] for each in documents] == [
        "failure", "recovery", "new", "quota", "failure",
    ]  # fmt: skip
    assert [problem.message for each in documents for problem in validator.iter_errors(each)] == []
    assert (documents[0]["count"], len(documents[0]["subjects"])) == (105, 100)
    assert "hunter2" not in str(documents)
    assert Subject("image", "a").to_json() == {"kind": "image", "source": "a"}


def _document(notification: Notification) -> dict[str, Any]:

    document: dict[str, Any] = json.loads(notification.to_json())
    return document
