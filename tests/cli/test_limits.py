"""Where the machine gives no more threads, memory or files: with what there is, or one line."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from concil.errors import LimitReached
from concil.runtime.limits import describe_limit, limit_error
from concil.server import EmbeddedRegistry, listener
from tests.cli.runner import Outcome, Program
from tests.support.images import assert_same_image, make_image, put_image
from tests.support.scale import FULL

pytestmark = pytest.mark.process

IMAGES = {f"app{number}": make_image(number, (60_000, 20_000)) for number in range(12)}
USER = 54321  # root may have as many processes as it likes
_RIGHTS = "+dac_read_search,+dac_override"


@pytest.fixture
def program(tmp_path: Path) -> Program:
    return Program(tmp_path)


@pytest.fixture
def full(tmp_path: Path) -> Iterator[EmbeddedRegistry]:
    """Run a registry with some images, and write a plan for all of them."""
    with EmbeddedRegistry(tmp_path / "full") as registry:
        for name, image in IMAGES.items():
            put_image(registry.url, name, "v1", image)
        plan = "".join(f"{registry.url}/{name}:v1\n" for name in IMAGES)
        (tmp_path / "plan.txt").write_text(plan)
        yield registry


@pytest.fixture
def single(tmp_path: Path) -> Iterator[EmbeddedRegistry]:
    """Run a registry with one image."""
    with EmbeddedRegistry(tmp_path / "single") as registry:
        put_image(registry.url, "app1", "v1", IMAGES["app1"])
        yield registry


def limited(program: Program, limit: str, *words: str | Path) -> Outcome:
    """Run a command with a limit of prlimit's."""
    # Without the measuring of coverage, which needs memory and says so at its own end.
    before = ["env", *(f"--unset={name}" for name in os.environ if name.startswith("COVERAGE_"))]
    before += ["prlimit", limit]
    if limit.startswith("--nproc") and os.geteuid() == 0:
        user = ["--reuid", str(USER), "--regid", str(USER), "--clear-groups"]
        before += ["setpriv", *user, "--inh-caps", _RIGHTS, "--ambient-caps", _RIGHTS]
    return program(*words, before=before)


def told_once(err: str) -> None:
    """Assert that each line is a person's, and that none is there for each image or second."""
    assert "Traceback" not in err
    assert "unexpected" not in err
    warnings = [line for line in err.splitlines() if line.startswith("concil: warning")]
    assert len(warnings) <= 3, err
    assert all("ulimit" in line for line in warnings), err


def assert_all_there(registry: EmbeddedRegistry) -> None:
    for name, image in IMAGES.items():
        assert_same_image(registry.url, f"copy/{name}", "v1", image)


@pytest.mark.skipif(not shutil.which("setpriv"), reason="no setpriv")
@pytest.mark.parametrize("most", [1, 2, 3, 5, 12] if FULL else [1, 3, 12])
def test_mirror_continues_with_the_threads_that_it_has(
    program: Program, full: EmbeddedRegistry, most: int
) -> None:
    result = limited(
        program, f"--nproc={most}", "mirror", "plan.txt", f"{full.url}/copy", "--progress", "plain"
    )

    assert result.code == 0, result.err
    told_once(result.err.replace("running without a progress display", "ulimit"))
    assert "raise the process limit (ulimit -u)" in result.err
    assert_all_there(full)


@pytest.mark.parametrize(
    "most", [180, 260, 400, 560, 600, 650, 700] if FULL else [180, 400, 650]
)  # MiB
def test_mirror_leaves_memory_for_the_work_itself(
    program: Program, full: EmbeddedRegistry, most: int
) -> None:
    """Threads reserve 72 MiB each: the last of the memory must not go to one."""
    limit = f"--as={most * 1024 * 1024}"
    result = limited(program, limit, "mirror", "plan.txt", f"{full.url}/copy", "--progress", "none")

    assert result.code == 0, result.err
    told_once(result.err)
    assert_all_there(full)


# Below that Python itself may end without an exception that could be caught.
@pytest.mark.parametrize("most", [55, 70, 90])  # MiB
def test_too_little_memory_is_a_line_that_names_the_limit(
    program: Program, full: EmbeddedRegistry, most: int
) -> None:
    limit = f"--as={most * 1024 * 1024}"
    result = limited(program, limit, "mirror", "plan.txt", f"{full.url}/copy", "--progress", "none")

    told_once(result.err)
    if result.code:
        last = result.err.splitlines()[-1]
        assert "memory" in last, result.err
        assert "ulimit -v" in last, result.err


@pytest.mark.parametrize("most", [8, 12, 16, 24])
@pytest.mark.parametrize("target", ["copy", "oci:layout:a", "oci-archive:a.tar:a", "file"])
def test_too_few_files_are_a_line_that_names_the_limit(
    program: Program, single: EmbeddedRegistry, most: int, target: str
) -> None:
    name, image = "app1", IMAGES["app1"]
    blob = next(iter(image.blobs))
    verb = ["copy", f"{single.url}/{name}:v1", f"{single.url}/copy/{name}:v1"]
    if target == "file":
        verb = ["blob", "pull", f"{single.url}/{name}@{blob}", "-o", "pulled"]
    elif target != "copy":
        verb[2] = target

    result = limited(program, f"--nofile={most}", *verb, "--progress", "none")

    assert "Traceback" not in result.err
    assert "unexpected" not in result.err
    if result.code:
        last = result.err.splitlines()[-1]
        assert "oo many open files" in last, result.err
        assert "ulimit -n" in last, result.err


def test_mirror_with_too_few_files_names_the_limit_for_each_image(
    program: Program, full: EmbeddedRegistry
) -> None:
    result = limited(
        program, "--nofile=14", "mirror", "plan.txt", "oci:layout", "--progress", "none"
    )

    assert result.code in (1, 3)
    failed = [line for line in result.err.splitlines() if line.startswith("concil: failed")]
    assert failed
    assert all("ulimit -n" in line for line in failed), result.err


def test_server_of_few_descriptors_serves_on_beside_a_crowd(
    program: Program, tmp_path: Path
) -> None:
    """It must not turn in circles: what waits stays ready to be accepted."""
    (tmp_path / "served").mkdir()
    argv = ["prlimit", "--nofile=24", *program.argv("serve", "served", "--addr", "127.0.0.1:0")]
    server = subprocess.Popen(
        argv,
        cwd=tmp_path,
        env=program.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    with server:
        try:
            assert server.stdout is not None
            found = re.search(r"http://([\d.]+):(\d+)", server.stdout.readline())
            assert found is not None
            address = found[1], int(found[2])
            crowd = [socket.create_connection(address, timeout=30) for _ in range(40)]
            line = server.stdout.readline()
            assert "more than 8 connections" in line
            assert "ulimit -n" in line
            for one in crowd:
                one.close()
            assert requests.get(f"http://{found[1]}:{found[2]}/v2/", timeout=30).status_code == 200
        finally:
            server.terminate()
            rest, _ = server.communicate(timeout=30)
    assert rest.count("\n") <= 2, rest[:2000]
    assert "Traceback" not in rest


@pytest.mark.parametrize("refusals", [1, listener._TRIES])
def test_server_asks_a_client_back_for_whom_no_thread_can_be_had(
    single: EmbeddedRegistry, monkeypatch: pytest.MonkeyPatch, refusals: int
) -> None:
    start = threading.Thread.start
    refused: list[threading.Thread] = []

    def refuse(thread: threading.Thread) -> None:
        if thread.name == "registry-client" and len(refused) < refusals:
            refused.append(thread)
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse)

    first, second = [requests.get(f"{single.url}/v2/", timeout=30) for _ in range(2)]

    if refusals == 1:
        assert first.status_code == 200
    else:
        assert (first.status_code, first.headers["Retry-After"]) == (503, "1")
    assert second.status_code == 200


def test_server_that_has_no_thread_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    registry = EmbeddedRegistry(tmp_path)

    with pytest.raises(LimitReached, match="no thread") as excinfo:
        registry.start()
    registry.close()

    assert "ulimit -u" in excinfo.value.remedy


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (MemoryError(), "ulimit -v"),
        (RuntimeError("can't start new thread"), "ulimit -u"),
        (RuntimeError("can't allocate lock"), "ulimit -v"),
        (OSError(24, "Too many open files"), "ulimit -n"),
        (OSError(23, "Too many open files in system"), "ulimit -n"),
        (OSError(12, "Cannot allocate memory"), "ulimit -v"),
        (ImportError("a.so: failed to map segment from shared object"), "ulimit -v"),
    ],
)
def test_errors_of_a_limit_name_it(error: BaseException, words: str) -> None:
    found = limit_error(error, "a copy")

    assert found is not None
    assert str(found).startswith("a copy: ")
    assert words in found.remedy


@pytest.mark.parametrize("error", [RuntimeError("other"), OSError(2, "no"), LimitReached("told")])
def test_other_errors_are_not_taken_for_one(error: BaseException) -> None:
    assert limit_error(error) is None
    assert describe_limit(error) is None


DYING = """
import sys
from concil.cli import signals

def put(self, event):
    raise MemoryError

signals._EventQueue.put = put
from concil.__main__ import main
sys.exit(main())
"""


def test_a_command_whose_thread_dies_for_want_of_memory_ends() -> None:
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", DYING, "tags", "127.0.0.1:1/a"],
        capture_output=True,
        timeout=30,
        check=False,
        text=True,
    )

    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    assert result.stderr
