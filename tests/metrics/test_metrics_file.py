"""The file of `--metrics`: replaced as a whole, and never in the way of the mirror."""

from __future__ import annotations

import errno
import threading
from pathlib import Path

import pytest

from concil.fs.atomic_file import AtomicTextFile
from concil.metrics.collector import MetricsCollector
from concil.metrics.metrics_file import MetricsFile

PATIENCE = 60  # seconds


class SignallingCollector(MetricsCollector):
    """Says when it was rendered."""

    def __init__(self) -> None:
        super().__init__()
        self.renderings = threading.Semaphore(0)

    def render(self) -> bytes:
        self.renderings.release()
        return super().render()


def test_it_is_written_at_the_beginning_at_an_interval_and_at_the_end(tmp_path: Path) -> None:
    collector = SignallingCollector()
    path = tmp_path / "metrics"

    with MetricsFile(path, collector, interval=0.001):
        for _ in range(4):
            assert collector.renderings.acquire(timeout=PATIENCE)
        assert path.read_text().endswith("# EOF\n")
        collector.record_token("r.example")

    assert 'concil_tokens_total{host="r.example"} 1.0' in path.read_text()
    assert [entry.name for entry in tmp_path.iterdir()] == ["metrics"]


def test_the_end_of_a_run_is_written_at_once(tmp_path: Path) -> None:
    collector = SignallingCollector()

    with MetricsFile(tmp_path / "metrics", collector, interval=3600) as file:
        assert collector.renderings.acquire(timeout=PATIENCE)  # at the beginning
        file.write_soon()
        assert collector.renderings.acquire(timeout=PATIENCE)


def test_a_file_for_node_exporter_has_its_format(tmp_path: Path) -> None:
    path = tmp_path / "concil.prom"

    with MetricsFile(path, MetricsCollector()):
        pass

    assert "# TYPE concil_moved_bytes_total counter" in path.read_text()


@pytest.mark.parametrize("name", ["/dev/full", "missing/metrics", "."])
def test_a_path_that_cannot_be_written_is_one_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    with MetricsFile(tmp_path / name, MetricsCollector()) as file:
        file.write()

    assert len(caplog.messages) == 1
    assert caplog.messages[0].startswith("cannot write the metrics ")
    assert caplog.messages[0].endswith("; the mirror goes on")


def test_a_full_disk_keeps_the_last_file_and_is_said_once_until_it_has_room_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "metrics"
    file = MetricsFile(path, MetricsCollector())

    def fail(each: AtomicTextFile, text: str) -> None:
        raise each._write_error(OSError(errno.ENOSPC, "No space left on device"))

    for _ in range(2):
        file.write()
        before = path.read_bytes()
        with monkeypatch.context() as full:
            full.setattr(AtomicTextFile, "write", fail)
            file.write()
            file.write()
        assert path.read_bytes() == before

    assert [message.count("No space left on device") for message in caplog.messages] == [1, 1]
    assert [entry.name for entry in tmp_path.iterdir()] == ["metrics"]


def test_without_a_thread_it_is_written_at_the_beginning_and_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    collector, path = MetricsCollector(), tmp_path / "metrics"

    with MetricsFile(path, collector):
        assert path.read_text().endswith("# EOF\n")
        collector.record_token("r.example")

    assert 'concil_tokens_total{host="r.example"} 1.0' in path.read_text()
    assert "at the beginning and the end only" in caplog.text
