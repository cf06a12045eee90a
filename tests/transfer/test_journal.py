from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from concil.fs.resume_state import WriterState
from concil.oci.manifest import Digest
from concil.transfer import journal as journal_module
from concil.transfer.journal import VERSION, Journal, JournalEntry
from concil.transfer.journal_schema import open_database
from tests.support.scale import at_most

STATE = WriterState("http://registry/secret", 10, 4, ((0, 4), (6, 12)), "12:ab")
DIGEST = Digest.from_bytes(b"content")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "concil" / "journal.sqlite"


@pytest.fixture
def journal(path: Path) -> Iterator[Journal]:
    with closing(Journal(path)) as opened:
        yield opened


def die_holding(path: Path) -> None:
    """Leave an entry whose owner was killed."""
    program = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from concil.transfer.journal import Journal\n"
        "from concil.fs.resume_state import WriterState\n"
        "entry = Journal(Path(sys.argv[1])).claim_transfer('place', 'blob', 20)\n"
        "entry.save(WriterState('http://registry/secret', 10, 4, ((0, 4), (6, 12)), '12:ab'))\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    ended = subprocess.run([sys.executable, "-c", program, str(path)], check=False, timeout=60)
    assert ended.returncode == -signal.SIGKILL


def test_an_entry_of_a_killed_process_is_taken_up(path: Path) -> None:
    die_holding(path)

    with closing(Journal(path)) as journal:
        entry = journal.claim_transfer("place", "blob", 20)

        assert entry.state == STATE


def test_an_entry_of_a_living_process_is_left_alone(journal: Journal, path: Path) -> None:
    journal.claim_transfer("place", "blob", 20).save(STATE)

    program = (
        "import sys\n"
        "from pathlib import Path\n"
        "from concil.transfer.journal import Journal\n"
        "print(Journal(Path(sys.argv[1])).claim_transfer('place', 'blob', 20).state)\n"
    )
    told = subprocess.run(
        [sys.executable, "-c", program, str(path)], check=True, timeout=60, stdout=subprocess.PIPE
    )

    assert told.stdout == b"None\n"
    assert journal.claim_transfer("place", "blob", 20).state is None


def test_a_released_entry_can_be_taken_up_once(journal: Journal) -> None:
    first = journal.claim_transfer("place", "blob", 20)
    first.save(STATE)
    first.release()

    taken = [journal.claim_transfer("place", "blob", 20).state for _ in range(2)]

    assert taken == [STATE, None]


def test_another_size_target_or_subject_is_another_transfer(journal: Journal) -> None:
    entry = journal.claim_transfer("place", "blob", 20)
    entry.save(STATE)
    entry.release()

    assert journal.claim_transfer("place", "blob", 21).state is None
    assert journal.claim_transfer("elsewhere", "blob", 20).state is None
    assert journal.claim_transfer("place", "other", 20).state is None


def test_what_is_done_is_forgotten(journal: Journal) -> None:
    entry = journal.claim_transfer("place", "blob", 20)
    entry.save(STATE)
    entry.delete()

    assert journal.list_unfinished() == []


def test_saving_again_replaces_what_was_saved(journal: Journal) -> None:
    entry = journal.claim_transfer("place", "blob", 20)
    entry.save(WriterState("there", 1, 1))
    entry.save(None)
    entry.save(STATE)

    assert [found.state for found in journal.list_unfinished()] == [STATE]


def test_unfinished_transfers_say_whether_somebody_is_at_them(journal: Journal) -> None:
    mine, free = journal.claim_transfer("place", "a", 20), journal.claim_transfer("place", "b", 20)
    mine.save(STATE)
    free.save(STATE)
    free.release()

    assert {found.subject: found.is_running for found in journal.list_unfinished()} == {
        "a": True,
        "b": False,
    }
    for found in journal.list_unfinished():
        journal.delete(found.row_id)
    assert journal.list_unfinished() == []


def test_the_digest_of_a_file_counts_only_for_that_very_file(journal: Journal) -> None:
    journal.save_digest("/f", "file:1:2:3:/f", DIGEST)

    assert journal.find_digest("/f", "file:1:2:3:/f") == DIGEST
    assert journal.find_digest("/f", "file:1:9:3:/f") is None
    assert journal.find_digest("/g", "file:1:2:3:/f") is None


def test_hosts_are_remembered(path: Path) -> None:
    with closing(Journal(path)) as journal:
        journal.save_host_profile("host:1", {"max_chunk_size": 5})
    with closing(Journal(path)) as journal:
        assert journal.load_host_profile("host:1") == {"max_chunk_size": 5}
        assert journal.load_host_profile("host:2") == {}


def test_secrets_are_readable_by_their_owner_only(path: Path) -> None:
    previous = os.umask(0)
    try:
        with closing(Journal(path)) as journal:
            journal.claim_transfer("place", "blob", 20).save(STATE)
            modes = {p.name: stat.S_IMODE(p.stat().st_mode) for p in path.parent.iterdir()}
    finally:
        os.umask(previous)

    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert set(modes.values()) == {0o600}
    assert "journal.sqlite-wal" in modes


def damage(path: Path, kind: str) -> None:
    if kind == "from the future":
        with closing(sqlite3.connect(path)) as db:
            db.execute(f"PRAGMA user_version = {VERSION + 1}")
    elif kind == "no database":
        path.write_bytes(b"this is no database, and never was" * 100)
    elif kind == "a directory":
        path.unlink()
        path.mkdir()
    elif kind == "another table":
        with closing(sqlite3.connect(path)) as db:
            db.executescript("DROP TABLE transfers; CREATE TABLE transfers (useless TEXT)")
    elif kind == "truncated":
        path.write_bytes(path.read_bytes()[:1000])


@pytest.mark.parametrize(
    "kind", ["from the future", "no database", "a directory", "another table", "truncated"]
)
def test_a_damaged_journal_is_one_warning(
    path: Path, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    Journal(path).close()
    damage(path, kind)

    with caplog.at_level(logging.WARNING), closing(Journal(path)) as journal:
        entry = journal.claim_transfer("place", "blob", 20)
        entry.save(STATE)
        entry.release()
        entry.delete()
        journal.save_digest("/f", "file:1", DIGEST)
        assert journal.find_digest("/f", "file:1") is None
        assert journal.list_unfinished() == []

    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert str(path) in caplog.text


def test_a_journal_that_another_program_holds_is_one_warning(
    path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("concil.transfer.journal._BUSY_TIMEOUT", 0.05)
    Journal(path).close()
    with closing(sqlite3.connect(path, isolation_level=None)) as holder:
        holder.execute("BEGIN EXCLUSIVE")
        with caplog.at_level(logging.WARNING), closing(Journal(path)) as journal:
            journal.claim_transfer("place", "blob", 20).save(STATE)
            journal.claim_transfer("place", "blob", 20).save(STATE)

    assert len(caplog.records) == 1


def test_a_full_disk_is_one_warning(path: Path) -> None:
    program = (
        "import logging, resource, signal, sys\n"
        "from pathlib import Path\n"
        "from concil.transfer.journal import Journal\n"
        "from concil.fs.resume_state import WriterState\n"
        "logging.basicConfig(format='%(levelname)s')\n"
        "journal = Journal(Path(sys.argv[1]))\n"
        "entry = journal.claim_transfer('place', 'blob', 20)\n"
        "entry.save(WriterState('there', 1, 1))\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "_, most = resource.getrlimit(resource.RLIMIT_FSIZE)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (0, most))\n"
        "for _ in range(3):\n"
        "    entry.save(WriterState('there' * 1000, 2, 1))\n"
        "print('went on')\n"
        "journal.close()\n"
        # Who measures coverage writes a file at the end.
        "resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program, str(path)],
        check=True,
        timeout=60,
        capture_output=True,
        text=True,
    )

    assert ended.stdout == "went on\n"
    assert ended.stderr.splitlines() == ["WARNING"]


def test_a_link_in_the_place_of_the_journal_is_not_followed(
    path: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path.parent.mkdir(parents=True)
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    path.symlink_to(victim)

    with caplog.at_level(logging.WARNING), closing(Journal(path)) as journal:
        journal.claim_transfer("place", "blob", 20).save(STATE)

    assert victim.read_bytes() == b"precious"
    assert len(caplog.records) == 1


@settings(max_examples=at_most(60), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.one_of(st.text(), st.recursive(st.none() | st.integers(), st.lists).map(json.dumps)))
def test_any_state_that_makes_no_sense_is_passed_over(path: Path, text: str) -> None:
    with closing(Journal(path)) as journal:
        entry = journal.claim_transfer("place", "blob", 20)
        entry.save(STATE)
        entry.release()
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("UPDATE transfers SET state = ?", (text,))

    with closing(Journal(path)) as journal:
        assert journal.claim_transfer("place", "blob", 20).state is None
        assert journal.list_unfinished() == []
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("DELETE FROM transfers")


def test_nowhere_remembers_nothing() -> None:
    entry = JournalEntry.unsaved()

    entry.save(STATE)
    entry.release()
    entry.delete()

    assert Journal(None).list_unfinished() == []


def test_the_default_place_is_the_users_state_directory(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert Journal.default_path() == tmp_path / "concil" / "journal.sqlite"

    monkeypatch.setenv("XDG_STATE_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert Journal.default_path() == tmp_path / ".local/state/concil/journal.sqlite"


def test_what_is_for_later_is_written_when_there_is_enough_of_it_or_at_the_end(
    tmp_path: Path,
) -> None:
    path = tmp_path / "journal.sqlite"
    statement = "INSERT OR REPLACE INTO hosts VALUES (?, '{}', 0)"

    def there() -> int:
        with closing(sqlite3.connect(path)) as db:
            return int(db.execute("SELECT count(*) FROM hosts").fetchone()[0])

    journal = Journal(path)
    for number in range(1000):
        journal.execute_deferred(statement, f"h{number}")
    enough = there()
    journal.close()

    assert enough >= 1000 - 256
    assert there() == 1000


def test_a_statement_for_later_that_fails_ends_the_journal_and_nothing_else(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    journal = Journal(tmp_path / "journal.sqlite")
    journal.execute_deferred("INSERT INTO nowhere VALUES (1)")

    journal.flush()

    assert not journal.is_usable
    assert "cannot be used" in caplog.text


def open_files(path: Path) -> list[str]:
    """Return the names of the files of a database that this process has open."""
    links = []
    for descriptor in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):  # the one that lists the directory
            links.append(descriptor.readlink())
    return sorted(link.name for link in links if link.name.startswith(path.name))


def test_a_fork_copies_no_open_file_whichever_thread_used_it(path: Path) -> None:
    """A child that closes a copy of an open database removes what the parent has written."""
    begun, over = threading.Event(), threading.Event()
    journals = []

    def use() -> None:
        journals.append(Journal(path))
        journals[0].claim_transfer("place", "blob", 20).save(STATE)
        begun.set()
        over.wait()  # it runs no code, so the interpreter can free nothing of its own either

    thread = threading.Thread(target=use, daemon=True)
    thread.start()
    begun.wait()
    (journal,) = journals
    assert open_files(path)

    journal.before_fork()
    open_during_fork = open_files(path)
    journal.after_fork_in_parent()
    over.set()
    thread.join()

    assert open_during_fork == []
    assert journal.list_unfinished()[0].state == STATE
    journal.close()


class Recorded(Journal):
    """A journal that can be reached while it is created, as from a fork in another thread."""

    created: list[Journal]

    def __init__(self, path: Path) -> None:
        self.created.append(self)
        super().__init__(path)


class BrokenDatabase:
    """A database that cannot be read; records whether a fork had to wait when it was closed."""

    def __init__(self, journal: Journal) -> None:
        self.journal = journal
        self.closed_under_lock: list[bool] = []

    def execute(self, *_arguments: object) -> None:
        raise sqlite3.DatabaseError("broken")

    def close(self) -> None:
        self.closed_under_lock.append(self.journal._lock.locked())


def test_a_fork_waits_while_the_database_is_opened(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Recorded.created = []
    opened_under_lock = []

    def open_recorded(path: Path, busy_timeout: float) -> sqlite3.Connection:
        opened_under_lock.append(Recorded.created[0]._lock.locked())
        return open_database(path, busy_timeout)

    monkeypatch.setattr(journal_module, "open_database", open_recorded)
    Recorded(path).close()

    assert opened_under_lock == [True]


def test_a_fork_waits_while_a_broken_database_is_closed(journal: Journal) -> None:
    broken = BrokenDatabase(journal)
    journal.before_fork()  # closes the intact one
    journal.after_fork_in_parent()
    journal._db = broken  # type: ignore[assignment]

    assert journal.list_unfinished() == []

    assert broken.closed_under_lock == [True]
    assert not journal.is_usable
