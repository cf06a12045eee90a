"""Several runs that write to one place at once: whoever ends with 0 has all images there."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from concil.fs.path_lock import PathLock
from concil.server import EmbeddedRegistry
from tests.cli.runner import PATIENCE, Cli, Outcome, Program
from tests.support.images import Image, make_image, put_image, write_layout
from tests.support.relay import Relay
from tests.support.scale import FULL

# A rare fault is what these tests look for: one failure is enough.
pytestmark = [pytest.mark.process, pytest.mark.flaky(reruns=0)]

ROUNDS = 10 if FULL else 1
SIZE = 20_000_000 if FULL else 200_000  # bytes
WHO = "abc"
MANY = 2000 if FULL else 100  # names in a list
REF_NAME = "org.opencontainers.image.ref.name"
SLOW = 5_000_000  # bytes of a blob that takes longer, over a slow link, than everything else


@pytest.fixture
def images(tmp_path: Path) -> dict[str, Image]:
    """Write three layouts of three images, and a list of each."""
    found: dict[str, Image] = {}
    for number, who in enumerate(WHO):
        own = {f"{n}": make_image(10 * number + n, (SIZE, 1000)) for n in range(3)}
        write_layout(tmp_path / who, own)
        lines = [f"oci:{tmp_path / who}:{name} -> host/{who}:{name}" for name in own]
        (tmp_path / f"{who}.txt").write_text("\n".join(lines))
        found |= {f"host/{who}:{name}": image for name, image in own.items()}
    return found


@pytest.fixture
def lock(tmp_path: Path) -> Iterator[PathLock]:
    """Hold the lock of ``out.tar`` until the test releases it."""
    lock = PathLock(tmp_path / "out.tar")
    assert lock.acquire(0)
    yield lock
    lock.release()


def start_and_wait(program: Program, *words: str) -> tuple[subprocess.Popen[bytes], str]:
    """Start a run that has to wait for another writer; return it and the line that says so."""
    running = program.start(*words, "--progress=none")
    assert running.stderr is not None
    line = running.stderr.readline().decode()
    assert "waiting for another process that writes" in line
    return running, line


@contextmanager
def slow_copy(
    program: Program, registry: EmbeddedRegistry, archive: str
) -> Iterator[subprocess.Popen[bytes]]:
    """Start a copy that has the archive open and would take minutes; a test kills it."""
    put_image(registry.url, "app", "v1", make_image(70, (SLOW,)))
    with Relay(registry.host, rate=SLOW // 100) as link:
        slow = program.start("copy", "--progress=none", f"{link.host}/app:v1", f"{archive}:slow:1")
        link.wait_for(lambda relay: relay.bytes_down > SLOW // 50)
        yield slow


def kill(running: subprocess.Popen[bytes]) -> None:
    running.kill()
    running.communicate(timeout=PATIENCE)


@pytest.mark.parametrize("kind", ["oci-archive", "docker-archive", "oci"])
def test_whoever_ends_with_0_has_all_images_there(
    program: Program, cli: Cli, tmp_path: Path, images: dict[str, Image], kind: str
) -> None:
    for turn in range(ROUNDS):
        target = f"{kind}:{tmp_path}/out{turn}"
        running = [
            program.start(
                "mirror", f"{who}.txt", target, "--progress=none", f"--report={who}{turn}.json"
            )
            for who in WHO
        ]
        ended = {
            who: (one.communicate(timeout=PATIENCE)[1].decode(), one.returncode)
            for who, one in zip(WHO, running, strict=True)
        }

        assert cli("copy", "--all", target, f"oci:{tmp_path}/back{turn}").code == 0
        there = set(cli("tags", f"oci:{tmp_path}/back{turn}").lines)
        prefix = "docker.io/" if kind == "docker-archive" else ""
        for who, (err, code) in ended.items():
            own = {f"{prefix}{name}" for name in images if name.startswith(f"host/{who}:")}
            report = json.loads((tmp_path / f"{who}{turn}.json").read_text())
            outcomes = {entry["outcome"] for entry in report["images"]}
            if code == 0:
                assert own <= there, err
                assert outcomes == {"copied"}
            else:
                assert not own & there, err
                assert "out" in err
                assert "cannot be added to" in err
                assert outcomes == {"failed"}
        codes = sorted(code for _, code in ended.values())
        assert codes == ([0, 2, 2] if kind == "docker-archive" else [0, 0, 0])
        assert not list(tmp_path.glob(f".out{turn}*"))


def test_three_mirrors_of_many_names_lose_none(
    program: Program, tmp_path: Path, images: dict[str, Image]
) -> None:
    names = {who: [f"host/many:{who}{number}" for number in range(MANY)] for who in WHO}
    for who, own in names.items():
        lines = [f"oci:{tmp_path / who}:0 -> {name}" for name in own]
        (tmp_path / f"{who}.txt").write_text("\n".join(lines))
    for turn in range(ROUNDS):
        running = [
            program.start("mirror", f"{who}.txt", f"oci:out{turn}", "--progress=none")
            for who in WHO
        ]
        for one in running:
            err = one.communicate(timeout=PATIENCE)[1].decode()
            assert one.returncode == 0, err

        document = json.loads((tmp_path / f"out{turn}" / "index.json").read_bytes())
        there = [entry["annotations"][REF_NAME] for entry in document["manifests"]]
        assert sorted(there) == sorted(name for own in names.values() for name in own)


def test_a_run_that_waits_says_for_what_and_adds_what_it_has(
    program: Program, cli: Cli, lock: PathLock, tmp_path: Path, images: dict[str, Image]
) -> None:
    running, line = start_and_wait(program, "mirror", "a.txt", "oci-archive:out.tar")
    lock.release()
    running.communicate(timeout=PATIENCE)

    assert "out.tar" in line
    assert running.returncode == 0
    assert len(cli("tags", f"oci-archive:{tmp_path}/out.tar").lines) == 3


def test_ctrl_c_while_waiting_ends_it_and_the_report_says_that_nothing_is_there(
    program: Program, lock: PathLock, tmp_path: Path, images: dict[str, Image]
) -> None:
    words = ("mirror", "a.txt", "oci-archive:out.tar", "--report=r.json")
    running, _ = start_and_wait(program, *words)

    running.send_signal(signal.SIGINT)
    _, err = running.communicate(timeout=PATIENCE)
    lock.release()

    assert running.returncode == 130
    assert err.decode().splitlines() == [
        "concil: interrupted: 0 of 3 images done; run the same command again to resume"
    ]
    report = json.loads((tmp_path / "r.json").read_text())
    assert report["images"] == []
    assert not report["summary"]["complete"]
    assert not list(tmp_path.glob("*out.tar*"))


def test_what_is_since_a_report_of_a_run_whose_archive_failed_goes_over_again(
    program: Program, cli: Cli, lock: PathLock, tmp_path: Path, images: dict[str, Image]
) -> None:
    lines = (tmp_path / "a.txt").read_text()
    archive = f"oci-archive:{tmp_path}/out.tar"
    running, _ = start_and_wait(program, "mirror", "a.txt", archive, "--report=r.json")
    (tmp_path / "out.tar").write_bytes(b"another's")
    lock.release()
    _, err = running.communicate(timeout=PATIENCE)

    assert running.returncode == 1
    assert err.decode().count("\n") == 1
    assert "another program" in err.decode()
    report = json.loads((tmp_path / "r.json").read_text())
    assert [entry["outcome"] for entry in report["images"]] == ["failed"] * 3
    assert all("another program" in entry["error"] for entry in report["images"])
    (tmp_path / "list").write_text(lines)
    again = cli("mirror", tmp_path / "list", f"oci:{tmp_path}/next", f"--since={tmp_path}/r.json")
    assert again.code == 0
    assert len(cli("tags", f"oci:{tmp_path}/next").lines) == 3


@pytest.mark.parametrize("kind", ["oci-archive", "docker-archive"])
def test_a_killed_run_leaves_nothing_that_the_next_one_does_not_remove(
    program: Program, registry: EmbeddedRegistry, tmp_path: Path, kind: str
) -> None:
    put_image(registry.url, "app", "v1", make_image(1, (3_000_000,)))
    with Relay(registry.host, rate=1_000_000) as link:
        words = ("copy", "--progress=none", f"{link.host}/app:v1", f"{kind}:out.tar:app:v1")
        running = program.start(*words)
        link.wait_for(lambda relay: relay.bytes_down > 1_000_000)
        kill(running)
    assert list(tmp_path.glob(".out.tar.*.new"))

    done = program("copy", "--progress=none", f"{registry.host}/app:v1", f"{kind}:out.tar:app:v1")

    assert done.code == 0
    assert [path.name for path in tmp_path.glob("*out.tar*")] == ["out.tar"]


def test_when_one_of_three_writers_is_killed_the_others_go_on(
    program: Program,
    cli: Cli,
    registry: EmbeddedRegistry,
    tmp_path: Path,
    images: dict[str, Image],
) -> None:
    """And whoever reads meanwhile finds a whole archive."""
    archive = f"oci-archive:{tmp_path}/out.tar"
    put_image(registry.url, "app", "v2", make_image(71, (1000,)))
    assert cli("copy", f"{registry.host}/app:v2", f"{archive}:first:1").code == 0
    with slow_copy(program, registry, archive) as slow:
        others = [program.start("mirror", f"{who}.txt", archive, "--progress=none") for who in "ab"]
        reads: list[Outcome] = []
        while any(other.poll() is None for other in others):
            reads.append(cli("copy", f"{archive}:first:1", f"oci:{tmp_path}/read{len(reads)}:1"))
        kill(slow)
    errors = [other.communicate(timeout=PATIENCE)[1].decode() for other in others]

    assert [other.returncode for other in others] == [0, 0], errors
    assert {read.code for read in reads} == {0}
    assert slow.returncode == -signal.SIGKILL
    there = cli("tags", archive).lines
    assert sorted(there) == ["first:1", *sorted(n for n in images if n.startswith("host/"))[:6]]
    assert cli("copy", "--all", archive, f"oci:{tmp_path}/back").code == 0
    assert list(tmp_path.glob(".out.tar.*.new"))
    assert not list(tmp_path.glob(".out.tar.lock"))
    assert cli("copy", f"{registry.host}/app:v1", f"{archive}:slow:1").code == 0
    assert not list(tmp_path.glob(".out.tar*"))


def test_whoever_waits_for_a_docker_archive_gets_it_when_its_writer_is_killed(
    program: Program,
    cli: Cli,
    registry: EmbeddedRegistry,
    tmp_path: Path,
    images: dict[str, Image],
) -> None:
    archive = f"docker-archive:{tmp_path}/out.tar"
    with slow_copy(program, registry, archive) as slow:
        other, _ = start_and_wait(program, "mirror", "a.txt", archive)
        kill(slow)
    other.communicate(timeout=PATIENCE)

    assert other.returncode == 0
    assert len(cli("tags", archive).lines) == 3
    assert cli("copy", "--all", archive, f"oci:{tmp_path}/back").code == 0
    assert not list(tmp_path.glob(".out.tar*"))


def test_two_runs_with_one_report_are_told(
    program: Program, lock: PathLock, tmp_path: Path, images: dict[str, Image]
) -> None:
    words = ("mirror", "a.txt", "oci-archive:out.tar", "--report=r.json")
    first, _ = start_and_wait(program, *words)

    second = program("mirror", "b.txt", "oci:layout", "--progress=none", "--report=r.json")
    lock.release()
    first.communicate(timeout=PATIENCE)

    assert (first.returncode, second.code) == (0, 0)
    assert "another run is writing the report 'r.json'" in second.err


def test_a_full_disk_is_no_image_in_the_report(
    tmp_path: Path, images: dict[str, Image], program: Program
) -> None:
    """The limit of file sizes stands in for the disk: what is written appears at the end."""
    words = program.argv(
        "mirror", "a.txt", "oci-archive:out.tar", "--progress=none", "--report=r.json"
    )
    done = subprocess.run(
        ["prlimit", f"--fsize={SIZE}", *words],
        cwd=tmp_path,
        env=program.environment(),
        capture_output=True,
        timeout=PATIENCE,
        check=False,
    )

    assert done.returncode != 0
    report = json.loads((tmp_path / "r.json").read_text())
    outcomes = {entry["outcome"] for entry in report["images"]}
    there = (tmp_path / "out.tar").exists()
    assert outcomes == ({"copied", "failed"} if there else {"failed"})
