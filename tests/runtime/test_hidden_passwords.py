"""An address with a password in it is shown without, whatever prints it."""

from __future__ import annotations

from pathlib import Path

import pytest

from concil import DockerHub, Engine, Journal, MirrorItem, Outcome, parse_docker_url
from concil.auth.token_service import Token
from concil.errors import ConcilError
from concil.fs.resume_state import WriterState
from concil.oci.address import parse_address
from concil.oci.reference import Reference
from concil.plan.loader import load_plan
from concil.runtime.redaction import without_user
from tests.support.secret_search import texts

ADDRESSES = [
    "https://alice:s3cret@host.example/team/app:v1",
    "alice:s3cret@host.example:5000/team/app:v1",
    "docker://alice:s3cret@host.example/team/app@sha256:" + "a" * 64,
    "http://alice:s3cret%2Fs3cret@[::1]:5000/team/app",
    "https://s3cret:@host.example/a",
    "https://alice:s3@s3cret@host.example/a",
]
# A slip in an address shows no password either.
SLIPS = [
    "https://alice:x/s3cret@host.example/a",
    "https://alice:s3cret/@host.example/a",
    "alice:s3cret/x@host.example/a",
    "alice:s3cret@host.example",
    "https://alice:s3cret@host.example:port/a",
    "https://alice:s3cret@ho st/a",
    "https://alice:s3cret@[half/a",
    "https://alice:s3cret@host.example/UPPER",
    "https://alice:s3cret@host.example/a@sha256:beef",
    "ftp://alice:s3cret@host.example/a",
]


@pytest.mark.parametrize("address", [*ADDRESSES, *SLIPS])
def test_an_item_is_shown_without_users_and_passwords(address: str) -> None:
    item = MirrorItem(address, address, more_destinations=(address,))
    outcome = Outcome(item, error=ConcilError("no"))

    for shown in (item, outcome, [outcome], {item: item}):
        assert "s3cret" not in f"{shown} {shown!r}"
    assert item.source == address


def test_an_item_is_shown_as_its_addresses() -> None:
    item = MirrorItem("https://u:p@h/a:1", "oci:a@b:1", ("linux/amd64",))

    assert str(item) == "https://<hidden>@h/a:1 -> oci:a@b:1"
    assert repr(item) == (
        "MirrorItem(source='https://<hidden>@h/a:1', destination='oci:a@b:1', "
        "platforms=('linux/amd64',), referrers=False, foreign_layers=<ForeignLayers.SKIP: 'skip'>, "
        "immutable=False, recheck=False, overwrite=True, verifier=None, "
        "more_destinations=())"
    )


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("host/a@sha256:12", "host/a@sha256:12"),
        ("u:p@host/a@sha256:12", "<hidden>@host/a@sha256:12"),
        ("https://host/a", "https://host/a"),
        ("oci:dir@home/x:1", "oci:dir@home/x:1"),
        ("docker-archive:a@b:x", "docker-archive:a@b:x"),
        ("oci://u:p@h/a", "oci://<hidden>@h/a"),
        ("", ""),
    ],
)
def test_what_is_no_user_stays(address: str, shown: str) -> None:
    assert without_user(address) == shown


@pytest.mark.parametrize("address", ADDRESSES)
def test_what_an_address_becomes_shows_no_password(address: str) -> None:
    reference = parse_address(address)
    assert isinstance(reference, Reference)
    assert reference.username
    for shown in (
        reference,
        reference.with_reference(tag="x"),
        parse_docker_url(f"docker://{address}"),
    ):
        assert "s3cret" not in f"{shown!r}"
    assert "s3cret" not in str(reference)


def test_a_client_shows_no_password() -> None:
    with DockerHub("docker://alice:s3cret@host.example/team/app") as hub:
        assert "s3cret" not in f"{hub} {hub!r} {hub.url}"
        assert hub.password == "s3cret"


@pytest.mark.parametrize("address", SLIPS)
def test_a_slip_in_an_address_shows_no_password(address: str) -> None:
    with pytest.raises(ConcilError) as info:
        parse_address(address)
    assert "s3cret" not in texts(info.value)


@pytest.mark.parametrize("address", SLIPS)
def test_a_slip_in_a_docker_url_shows_no_password(address: str) -> None:
    text = address if "://" in address else f"docker://{address}"
    with pytest.raises((ConcilError, StopIteration)) as info, DockerHub(text):
        raise StopIteration  # it was no slip to this reader
    assert "s3cret" not in texts(info.value)


def test_a_mirror_of_wrong_addresses_shows_no_password() -> None:
    with Engine(journal=Journal(None)) as engine:
        report = engine.mirror([MirrorItem(slip, "oci:x:y") for slip in SLIPS])

    assert len(report.failed) == len(SLIPS)
    for outcome in report.failed:
        assert outcome.error is not None
        assert "s3cret" not in f"{outcome} {outcome!r} {texts(outcome.error)}"


def test_tokens_and_sessions_are_in_no_repr() -> None:
    state = WriterState("https://h/v2/a/blobs/uploads/s3cret", 1, 2)

    assert "s3cret" not in f"{Token('Bearer s3cret', 0.0, 60.0, 's3cret')!r} {state!r}"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("plan", b"https://alice:s3cret@host.example/a:1 \xff\n"),
        ("plan.yaml", b"a: https://alice:s3cret@host.example/a:1\n b: [\n"),
        ("plan.yaml", b'pass: "s3cret\\q"\n'),
        ("plan.toml", b'source = "https://alice:s3cret@host.example/a:1\n'),
    ],
)
def test_a_broken_plan_shows_no_password(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)

    with pytest.raises(ConcilError) as info:
        load_plan(str(tmp_path / name))

    assert "s3cret" not in texts(info.value)


@pytest.mark.parametrize("text", ["h.example/a@latest", "h.example/a@sha256:../x", "h.example/a@b"])
def test_what_is_no_digest_is_not_taken_for_a_password(text: str) -> None:
    with pytest.raises(ConcilError, match=r"digest|hex"):
        parse_address(text)
