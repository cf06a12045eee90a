"""Who owns a row is told by a lock: it counts in every container, and ends with its holder."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from concil.fs.owner_lock import OwnerLock, is_alive
from concil.fs.resume_state import WriterState
from concil.transfer.journal import Journal

pytestmark = pytest.mark.process

STATE = WriterState("http://registry/secret", 10, 4, (), "12:ab")
NAMESPACE = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc")
HOLD = (
    "import sys\n"
    "from pathlib import Path\n"
    "from concil.transfer.journal import Journal\n"
    "from concil.fs.resume_state import WriterState\n"
    "journal = Journal(Path(sys.argv[1]))\n"
    "entry = journal.claim_transfer('place', 'blob', 20)\n"
    "entry.save(WriterState('http://registry/secret', 10, 4))\n"
    "print('held', flush=True)\n"
    "sys.stdin.read()\n"
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "journal.sqlite"


@contextmanager
def held(path: Path, *before: str) -> Iterator[subprocess.Popen[str]]:
    """Let another process hold an entry for the length of a block."""
    child = subprocess.Popen(
        [*before, sys.executable, "-c", HOLD, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with child:
        try:
            assert child.stdout is not None
            assert child.stdout.readline() == "held\n"
            yield child
        finally:
            child.kill()


def left_beside(path: Path) -> list[str]:
    return sorted(one.name for one in path.parent.iterdir() if one.name.endswith(".owner"))


def test_a_row_is_its_owners_until_the_owner_is_killed(path: Path) -> None:
    with closing(Journal(path)) as journal:
        with held(path) as child:
            assert [one.is_running for one in journal.list_unfinished()] == [True]
            assert journal.claim_transfer("place", "blob", 20).state is None
            child.send_signal(signal.SIGKILL)
            child.wait(60)

        assert [one.is_running for one in journal.list_unfinished()] == [False]
        assert journal.claim_transfer("place", "blob", 20).state is not None


def can_make_namespaces() -> bool:
    if shutil.which("unshare") is None:
        return False
    return subprocess.run([*NAMESPACE, "true"], check=False, capture_output=True).returncode == 0


@pytest.mark.skipif(not can_make_namespaces(), reason="no right to make pid namespaces")
def test_a_row_of_another_container_is_left_alone(path: Path) -> None:
    """Both see themselves as process 1, or do not see the other at all."""
    ask = (
        "import sys\n"
        "from pathlib import Path\n"
        "from concil.transfer.journal import Journal\n"
        "journal = Journal(Path(sys.argv[1]))\n"
        "print([one.is_running for one in journal.list_unfinished()])\n"
        "print(journal.claim(1), journal.claim_transfer('place', 'blob', 20).state)\n"
    )

    def answer(*before: str) -> str:
        argv = [*before, sys.executable, "-c", ask, str(path)]
        return subprocess.run(argv, check=True, timeout=60, capture_output=True, text=True).stdout

    with held(path, *NAMESPACE):
        answers = [answer(), answer(*NAMESPACE)]

    assert answers == ["[True]\nFalse None\n"] * 2


def test_two_journals_of_one_process_are_two_owners(path: Path) -> None:
    with closing(Journal(path)) as first, closing(Journal(path)) as second:
        first.claim_transfer("place", "blob", 20).save(STATE)
        assert second.claim_transfer("place", "blob", 20).state is None

        first.close()  # the engine is closed; the program goes on

        assert second.claim_transfer("place", "blob", 20).state == STATE


def test_a_row_is_taken_by_one_of_those_who_want_it(path: Path) -> None:
    with closing(Journal(path)) as first, closing(Journal(path)) as second:
        entry = first.claim_transfer("place", "blob", 20)
        entry.save(STATE)
        (one,) = first.list_unfinished()
        assert not second.claim(one.row_id)  # it is under way
        entry.release()

        assert [second.claim(one.row_id), first.claim(one.row_id)] == [True, False]
        assert first.claim_transfer("place", "blob", 20).state is None


@pytest.mark.parametrize("owner", ["", "1:2", "nonsense", "lock:../../x", "4711", ":::"])
def test_rows_of_older_journals_and_invalid_owners_have_no_owner(path: Path, owner: str) -> None:
    with closing(Journal(path)) as journal:
        journal.claim_transfer("place", "blob", 20).save(STATE)
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("UPDATE transfers SET owner = ?", (owner,))

    with closing(Journal(path)) as journal:
        assert journal.claim_transfer("place", "blob", 20).state == STATE


def test_an_owner_of_an_older_journal_that_lives_still_counts(path: Path) -> None:
    started = Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19]

    assert is_alive(path, f"{os.getpid()}:{started}", 0)
    assert not is_alive(path, f"{os.getpid()}:1{started}", 0)


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOTSUP])
def test_without_locks_the_process_counts_and_elsewhere_the_hour(
    path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    path.parent.mkdir()

    def refuse(descriptor: int, operation: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    name = OwnerLock(path).name

    assert is_alive(path, name, 0)
    assert left_beside(path) == []
    gone = name.replace(f"pid:{os.getpid()}:", "pid:1:1")
    assert not is_alive(path, gone, time.time())
    elsewhere = f"{name}x"  # another boot, or another namespace
    assert is_alive(path, elsewhere, time.time() - 3000)
    assert not is_alive(path, elsewhere, time.time() - 4000)


def test_a_directory_that_takes_no_file_does_not_stop_a_journal(path: Path) -> None:
    with closing(Journal(path)) as journal:
        (path.parent / f".{path.name}.{'0' * 32}.owner").mkdir()
        journal.claim_transfer("place", "blob", 20).save(STATE)

        assert [one.is_running for one in journal.list_unfinished()] == [True]


def test_lock_files_of_owners_are_removed_by_them_or_by_the_next_one(path: Path) -> None:
    with closing(Journal(path)) as journal:
        journal.claim_transfer("place", "blob", 20)
        assert left_beside(path) == []  # nothing is owned yet
        journal.claim_transfer("place", "blob", 20).save(STATE)
        assert len(left_beside(path)) == 1
    assert left_beside(path) == []

    with held(path) as child:
        child.kill()
        child.wait(60)
        (killed,) = left_beside(path)

    with closing(Journal(path)) as journal:
        journal.claim_transfer("place", "other", 20).save(STATE)
        assert killed not in left_beside(path)


def rows(path: Path) -> Sequence[tuple[str, str]]:
    with closing(sqlite3.connect(path)) as db:
        return db.execute("SELECT target, subject FROM transfers ORDER BY id").fetchall()


def test_content_that_is_there_drops_what_was_begun_and_nobody_is_at(path: Path) -> None:
    with closing(Journal(path)) as journal:
        for target, subject in (("place", "blob"), ("place", "other"), ("elsewhere", "blob")):
            entry = journal.claim_transfer(target, subject, 20)
            entry.save(STATE)
            entry.release()

        journal.delete_abandoned("place", "blob")
        assert rows(path) == [("place", "other"), ("elsewhere", "blob")]

        with held(path):
            journal.delete_abandoned("place", "blob")
            assert rows(path) == [("place", "other"), ("elsewhere", "blob"), ("place", "blob")]


def test_a_finished_transfer_drops_other_rows_of_the_same_content(path: Path) -> None:
    with closing(Journal(path)) as journal:
        for _ in range(3):
            entry = journal.claim_transfer("place", "blob", 30)
            entry.save(STATE)
            journal.execute("UPDATE transfers SET owner = '', size = 20")

        last = journal.claim_transfer("place", "blob", 20)
        last.complete()

        assert journal.list_unfinished() == []


def test_partial_file_is_removed_with_its_row_and_no_other_file_is(
    path: Path, tmp_path: Path
) -> None:
    partial, precious = tmp_path / "x.partial", tmp_path / "precious"
    with closing(Journal(path)) as journal:
        for number, file in enumerate((partial, precious)):
            file.write_bytes(b"bytes")
            entry = journal.claim_transfer("place", f"blob{number}", 20)
            entry.save(WriterState(str(file), 5, 0, ((0, 5),)))
            entry.release()
            journal.delete_abandoned("place", f"blob{number}")

        assert journal.list_unfinished() == []
    assert [partial.exists(), precious.exists()] == [False, True]
