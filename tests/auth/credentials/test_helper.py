"""The helper protocol, and helpers that break it."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from pathlib import Path

import pytest

from concil.auth.credentials.credentials import Credentials
from concil.auth.credentials.helper import CredentialHelper
from concil.errors import AccessDenied, Cancelled
from tests.support.credential_helper import FakeCredentialHelper

ALICE = Credentials("alice", "s3cr3t")
SECRET = "s3cr3t"


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeCredentialHelper:
    return FakeCredentialHelper(tmp_path, monkeypatch)


def misbehaving(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> CredentialHelper:
    """A helper that runs a script."""
    FakeCredentialHelper(tmp_path, monkeypatch, script=script)
    return CredentialHelper("lab")


def test_what_is_stored_is_found_and_can_be_erased(fake: FakeCredentialHelper) -> None:
    helper = CredentialHelper("lab")

    helper.store("reg.example", ALICE)
    assert helper.get("reg.example") == ALICE
    assert helper.get("other.example") is None

    helper.erase("reg.example")
    assert helper.get("reg.example") is None
    assert fake.stored == {}


def test_no_secret_is_an_argument(fake: FakeCredentialHelper) -> None:
    CredentialHelper("lab").store("reg.example", ALICE)

    ((arguments, content),) = fake.calls
    assert arguments == ["store"]
    assert SECRET in content


def test_a_token_is_an_identity_token(fake: FakeCredentialHelper) -> None:
    fake.stored = {"reg.example": ["<token>", "id3ntity"]}

    found = CredentialHelper("lab").get("reg.example")

    assert found == Credentials("<token>", "", identity_token="id3ntity")
    CredentialHelper("lab").store("other.example", found)
    assert fake.stored["other.example"] == fake.stored["reg.example"]


def test_erasing_what_is_not_there_is_done(fake: FakeCredentialHelper) -> None:
    CredentialHelper("lab").erase("reg.example")

    assert fake.calls == [(["erase"], "reg.example")]


def test_an_answer_without_user_and_secret_is_none(fake: FakeCredentialHelper) -> None:
    fake.stored = {"reg.example": ["", ""]}

    assert CredentialHelper("lab").get("reg.example") is None


@pytest.mark.parametrize(
    "name", ["", "../evil", "a/b", "/bin/sh", ".hidden", "-x", "a b", "a\n", "x" * 65, "\0"]
)
def test_a_name_leads_nowhere_else(name: str) -> None:
    with pytest.raises(AccessDenied, match="not the name of a credential helper"):
        CredentialHelper(name)


def test_a_helper_that_is_missing_is_named() -> None:
    helper = CredentialHelper("concil-lab-has-none")

    assert not helper.is_installed
    with pytest.raises(AccessDenied, match=r"docker-credential-concil-lab-has-none.*reg\.example"):
        helper.get("reg.example")


SECRET_OF_BYTES = b'{"Username": "alice", "Secret": "s3cr3t\xff"}'
GOOD = '{"ServerURL": "reg.example", "Username": "alice", "Secret": "s3cr3t"}'


@pytest.mark.parametrize(
    ("output", "found"),
    [
        (GOOD.encode(), ALICE),
        (GOOD.lower().encode(), ALICE),
        (b'{"USERNAME": "alice", "SECRET": "s3cr3t"}', ALICE),
        (b'{"username": "eve", "Username": "alice", "secret": "s3cr3t"}', ALICE),
        (GOOD.encode() + b"\nA new release is available\n", ALICE),
        (GOOD.encode() + b'{"Username": "eve", "Secret": "other"}', ALICE),
        (GOOD.encode() + b" h\xe9las \xff", ALICE),
        (b"\r\n\t " + GOOD.encode(), ALICE),
        (b"\xef\xbb\xbf" + GOOD.encode(), ALICE),
        (
            b'{"username": "<token>", "secret": "id3ntity"}',
            Credentials.from_identity_token("id3ntity", ""),
        ),
        (b'{"Secret": "s3cr3t"}', Credentials("", SECRET)),
        (b'{"Username": null, "Secret": "s3cr3t"}', Credentials("", SECRET)),
        (b'{"Username": null, "Secret": null}', None),
        (b'{"Username": "\\u00e4", "Secret": "\xe2\x82\xac"}', Credentials("\u00e4", "\u20ac")),
    ],
)
def test_an_answer_is_read_as_docker_reads_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, output: bytes, found: Credentials | None
) -> None:
    script = f"import sys; sys.stdout.buffer.write({output!r})"

    assert misbehaving(tmp_path, monkeypatch, script).get("reg.example") == found


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("print('s3cr3t'); raise SystemExit(3)", "exit code 3"),
        ("print('s3cr3t')", "something that is not a login"),
        ("print('[]')", "something that is not a login"),
        ("print('{}')", "something that is not a login"),
        ("""print('{"Username": 1, "Secret": "s3cr3t"}')""", "something that is not a login"),
        ("""print('{"Username": "s3cr3t')""", "something that is not a login"),
        ("print('a notice s3cr3t {}')", "something that is not a login"),
        ("""print('{"ServerURL": "s3cr3t"} {"Username": "a", "Secret": "b"}')""", "not a login"),
        (f"import sys; sys.stdout.buffer.write({SECRET_OF_BYTES!r})", "is not a login"),
        ("print('[' * 60000)", "something that is not a login"),
        ("import sys; sys.stdout.buffer.write(b'\\xff')", "something that is not a login"),
        ("print('s3cr3t' * 100000)", "more than 65536 bytes"),
        ("while True: print('s3cr3t' * 1000)", "more than 65536 bytes"),
    ],
)
def test_a_helper_that_breaks_the_protocol(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, said: str
) -> None:
    helper = misbehaving(tmp_path, monkeypatch, script)

    with pytest.raises(AccessDenied, match=said) as caught:
        helper.get("reg.example")

    assert "docker-credential-lab" in str(caught.value)
    told = f"{caught.value} {caught.value.remedy}"
    assert "\n" not in told
    assert SECRET not in told
    assert caught.value.__cause__ is None


def test_a_file_that_is_no_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeCredentialHelper(tmp_path, monkeypatch)
    fake.program.write_text("#!/no/such/interpreter\n")

    with pytest.raises(AccessDenied, match="cannot be run"):
        CredentialHelper("lab").get("reg.example")


HANGS = """
import os, pathlib, time
child = os.fork()
pid = str(child or os.getpid())
if child:
    (pathlib.Path({home!r}) / "pid").write_text(pid)
time.sleep(600)
"""


def test_a_helper_that_hangs_is_ended_with_all_it_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    FakeCredentialHelper(tmp_path, monkeypatch, script=HANGS)
    cancel = threading.Event()
    failure: list[BaseException] = []

    def run() -> None:
        try:
            CredentialHelper("lab", cancel=cancel).get("reg.example")
        except BaseException as error:  # noqa: BLE001 - looked at below
            failure.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    child = wait_for_number(tmp_path / "pid")
    cancel.set()
    thread.join(30)

    assert isinstance(failure[0], Cancelled)
    assert_ends(child)


def test_a_helper_that_takes_too_long_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    FakeCredentialHelper(tmp_path, monkeypatch, script="import time; time.sleep(600)")

    with pytest.raises(
        AccessDenied, match=r"docker-credential-lab get .* did not finish within 0\.2 s"
    ):
        CredentialHelper("lab", timeout=0.2).get("reg.example")


def test_a_helper_may_close_its_output_before_it_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    helper = misbehaving(tmp_path, monkeypatch, "import os; os.close(1); os._exit(7)")

    with pytest.raises(AccessDenied, match="exit code 7"):
        helper.get("reg.example")


LEAVES = """
import os, pathlib, sys, time
child = os.fork()
if child:
    (pathlib.Path({home!r}) / "pid").write_text(str(child))
    print('{"Username": "alice", "Secret": "s3cr3t"}')
    sys.stdout.flush()
    os._exit(0)
time.sleep(600)
"""


def test_what_a_helper_leaves_running_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    helper = misbehaving(tmp_path, monkeypatch, LEAVES)
    try:
        assert helper.get("reg.example") == ALICE
    finally:
        os.kill(wait_for_number(tmp_path / "pid"), signal.SIGKILL)


def test_a_helper_need_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = """print('{"Username": "alice", "Secret": "s3cr3t"}')"""
    helper = misbehaving(tmp_path, monkeypatch, script)

    assert helper.get("reg.example" * 50_000) == ALICE


def wait_for_number(path: Path) -> int:
    """Wait until a file has a number in it."""
    end = time.monotonic() + 30
    while time.monotonic() < end:
        with contextlib.suppress(OSError, ValueError):
            return int(path.read_text())
        threading.Event().wait(0.01)
    raise AssertionError(f"nobody wrote {path}")


def assert_ends(pid: int) -> None:
    """Assert that a process that was killed goes away, or waits for its parent only."""
    end = time.monotonic() + 30
    while time.monotonic() < end:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return
        if state == "Z":
            return
        threading.Event().wait(0.01)
    raise AssertionError(f"process {pid} lives on")
