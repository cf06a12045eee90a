"""`concil mirror --processes`, as a person runs it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from concil.server import EmbeddedRegistry
from tests.cli.runner import PATIENCE, Cli, Program, assert_fails
from tests.support.child_pids import wait_for_children, wait_for_ends
from tests.support.images import Image, assert_same_image, make_image, make_layer, put_image
from tests.support.relay import Relay
from tests.support.scale import FULL

COUNT = 6
SHARED = make_layer(1, 2 << 20)
SLOW = 512 << 10  # bytes a second: the shared layer takes four
BEGUN = 300 << 10  # bytes
INTERRUPTED = re.compile(
    rf"concil: interrupted: \d+ of {COUNT} images done(; .*)?; run the same command again to resume"
)


@pytest.fixture
def images(tmp_path: Path) -> Iterator[dict[str, Image]]:
    """Write a list of images, one of which does not exist."""
    found = {f"app{n}": make_image(n, [SHARED, 1_000 + n]) for n in range(COUNT)}
    with EmbeddedRegistry(tmp_path / "source") as source:
        for name, image in found.items():
            put_image(source.url, name, "v1", image)
        lines = [f"{source.url}/{name}:v1\n" for name in found]
        (tmp_path / "list").write_text("".join(lines))
        (tmp_path / "list with one more").write_text("".join([*lines, f"{source.url}/none:v1\n"]))
        yield found


@pytest.fixture
def link(registry: EmbeddedRegistry) -> Iterator[Relay]:
    with Relay(registry.host) as relay:
        yield relay


def test_summary_report_and_exit_code_are_those_of_one_process(
    program: Program, registry: EmbeddedRegistry, images: dict[str, Image], tmp_path: Path
) -> None:
    report, page = tmp_path / "report.json", tmp_path / "report.html"
    words = ("--processes", "2", "--retry=1", "--report", report, "--report", page)

    result = program("mirror", "list with one more", f"{registry.url}/m", *words)

    assert result.code == 3, result.err
    assert f"{COUNT + 1} images: {COUNT} copied, 0 up to date, 1 failed" in result.out
    [failure] = [line for line in result.err.splitlines() if line.startswith("concil: failed: ")]
    assert "/none:v1" in failure
    document = json.loads(report.read_text())
    outcomes = {
        image["source"].rpartition("/")[2]: image["outcome"] for image in document["images"]
    }
    assert outcomes == {f"{name}:v1": "copied" for name in images} | {"none:v1": "failed"}
    assert document["summary"]["complete"]
    assert "process 1 concil-" in page.read_text()
    assert "process 2 concil-" in page.read_text()
    for name, image in images.items():
        assert_same_image(registry.url, f"m/{name}", "v1", image)


def test_json_events_come_in_one_stream(
    program: Program, registry: EmbeddedRegistry, images: dict[str, Image]
) -> None:
    words = ("--processes=2", "--progress=json", "-vv")

    result = program("mirror", "list", registry.url, *words)

    assert result.code == 0, result.err
    events = [json.loads(line) for line in result.err.splitlines()]
    done = [e["subject"] for e in events if e.get("kind") == "image" and e["state"] == "done"]
    assert sorted(name.rpartition("/")[2] for name in done) == [f"{name}:v1" for name in images]


def test_quiet_is_quiet(
    program: Program, registry: EmbeddedRegistry, images: dict[str, Image]
) -> None:
    result = program("mirror", "-q", "list", registry.url, "--processes=2")

    assert (result.code, result.raw, result.err) == (0, b"", "")


def test_unverified_tls_is_not_warned_of(
    program: Program, registry: EmbeddedRegistry, images: dict[str, Image]
) -> None:
    result = program(
        "mirror", "list", registry.url, "--processes=auto", "--insecure", "--progress=none"
    )

    assert (result.code, result.err) == (0, "")


@contextmanager
def started(program: Program, link: Relay, *words: str) -> Iterator[subprocess.Popen[bytes]]:
    """Start a mirror in a group of its own, as a terminal does, and wait until bytes move."""
    link.rate = SLOW
    running = subprocess.Popen(
        program.argv("mirror", "list", link.url, "--processes=2", "--progress=none", *words),
        cwd=program.directory,
        env=program.environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        link.wait_for(lambda relay: relay.bytes_up > BEGUN, PATIENCE)
        yield running
    finally:
        if running.poll() is None:
            os.killpg(running.pid, signal.SIGKILL)
            running.communicate()


@pytest.mark.parametrize(
    ("number", "group"),
    [
        (signal.SIGINT, True),
        (signal.SIGTERM, False),
        *([(signal.SIGINT, False), (signal.SIGTERM, True)] if FULL else []),
    ],
)
def test_interrupted_mirror_resumes_when_it_is_run_again(  # noqa: PLR0917 - fixtures
    program: Program,
    registry: EmbeddedRegistry,
    link: Relay,
    images: dict[str, Image],
    number: int,
    group: bool,
) -> None:
    with started(program, link) as running:
        children = wait_for_children(running.pid, 2)

        (os.killpg if group else os.kill)(running.pid, number)
        out, err = running.communicate(timeout=PATIENCE)
    wait_for_ends(children)
    link.rate = None
    again = program("mirror", "list", link.url, "--processes=2")

    assert (running.returncode, out) == (130, b"")
    assert INTERRUPTED.fullmatch(err.decode().splitlines()[-1])
    assert "Traceback" not in err.decode()
    assert again.code == 0, again.err
    for name, image in images.items():
        assert_same_image(registry.url, name, "v1", image)


def test_a_second_signal_ends_all_processes_at_once(
    program: Program, link: Relay, images: dict[str, Image]
) -> None:
    with started(program, link) as running:
        children = wait_for_children(running.pid, 2)
        # Two at once may arrive as one: another, until it has ended.
        while running.poll() is None:
            os.killpg(running.pid, signal.SIGINT)
            try:
                running.wait(0.5)
            except subprocess.TimeoutExpired:
                continue
        _, err = running.communicate(timeout=PATIENCE)
        wait_for_ends(children)

    assert running.returncode == 130
    [line] = err.decode().splitlines()
    assert INTERRUPTED.fullmatch(line)


def test_no_process_outlives_a_command_that_is_killed(
    program: Program, link: Relay, images: dict[str, Image]
) -> None:
    with started(program, link) as running:
        children = wait_for_children(running.pid, 2)

        running.kill()
        _, err = running.communicate(timeout=PATIENCE)
        wait_for_ends(children)

    assert err == b""


@pytest.mark.parametrize("value", ["0", "-1", "abc", "257", "1.5", ""])
def test_what_is_no_number_of_processes_is_one_line(cli: Cli, value: str) -> None:
    result = cli("mirror", "list", "host/m", f"--processes={value}")

    assert_fails(result, 2, "--processes", f"{value!r} is neither a number from 1 to 256 nor auto")


def test_archives_have_one_writer(cli_here: Cli, tmp_path: Path) -> None:
    (tmp_path / "list").write_text("host/a:v1\nhost/b:v1\n")

    result = cli_here("mirror", "list", "oci-archive:all.tar", "--processes=2")

    assert_fails(result, 2, "only one process can write an archive", "oci:DIR")


def test_processes_and_dask_exclude_each_other(cli_here: Cli, tmp_path: Path) -> None:
    (tmp_path / "list").write_text("host/a:v1\n")

    result = cli_here("mirror", "list", "host/m", "--processes=2", "--dask=tcp://127.0.0.1:1")

    assert_fails(result, 2, "--processes", "--dask", "omit one")
