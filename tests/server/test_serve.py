"""`concil serve`: starts, says where, serves, stops, and refuses with a remedy."""

from __future__ import annotations

import argparse
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from concil.cli.commands import serve
from concil.cli.options.listen_address import parse_listen_address
from concil.cli.parsers.serve import declare
from concil.errors import ConcilError
from tests.server.client import Client
from tests.support.images import make_image, write_layout

pytestmark = pytest.mark.process

PATIENCE = 30  # seconds
PROGRAM = """
import argparse, logging, sys
from concil.cli.commands import serve
from concil.cli.parsers.serve import declare
parser = argparse.ArgumentParser()
parser.add_argument("-v", "--verbose", action="count", default=0)
declare(parser.add_subparsers().add_parser("serve"))
arguments = parser.parse_args()
logging.basicConfig(level=logging.INFO if arguments.verbose else logging.WARNING)
sys.exit(serve.run(arguments))
"""


def parse(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    declare(parser.add_subparsers().add_parser("serve"))
    return parser.parse_args(["serve", *words])


@pytest.fixture
def layout(directory: Path) -> Path:
    write_layout(directory, {"app:v1": make_image(1)})
    return directory


@pytest.fixture
def program(layout: Path) -> Iterator[subprocess.Popen[str]]:
    with serving(layout, "--read-only") as process:
        yield process


@contextmanager
def serving(layout: Path, *more: str) -> Iterator[subprocess.Popen[str]]:
    words = ["-v", "serve", str(layout), "--addr", "127.0.0.1:0", *more]
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *words],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        yield process
        process.kill()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_prints_its_address_and_stops_on_a_signal(
    program: subprocess.Popen[str], layout: Path, number: int
) -> None:
    assert program.stdout is not None
    words = program.stdout.readline().split()
    assert words[:3] == ["serving", str(layout), "at"]

    with Client(words[3], "app") as client:
        assert client.tags() == ["v1"]
        assert client.post().status_code == 405
    program.send_signal(number)
    out, err = program.communicate(timeout=PATIENCE)

    assert program.returncode == 0
    assert out == ""
    assert "GET /v2/app/tags/list 200" in err
    assert "Traceback" not in err


def test_a_directory_that_is_missing_is_made(tmp_path: Path) -> None:
    with serving(tmp_path / "new") as process:
        assert process.stdout is not None
        words = process.stdout.readline().split()
        with Client(words[3], "app") as client:
            assert client.post().status_code == 202
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=PATIENCE)

    assert process.returncode == 0
    assert (tmp_path / "new" / "index.json").exists()


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:5000", ("127.0.0.1", 5000)),
        ("[::1]:0", ("::1", 0)),
        (":5000", ("0.0.0.0", 5000)),
        ("localhost:80", ("localhost", 80)),
    ],
)
def test_addresses_are_read(text: str, address: tuple[str, int]) -> None:
    assert parse_listen_address(text) == address


@pytest.mark.parametrize(
    "text", ["", "5000", "host", "host:", "host:x", "h:65536", "::1:5", "h:-1"]
)
def test_invalid_listen_address_is_refused(layout: Path, text: str) -> None:
    arguments = parse(str(layout), f"--addr={text}")

    with pytest.raises(ConcilError, match="not a listen address") as excinfo:
        serve.run(arguments)

    assert excinfo.value.remedy


def assert_refused(arguments: argparse.Namespace, why: str) -> None:
    with pytest.raises(ConcilError, match=why) as excinfo:
        serve.run(arguments)
    assert "\n" not in str(excinfo.value)
    assert excinfo.value.remedy


def test_a_port_in_use_is_refused(layout: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"

        assert_refused(parse(str(layout), "--addr", address), "Address already in use")


def test_an_address_of_another_machine_is_refused(layout: Path) -> None:
    assert_refused(parse(str(layout), "--addr", "192.0.2.1:0"), "cannot listen")


@pytest.mark.parametrize(
    ("name", "words", "message"),
    [
        ("missing", ["--read-only"], "directory does not exist"),
        ("missing/layout", [], "the directory .*missing' does not exist"),
        ("file/layout", [], "cannot create"),
        ("dangling", [], "cannot create"),
    ],
)
def test_a_directory_that_cannot_be_made_is_refused(
    tmp_path: Path, name: str, words: list[str], message: str
) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")

    assert_refused(parse(str(tmp_path / name), *words), message)
    assert not (tmp_path / "missing").exists()


def test_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")

    arguments = parse(str(tmp_path / "file"))

    assert_refused(arguments, "not a directory")
    with pytest.raises(ConcilError) as excinfo:
        serve.run(arguments)
    assert "concil copy --all oci-archive:FILE oci:DIR" in excinfo.value.remedy


@pytest.mark.parametrize("words", [[], ["--read-only"]])
def test_a_directory_with_something_else_is_refused(tmp_path: Path, words: list[str]) -> None:
    (tmp_path / "file").write_text("x")

    assert_refused(parse(str(tmp_path), *words), "not an OCI image layout")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_an_empty_directory_is_refused_read_only(tmp_path: Path) -> None:
    assert_refused(parse(str(tmp_path), "--read-only"), "not an OCI image layout")


def test_a_broken_index_is_refused(layout: Path) -> None:
    (layout / "index.json").write_text("{")

    assert_refused(parse(str(layout)), "index.json")
