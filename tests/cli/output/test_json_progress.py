"""`--progress json`: whatever a program finds on standard error is an object a line."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from dataclasses import fields
from datetime import datetime
from pathlib import Path

import pytest

from concil.progress.events import Event, State
from concil.server import EmbeddedRegistry
from tests.cli.runner import PATIENCE, Cli, Program
from tests.support.faults import Fault
from tests.support.images import Image, digest_of, make_blob, make_image, put_blob, put_image
from tests.support.relay import Relay

SIZE = 3_000_000  # bytes
JSON = "--progress=json"
Line = dict[str, object]


@pytest.fixture
def link(registry: EmbeddedRegistry) -> Iterator[Relay]:
    with Relay(registry.host) as relay:
        yield relay


@pytest.fixture
def image(registry: EmbeddedRegistry) -> Image:
    image = make_image(5, (SIZE, 2000))
    put_image(registry.url, "app", "v1", image)
    return image


def lines_of(err: str) -> list[Line]:
    """Every line as an object, in the order of time."""
    found: list[Line] = [json.loads(line) for line in err.splitlines()]
    times = [datetime.fromisoformat(str(line["time"])) for line in found]
    assert times == sorted(times)
    assert all(time.utcoffset() is not None for time in times)
    return found


def events_of(lines: list[Line]) -> list[Line]:
    """The events among them; each has every field, and a position within its total."""
    events = [line for line in lines if line["kind"] != "log"]
    for event in events:
        names = [field.name for field in fields(Event) if field.name != "worker"]  # of a cluster
        assert list(event) == ["time", *names]
        assert State(str(event["state"]))
        position, total = event["position"], event["total"]
        assert isinstance(position, int)
        assert total is None or (isinstance(total, int) and 0 <= position <= total)
    return events


def last_of(events: list[Line]) -> dict[str, object]:
    """The last state of every blob."""
    return {str(e["subject"]): e["state"] for e in events if e["kind"] == "blob"}


def test_a_copy(cli_here: Cli, registry: EmbeddedRegistry, image: Image, jobs: str) -> None:
    result = cli_here("copy", jobs, JSON, f"{registry.host}/app:v1", "oci:out:app")

    events = events_of(lines_of(result.err))
    assert last_of(events) == dict.fromkeys(image.blobs, "done")
    [started, planned, ended] = [e for e in events if e["kind"] == "image"]
    assert (started["state"], planned["state"], ended["state"]) == ("started", "moving", "done")
    assert planned["total"] == ended["position"]
    assert {e["image"] for e in events if e["kind"] == "blob"} == {f"{registry.host}/app:v1"}
    assert (ended["subject"], ended["target"]) == (f"{registry.host}/app:v1", "oci:out:app")
    assert ended["position"] == sum(map(len, image.blobs.values()))


def test_push_and_pull_of_a_blob_write_events(
    cli_here: Cli, registry: EmbeddedRegistry, tmp_path: Path, jobs: str
) -> None:
    content = make_blob(1, SIZE)
    (tmp_path / "file").write_bytes(content)
    digest = digest_of(content)
    address = f"{registry.host}/blobs@{digest}"

    push = cli_here("blob", "push", jobs, JSON, "file", f"{registry.host}/blobs")
    pull = cli_here("blob", "pull", jobs, JSON, address, "-o", "copy")
    poured = cli_here("blob", "pull", jobs, JSON, address, "-o", "-")

    assert poured.raw == content
    pushed, pulled, printed = (events_of(lines_of(result.err)) for result in (push, pull, poured))
    for events, subject, target in (
        (pushed, "file", f"{registry.host}/blobs"),
        (pulled, digest, "copy"),
        (printed, digest, "-"),
    ):
        assert {(e["subject"], e["target"], e["total"]) for e in events} == {
            (subject, target, SIZE)
        }
        assert (events[0]["state"], events[-1]["state"]) == ("started", "done")
        assert events[-1]["position"] == SIZE


def test_a_blob_that_is_poured_out_shows_nothing_unless_asked(
    cli_here: Cli, registry: EmbeddedRegistry
) -> None:
    content = make_blob(2, 1000)
    digest = put_blob(registry.url, "blobs", content)

    result = cli_here("blob", "pull", f"{registry.host}/blobs@{digest}", "-o", "-")

    assert (result.raw, result.err) == (content, "")


def test_a_loss_is_an_event_and_a_line_of_the_log(
    cli_here: Cli, link: Relay, image: Image, jobs: str
) -> None:
    link.add_fault(Fault(action="rst", after=SIZE // 2, total=True))

    result = cli_here("copy", jobs, JSON, f"{link.url}/app:v1", "oci:out:app")

    assert result.code == 0
    lines = lines_of(result.err)
    [lost] = [e for e in events_of(lines) if e["state"] == "retrying"]
    assert lost["detail"]
    logged = [line for line in lines if line["kind"] == "log" and line["level"] == "warning"]
    assert any(str(lost["detail"]) in str(line["message"]) for line in logged)


@pytest.mark.parametrize(
    ("words", "code", "cause"),
    [
        (("copy", JSON, "HOST/none:v1", "oci:out:x"), 4, "404"),
        (("copy", JSON, "HOST/none:v1"), 2, "copy needs DST"),
        (("copy", "--progress", "json", "--bad", "a", "b"), 2, "--bad"),
        (("mirror", JSON, "missing", "HOST"), 2, "no such file"),
    ],
)
def test_a_failure_is_a_line_of_the_log(
    cli_here: Cli, registry: EmbeddedRegistry, words: tuple[str, ...], code: int, cause: str
) -> None:
    result = cli_here(*(word.replace("HOST", registry.host) for word in words))

    assert result.code == code
    last = lines_of(result.err)[-1]
    assert (last["kind"], last["level"]) == ("log", "error")
    assert cause.replace("HOST", registry.host) in str(last["message"])


def test_an_interrupt_is_a_line_of_the_log(
    program: Program, link: Relay, image: Image, jobs: str
) -> None:
    link.add_fault(Fault(action="stall", after=SIZE // 2, total=True))
    running = program.start("copy", jobs, JSON, f"{link.url}/app:v1", "oci:out:app")
    link.wait_for(lambda relay: relay.fired_count > 0)

    running.send_signal(signal.SIGINT)
    # The stalled read would take the whole grace.
    link.clear_faults()
    _, err = running.communicate(timeout=PATIENCE)

    assert running.returncode == 130
    last = lines_of(err.decode())[-1]
    assert (last["kind"], last["level"]) == ("log", "error")
    assert "interrupted" in str(last["message"])


def test_closed_progress_pipe_does_not_end_the_transfer(
    program: Program, registry: EmbeddedRegistry, image: Image, tmp_path: Path, jobs: str
) -> None:
    running = program.start("copy", jobs, JSON, f"{registry.host}/app:v1", "oci:out:app")
    assert running.stderr is not None
    running.stderr.close()
    assert running.stdout is not None
    with running.stdout:
        printed = running.stdout.read().decode()

    assert running.wait(PATIENCE) == 0
    assert image.digest in printed
