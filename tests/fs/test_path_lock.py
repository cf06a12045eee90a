"""The lock beside a file that is read, changed and replaced."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from concil.fs import path_lock
from concil.fs.file_lock import create_temporary, remove_stale, remove_unlocked
from concil.fs.path_lock import PathLock

WAIT = 30  # seconds until a test that hangs has failed
# Holds the lock, says so, and waits until it is killed.
CHILD = """
import sys
from pathlib import Path
from concil.fs.path_lock import PathLock

lock = PathLock(Path(sys.argv[1]))
assert lock.acquire(0)
print("ready", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def final(tmp_path: Path) -> Path:
    return tmp_path / "images.tar"


def lock_file(final: Path) -> Path:
    return final.with_name(f".{final.name}.lock")


def test_second_holder_waits_and_no_file_remains(final: Path) -> None:
    first, second = PathLock(final), PathLock(final)

    assert first.acquire(0)
    assert lock_file(final).exists()
    assert not second.acquire(0)
    first.release()
    first.release()
    assert second.acquire(0)
    second.release()

    assert list(final.parent.iterdir()) == []


def test_changes_of_many_threads_are_all_kept(final: Path) -> None:
    """Each makes and removes the lock file while the others wait for it."""
    final.write_text("0")

    def add(_number: int) -> None:
        lock = PathLock(final)
        assert lock.acquire(WAIT)
        count = int(final.read_text())
        temporary, path = create_temporary(final)
        os.write(temporary, str(count + 1).encode())
        path.replace(final)
        os.close(temporary)
        lock.release()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(add, range(200)))

    assert final.read_text() == "200"
    assert list(final.parent.iterdir()) == [final]


def test_a_killed_holder_releases_it_and_the_next_one_sweeps_up(final: Path) -> None:
    command = [sys.executable, "-c", CHILD, str(final)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"ready\n"
        assert not PathLock(final).acquire(0)
        PathLock(final).remove_stale()
        assert lock_file(final).exists()  # somebody holds it
        child.kill()
        child.wait()

    lock = PathLock(final)
    assert lock.acquire(0)
    lock.release()

    assert list(final.parent.iterdir()) == []


def test_a_stale_lock_file_can_be_removed_without_holding_it(final: Path) -> None:
    lock_file(final).touch()

    PathLock(final).remove_stale()

    assert list(final.parent.iterdir()) == []


def test_waiting_logs_one_line_and_can_be_cancelled(
    final: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(path_lock, "_NOTICE_DELAY", 0.0)
    told, cancel = threading.Event(), threading.Event()

    class Told(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            told.set()

    handler = Told()
    path_lock.logger.addHandler(handler)
    holder, waiting = PathLock(final), PathLock(final)
    assert holder.acquire(0)
    with ThreadPoolExecutor(1) as pool:
        acquired = pool.submit(waiting.acquire, WAIT, cancel)
        assert told.wait(WAIT)
        cancel.set()
        assert not acquired.result(WAIT)
    path_lock.logger.removeHandler(handler)
    holder.release()

    lines = [record.getMessage() for record in caplog.records]
    assert lines == [f"waiting for another process that writes '{final}'"]


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP])
def test_file_system_without_locks_logs_a_warning(
    final: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, number: int
) -> None:
    def refuse(descriptor: int, operation: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    lock = PathLock(final)

    assert lock.acquire(0)
    lock.release()

    assert "does not support locks" in caplog.text
    assert list(final.parent.iterdir()) == []


def test_what_is_in_the_place_of_the_lock_file_is_not_followed(final: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    lock_file(final).symlink_to(elsewhere)
    with pytest.raises(OSError, match="Too many levels"):
        PathLock(final).acquire(0)
    assert not elsewhere.exists()

    lock_file(final).unlink()
    os.mkfifo(lock_file(final))
    with pytest.raises(OSError, match="not a regular file"):
        PathLock(final).acquire(0)


def test_a_name_that_was_given_away_is_not_removed(
    final: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file is locked only after its holder has removed it, and somebody made another."""
    path = lock_file(final)
    path.touch()
    flock = fcntl.flock

    def late(descriptor: int, operation: int) -> None:
        path.unlink()
        path.write_text("another's")
        flock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", late)
    remove_unlocked(path)

    assert path.read_text() == "another's"


def test_temporary_file_that_was_removed_as_stale_is_created_again(
    final: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flock, taken = fcntl.flock, []

    def late(descriptor: int, operation: int) -> None:
        monkeypatch.setattr(fcntl, "flock", flock)
        taken.append(remove_stale(final, "[0-9a-f]{16}"))
        flock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", late)
    descriptor, path = create_temporary(final)

    assert taken == [False]
    assert path.exists()
    assert remove_stale(final, "[0-9a-f]{16}")
    os.close(descriptor)
    assert not remove_stale(final, "[0-9a-f]{16}")
    assert list(final.parent.iterdir()) == []
