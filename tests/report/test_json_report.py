"""The JSON report of a mirror: every image, whatever became of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from concil.errors import NotFound, NotTried, StoreError
from concil.oci.descriptor import Descriptor
from concil.oci.manifest import Digest
from concil.plan.report_schema import SCHEMA_VERSION
from concil.progress.events import State
from concil.report.json_report import JSONReport
from concil.transfer.blob.transfer import BlobResult
from concil.transfer.image.result import ImageResult
from concil.transfer.mirror.report import MirrorItem, Outcome

DIGEST = Digest.from_bytes(b"manifest")
ITEM = MirrorItem("http://user:secret@q.example/a:1", "h.example/a:1")


NOTES = ("1 foreign layer is left out",)


def landed(state: State) -> BlobResult:
    return BlobResult(Descriptor("x", DIGEST, 100), "h.example/a", "a", state)


def result(state: State, *blobs: BlobResult) -> ImageResult:
    return ImageResult(
        "q.example/a:1", "h.example/a:1", state, DIGEST, blobs, 2, 1.23456, NOTES, 3, 1
    )


def test_every_outcome_is_an_entry(tmp_path: Path) -> None:
    blobs = [landed(state) for state in (State.DONE, State.DONE, State.MOUNTED, State.PRESENT)]
    with JSONReport(tmp_path / "report.json") as report:
        report.add(Outcome(ITEM, result(State.DONE, *blobs)))
        report.add(Outcome(ITEM, result(State.PRESENT)))
        report.add(Outcome(ITEM, error=NotFound("q.example/a:1 is not there")))
        report.add(Outcome(ITEM, error=NotTried("401 for h.example")))
        report.add_listing_failure("http://user:secret@q.example/b", NotFound("gone"))

    text = (tmp_path / "report.json").read_text()
    document = json.loads(text)
    copied, present, failed, not_tried, unlisted = document["images"]
    assert copied == {
        "source": "http://q.example/a:1",
        "target": "h.example/a:1",
        "outcome": "copied",
        "digest": str(DIGEST),
        "bytes_sent": 200,
        "blobs": {"sent": 2, "mounted": 1, "present": 1},
        "blob_digests": [str(DIGEST)],
        "manifests": 2,
        "referrers": 3,
        "skipped_foreign_layers": 1,
        "seconds": 1.235,
        "notes": ["1 foreign layer is left out"],
    }
    assert (present["outcome"], present["bytes_sent"]) == ("present", 0)
    assert failed["outcome"] == "failed"
    assert (failed["error"], failed["error_type"]) == ("q.example/a:1 is not there", "NotFound")
    assert (not_tried["outcome"], not_tried["error"]) == ("not_tried", "401 for h.example")
    assert (unlisted["source"], unlisted["error"]) == ("http://q.example/b", "gone")
    assert document["summary"] == {
        "copied": 1,
        "present": 1,
        "failed": 2,
        "not_tried": 1,
        "bytes_sent": 200,
        "complete": True,
    }
    assert document["schema_version"] == SCHEMA_VERSION
    assert document["started"] <= document["ended"]
    assert "secret" not in text


def test_an_interrupted_mirror_has_a_report_too(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    path.write_text("of yesterday")
    report = JSONReport(path)
    report.add(Outcome(ITEM, result(State.PRESENT)))
    assert path.read_text() == "of yesterday"
    report.__exit__(KeyboardInterrupt, KeyboardInterrupt(), None)

    document = json.loads(path.read_text())
    assert document["summary"]["complete"] is False
    assert len(document["images"]) == 1
    assert [each.name for each in tmp_path.iterdir()] == ["report.json"]


def test_an_empty_mirror_has_an_empty_report(tmp_path: Path) -> None:
    with JSONReport(tmp_path / "report.json"):
        pass

    assert json.loads((tmp_path / "report.json").read_text())["images"] == []


@pytest.mark.parametrize("name", ["missing/report.json", ".", "x" * 300])
def test_a_place_that_cannot_be_written_to_is_told_at_once(tmp_path: Path, name: str) -> None:
    with pytest.raises(StoreError, match="cannot write the report"):
        JSONReport(tmp_path / name)

    assert list(tmp_path.iterdir()) == []


def test_a_pipe_or_device_stays_what_it_is(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")

    with pytest.raises(StoreError, match="not a regular file"):
        JSONReport(tmp_path / "pipe")

    assert (tmp_path / "pipe").is_fifo()


CHILD = """
import sys
from pathlib import Path
from concil.plan.report_schema import SCHEMA_VERSION
from concil.report.json_report import JSONReport

report = JSONReport(Path(sys.argv[1]))
print("ready", flush=True)
sys.stdin.read()
"""


def test_what_a_killed_process_left_is_removed_by_the_next_report(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    other = tmp_path / ".report.json.notes"
    other.write_text("of somebody else")
    command = [sys.executable, "-c", CHILD, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"ready\n"
        (theirs,) = set(tmp_path.iterdir()) - {other}

        JSONReport(path).discard()
        assert theirs.exists()  # somebody is at it
        child.kill()
        child.wait()

    JSONReport(path).close()

    assert set(tmp_path.iterdir()) == {path, other}
