from __future__ import annotations

import subprocess
from contextlib import closing
from pathlib import Path

import pytest

from concil.engine.engine import Engine
from concil.fs.resume_state import WriterState
from concil.oci.manifest import Digest
from concil.server import EmbeddedRegistry
from concil.transfer.journal import Journal
from tests.resume.child_processes import kill_when, run, run_here, start, wait_for_end
from tests.resume.conftest import Content
from tests.resume.test_killed_pulls import pull
from tests.resume.test_killed_pushes import push
from tests.support.images import make_image, put_blob, put_image
from tests.support.relay import Relay


def listed(*arguments: str) -> list[str]:
    """Return the lines of the list, without its head."""
    ended = run_here(["transfers", *arguments])
    assert ended.code == 0, ended.err
    return ended.out.splitlines()[1:]


def interrupt(relay: Relay, arguments: list[str], content: Content) -> None:
    half = content.size // 2
    kill_when(relay, arguments, lambda r: r.bytes_up + r.bytes_down >= half)


def sessions(tmp_path: Path) -> list[str]:
    return [path.name for path in (tmp_path / "embedded/.concil/uploads").iterdir()]


def test_what_is_interrupted_is_listed_until_it_is_done(
    resumable_relay: Relay, content: Content
) -> None:
    interrupt(resumable_relay, push(resumable_relay, content), content)

    (line,) = listed()
    run(push(resumable_relay, content))

    assert str(content.path) in line
    assert f"{resumable_relay.url}/some/where" in line
    assert "45.0 MiB" in line or "1.0 GiB" in line
    assert "uploads/" not in line  # the session's Location is a secret
    assert listed() == []


def test_a_forgotten_upload_is_cancelled_at_the_registry(
    resumable_relay: Relay, content: Content, tmp_path: Path
) -> None:
    interrupt(resumable_relay, push(resumable_relay, content), content)
    number = listed()[0].split()[0]
    assert len(sessions(tmp_path)) == 1

    ended = run_here(["transfers", "forget", number])

    assert ended.code == 0, ended.err
    assert listed() == []
    assert sessions(tmp_path) == []


def test_a_forgotten_download_leaves_no_partial_file(
    resumable_relay: Relay, embedded: EmbeddedRegistry, content: Content, tmp_path: Path
) -> None:
    put_blob(embedded.url, "some/where", content.path.read_bytes())
    interrupt(resumable_relay, pull(resumable_relay, content, tmp_path / "pulled"), content)
    assert len(list(tmp_path.glob("*.partial"))) == 1

    ended = run_here(["transfers", "forget", "--all"])

    assert ended.code == 0, ended.err
    assert list(tmp_path.glob("*.partial")) == []
    assert listed() == []


def test_the_young_are_kept_when_the_old_are_forgotten(
    resumable_relay: Relay, content: Content
) -> None:
    interrupt(resumable_relay, push(resumable_relay, content), content)

    assert run_here(["transfers", "forget", "--older-than", "7d"]).code == 0
    assert len(listed()) == 1
    assert run_here(["transfers", "forget", "--older-than", "0s"]).code == 0
    assert listed() == []


def test_what_is_under_way_is_not_forgotten(resumable_relay: Relay, content: Content) -> None:
    resumable_relay.rate = 4 * 1024 * 1024
    child: subprocess.Popen[str] = start(push(resumable_relay, content))
    try:
        resumable_relay.wait_for(lambda r: r.bytes_up >= 11 * 1024 * 1024)
        (line,) = listed()

        refused = run_here(["transfers", "forget", line.split()[0]])

        assert "running" in line
        assert refused.code == 2
        assert "running in another process" in refused.err
        assert run_here(["transfers", "forget", "--all"]).code == 0
        assert len(listed()) == 1
        resumable_relay.rate = None
    finally:
        child.kill()
        wait_for_end(child)


def test_what_cannot_be_gone_on_with_says_so(
    resumable_relay: Relay, embedded: EmbeddedRegistry, content: Content, tmp_path: Path
) -> None:
    put_blob(embedded.url, "some/where", content.path.read_bytes())
    interrupt(resumable_relay, push(resumable_relay, content), content)
    resumable_relay.reset_counters()
    interrupt(resumable_relay, pull(resumable_relay, content, tmp_path / "pulled"), content)
    pulled, pushed = listed()
    assert ("(" in pulled.partition("%)")[2], "(" in pushed.partition("%)")[2]) == (False, False)

    (partial,) = tmp_path.glob("*.partial")
    partial.unlink()
    with content.path.open("ab") as file:
        file.write(b"more")
    pulled, pushed = listed()
    content.path.unlink()

    assert f"{content.digest} (partial file missing)" in pulled
    assert f"{content.path} (changed)" in pushed
    assert f"{content.path} (missing)" in listed()[1]


def left(target: str, subject: str, *offsets: int) -> None:
    """Leave transfers of 100 bytes that came so far."""
    with closing(Journal(Journal.default_path())) as journal:
        entries = [journal.claim_transfer(target, subject, 100) for _ in offsets]
        for entry, offset in zip(entries, offsets, strict=True):
            entry.save(WriterState("http://127.0.0.1:1/session", offset, 10))


def rows() -> int:
    with closing(Journal(Journal.default_path())) as journal:
        return len(journal.list_unfinished())


def test_what_has_no_bytes_or_all_is_not_listed_and_is_forgotten_with_all() -> None:
    left("http://127.0.0.1:1/some/where", "blob", 0, 40, 100)

    assert ["40 B (40 %)" in line for line in listed()] == [True]
    assert run_here(["transfers", "forget", "--all"]).code == 0
    assert rows() == 0


def test_who_finds_the_blob_there_drops_what_was_begun(
    resumable_relay: Relay, embedded: EmbeddedRegistry, content: Content
) -> None:
    """Another program, or another machine, has brought it meanwhile."""
    interrupt(resumable_relay, push(resumable_relay, content), content)
    put_blob(embedded.url, "some/where", content.path.read_bytes())
    left(f"{resumable_relay.url}/some/where", content.digest, 10, 20)
    assert rows() == 3

    with Engine() as engine:
        digest = Digest.parse(content.digest)
        engine.push_blob(content.path, f"{resumable_relay.url}/some/where", digest=digest)

    assert rows() == 0


def test_a_finished_push_drops_all_that_was_begun_for_its_content(
    resumable_relay: Relay, content: Content
) -> None:
    left(f"{resumable_relay.url}/some/where", content.digest, 10, 20)
    interrupt(resumable_relay, push(resumable_relay, content), content)

    ended = run(push(resumable_relay, content))

    assert ended.code == 0, ended.err
    assert rows() == 0


def test_an_image_that_finds_its_blobs_there_drops_what_was_begun(
    embedded: EmbeddedRegistry, tmp_path: Path
) -> None:
    target = tmp_path / "layout"
    image = make_image(1, (3_000,))
    put_image(embedded.url, "some/where", "v1", image)
    layer = max(image.blobs, key=lambda digest: len(image.blobs[digest]))
    left(f"oci:{target}", layer, 10)
    left(f"oci:{target}", layer, 20)
    with Engine() as engine:
        engine.copy(f"{embedded.url}/some/where:v1", f"oci:{target}:a")
    left(f"oci:{target}", layer, 30)
    with Engine() as engine:
        engine.copy(f"{embedded.url}/some/where:v1", f"oci:{target}:b")

    assert rows() == 0


@pytest.mark.parametrize("arguments", [[], ["forget", "--all"]])
def test_a_journal_that_cannot_be_read_is_not_an_empty_one(arguments: list[str]) -> None:
    path = Journal.default_path()
    path.parent.mkdir(parents=True)
    path.write_bytes(b"no database, and too long for an empty one" * 100)

    ended = run_here(["transfers", *arguments])

    assert (ended.code, ended.out) == (1, "")
    assert len(ended.err.splitlines()) == 1
    assert str(path) in ended.err


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["forget"], 2),
        (["forget", "--all", "3"], 2),
        (["forget", "nonsense"], 2),
        (["forget", "--older-than", "soon"], 2),
        (["forget", "4711"], 4),
        (["nonsense"], 2),
    ],
)
def test_nonsense_is_one_line(arguments: list[str], code: int) -> None:
    ended = run_here(["transfers", *arguments])

    assert ended.code == code
    assert len(ended.err.splitlines()) == 1
    assert ended.err.startswith("concil: ")
