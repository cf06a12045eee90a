"""Files of logins: whatever is in them, a login, nothing, or one clear error."""

from __future__ import annotations

import base64
import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from concil.auth.credentials.credentials import Credentials
from concil.auth.credentials.docker_config import (
    AuthFile,
    iter_parent_keys,
    normalize_auth_key,
    to_file_key,
)
from concil.errors import AccessDenied
from tests.support.quick_retries import UNTIMED

ALICE = Credentials("alice", "s3cr3t")
HUB = "https://index.docker.io/v1/"


def encoded(pair: str | bytes) -> str:
    raw = pair if isinstance(pair, bytes) else pair.encode()
    return base64.b64encode(raw).decode()


def read(**document: Any) -> AuthFile:  # noqa: ANN401 - JSON
    return AuthFile.parse(json.dumps(document).encode(), "config.json")


@pytest.mark.parametrize(
    ("key", "place"),
    [
        ("reg.example", "reg.example"),
        ("REG.example:5000", "reg.example:5000"),
        ("https://reg.example", "reg.example"),
        ("https://reg.example/v2/", "reg.example"),
        ("http://reg.example:5000/v1/", "reg.example:5000"),
        ("reg.example/team/app", "reg.example/team/app"),
        ("reg.example/", "reg.example"),
        (HUB, "docker.io"),
        ("docker.io", "docker.io"),
        ("registry-1.docker.io/library/alpine", "docker.io/library/alpine"),
        ("[::1]:5000", "[::1]:5000"),
        ("", ""),
    ],
)
def test_what_a_key_is_for(key: str, place: str) -> None:
    assert normalize_auth_key(key) == place
    assert normalize_auth_key(to_file_key(place)) == place


def test_a_place_is_in_all_that_is_around_it() -> None:
    assert list(iter_parent_keys("h:1/a/b")) == ["h:1/a/b", "h:1/a", "h:1"]


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ({"auth": encoded("alice:s3cr3t")}, ALICE),
        ({"auth": encoded("alice:pa:ss")}, Credentials("alice", "pa:ss")),
        ({"auth": encoded("alice:s3cr3t\0\0")}, ALICE),
        ({"auth": encoded("j\u00fcrgen:p\u00e4ss")}, Credentials("j\u00fcrgen", "p\u00e4ss")),
        ({"auth": encoded("alice:s3cr3t")[:8] + "\n" + encoded("alice:s3cr3t")[8:]}, ALICE),
        ({"username": "alice", "password": "s3cr3t"}, ALICE),
        ({"auth": encoded("alice:"), "identitytoken": "id"}, Credentials("alice", "", "id")),
        ({"identitytoken": "id"}, Credentials("", "", "id")),
        ({"registrytoken": "reg"}, Credentials("", "", None, "reg")),
        ({"auth": encoded("alice:s3cr3t"), "email": "a@example"}, ALICE),
        ({}, None),
        ({"auth": ""}, None),
        ({"auth": None}, None),
        (None, None),
    ],
)
def test_what_an_entry_holds(entry: object, expected: Credentials | None) -> None:
    assert read(auths={"reg.example": entry}).get_credentials("reg.example") == expected


@pytest.mark.parametrize(
    "entry",
    [
        {"auth": "%%%s3cr3t"},
        {"auth": encoded("s3cr3t")},
        {"auth": encoded(b"alice:s3cr3t\xff")},
        {"auth": 5},
        {"username": ["s3cr3t"]},
        {"username": "\ud800"},
        "s3cr3t",
        ["s3cr3t"],
    ],
)
def test_a_broken_entry_is_named_and_harms_no_other(entry: object) -> None:
    file = read(auths={"reg.example": entry, "good.example": {"auth": encoded("alice:s3cr3t")}})

    assert file.get_credentials("good.example") == ALICE
    with pytest.raises(AccessDenied, match=r"config\.json: the entry for 'reg\.example'") as caught:
        file.get_credentials("reg.example")
    assert "s3cr3t" not in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    "content",
    [
        b"s3cr3t",
        b"[]",
        b'"s3cr3t"',
        b"null",
        b'{"auths": ["s3cr3t"]}',
        b'{"credHelpers": "s3cr3t"}',
        b'{"credsStore": {"s3cr3t": 1}}',
        b'{"auths": {"h": {"auth": "s3cr3t"',
        b"\xff\xfe\xff",
        b"[" * 100_000,
        b'{"a":' + b"9" * 5000 + b"}",
    ],
)
def test_a_broken_file_is_named_and_not_shown(content: bytes) -> None:
    with pytest.raises(AccessDenied, match=r"config\.json") as caught:
        AuthFile.parse(content, "config.json")

    assert "s3cr3t" not in f"{caught.value} {caught.value.remedy}"
    assert "\n" not in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize("content", [b"", b" \n", b"{}", b'{"auths": null, "credHelpers": null}'])
def test_an_empty_file_has_no_logins(content: bytes) -> None:
    file = AuthFile.parse(content, "config.json")

    assert file.auth_keys == frozenset()
    assert file.helper_name("reg.example") is None
    assert file.get_credentials("reg.example") is None


def test_the_plain_key_wins_over_urls() -> None:
    other = {"auth": encoded("other:x")}
    mine = {"auth": encoded("alice:s3cr3t")}

    file = read(
        auths={
            "https://reg.example/v1/": other,
            "reg.example": mine,
            f"{HUB}access-token": other,
            "docker.io": other,
            HUB: mine,
        }
    )

    assert file.get_credentials("reg.example") == ALICE
    assert file.get_credentials("docker.io") == ALICE


def test_a_helper_of_the_host_wins_over_the_store() -> None:
    file = read(
        credsStore="general",
        credHelpers={"https://reg.example/": "special", "plain.example": "", HUB: "hub"},
    )

    assert file.helper_name("reg.example") == "special"
    assert file.helper_name("other.example") == "general"
    assert file.helper_name("plain.example") is None
    assert file.helper_name("docker.io") == "hub"


def test_all_else_in_the_file_stays() -> None:
    auths = {"other.example": {"auth": "kept as it is", "email": "e"}, "reg.example": {}}
    before = {
        "HttpHeaders": {"X": "y"},
        "auths": auths,
        "credsStore": "x",
        "future": [1, 2.5, None, "\u00e4\ud800"],
    }

    after = json.loads(read(**before).with_entry("reg.example", ALICE))

    assert after == {**before, "auths": {**auths, "reg.example": after_entry(ALICE)}}
    assert list(after) == list(before)


def after_entry(credentials: Credentials) -> dict[str, str]:
    return {"auth": encoded(f"{credentials.username}:{credentials.password}")}


def test_an_entry_replaces_every_spelling_of_its_place() -> None:
    auths = {"https://index.docker.io/v1/": {"auth": "x"}, "docker.io": {}, "docker.io/me": {}}

    changed = json.loads(read(auths=auths).with_entry("docker.io", ALICE))["auths"]
    emptied = json.loads(read(auths=auths).without_entry("docker.io"))["auths"]

    assert changed == {"docker.io/me": {}, HUB: after_entry(ALICE)}
    assert emptied == {"docker.io/me": {}}


def test_an_identity_token_is_written_as_docker_does() -> None:
    token = Credentials.from_identity_token("id3ntity")

    written = read().with_entry("reg.example", token)

    entry = {"auth": encoded("<token>:"), "identitytoken": "id3ntity"}
    assert json.loads(written) == {"auths": {"reg.example": entry}}
    assert AuthFile.parse(written, "again").get_credentials("reg.example") == token


def test_a_helper_leaves_an_empty_entry() -> None:
    assert json.loads(read().with_entry("reg.example", None)) == {"auths": {"reg.example": {}}}


KEYS = st.sampled_from(["reg.example", "https://reg.example/v1/", HUB, "x/y", ""]) | st.text()
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=10,
)
FIELDS = ["auth", "username", "password", "identitytoken", "registrytoken"]
ENTRIES = st.dictionaries(st.sampled_from(FIELDS), JSON) | JSON
FILES = st.fixed_dictionaries(
    {},
    optional={
        "auths": st.dictionaries(KEYS, ENTRIES, max_size=4) | JSON,
        "credHelpers": st.dictionaries(KEYS, JSON, max_size=3) | JSON,
        "credsStore": JSON,
    },
)


def look(content: bytes) -> None:
    """Do all that can be done with a file."""
    try:
        file = AuthFile.parse(content, "config.json")
    except AccessDenied:
        return
    for place in (*file.auth_keys, *file.hosts_with_helper, "reg.example", "docker.io"):
        for ask in (file.get_credentials, file.helper_name):
            with contextlib.suppress(AccessDenied):
                ask(place)
        AuthFile.parse(file.with_entry(place, ALICE), "again")
        AuthFile.parse(file.without_entry(place), "again")


@UNTIMED
@given(FILES)
def test_no_file_raises_anything_but_ours(document: object) -> None:
    look(json.dumps(document).encode())


@UNTIMED
@given(st.binary(max_size=200) | st.text(max_size=100).map(str.encode))
def test_no_bytes_raise_anything_but_ours(content: bytes) -> None:
    look(content)


def test_names_of_fields_may_be_in_any_case() -> None:
    """Docker reads the file by Go's decoder; what is written keeps the spelling."""
    document = {
        "Auths": {"reg.example": {"Auth": base64.b64encode(b"alice:s3cr3t").decode()}},
        "CREDHELPERS": {"helped.example": "lab"},
        "credsstore": "all",
    }
    file = AuthFile.parse(json.dumps(document).encode(), "config.json")

    assert file.get_credentials("reg.example") == ALICE
    assert file.helper_name("helped.example") == "lab"
    assert file.helper_name("other.example") == "all"
    written = json.loads(file.with_entry("new.example", ALICE))
    assert written.keys() == document.keys()
    assert written["Auths"].keys() == {"reg.example", "new.example"}
