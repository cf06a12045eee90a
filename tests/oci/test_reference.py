"""References and store addresses, as people write them."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from concil.errors import ConcilError, InvalidReference
from concil.oci.address import (
    DOCKER_ARCHIVE,
    OCI_ARCHIVE,
    LayoutAddress,
    parse_address,
)
from concil.oci.manifest import Digest
from concil.oci.reference import (
    Reference,
    check_repository,
    check_tag,
    is_loopback,
)
from concil.oci.referrers_tag import referrers_tag, split_digest_tag, tag_beside_image

UNTIMED = settings(deadline=None, database=None)
HEX = "ab" * 32
DIGEST = f"sha256:{HEX}"


@pytest.mark.parametrize(
    ("text", "host", "repository", "target"),
    [
        ("ubuntu", "docker.io", "library/ubuntu", "latest"),
        ("ubuntu:22.04", "docker.io", "library/ubuntu", "22.04"),
        ("ubuntu:5000", "docker.io", "library/ubuntu", "5000"),
        ("grafana/loki", "docker.io", "grafana/loki", "latest"),
        ("docker.io/ubuntu", "docker.io", "library/ubuntu", "latest"),
        ("index.docker.io/a/b", "docker.io", "a/b", "latest"),
        ("registry-1.docker.io/ubuntu", "docker.io", "library/ubuntu", "latest"),
        ("Docker.IO/ubuntu", "docker.io", "library/ubuntu", "latest"),
        ("quay.io/a/b/c:1_x.Y-z", "quay.io", "a/b/c", "1_x.Y-z"),
        ("localhost/app", "localhost", "app", "latest"),
        ("localhost:5000/app:1", "localhost:5000", "app", "1"),
        ("host:5000/app", "host:5000", "app", "latest"),
        ("HOST/app", "host", "app", "latest"),
        ("127.0.0.1:5000/app", "127.0.0.1:5000", "app", "latest"),
        ("[::1]:5000/app:1", "[::1]:5000", "app", "1"),
        ("[2001:db8::1]/app", "[2001:db8::1]", "app", "latest"),
        ("reg.example./app", "reg.example.", "app", "latest"),
        (f"quay.io/a@{DIGEST}", "quay.io", "a", DIGEST),
        (f"quay.io/a:1@{DIGEST}", "quay.io", "a", DIGEST),
        ("docker://ubuntu", "docker.io", "library/ubuntu", "latest"),
        ("docker://a/b", "docker.io", "a/b", "latest"),
        ("docker://h.example/a__b/c---d.e:1", "h.example", "a__b/c---d.e", "1"),
        ("http://host/app", "host", "app", "latest"),
        ("https://host/app:1", "host", "app", "1"),
    ],
)
def test_references(text: str, host: str, repository: str, target: str) -> None:
    reference = parse_address(text)

    assert isinstance(reference, Reference)
    assert (reference.host, reference.repository, reference.manifest_reference) == (
        host,
        repository,
        target,
    )


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("ubuntu", "https://registry-1.docker.io"),
        ("localhost:5000/a", "https://localhost:5000"),
        ("https://h/a", "https://h"),
        ("http://h:80/a", "http://h:80"),
    ],
)
def test_where_the_api_is(text: str, url: str) -> None:
    reference = Reference.parse(text)

    assert f"{reference.api_scheme}://{reference.api_host}" == url


def test_the_digest_decides_and_the_tag_is_kept_for_people() -> None:
    reference = Reference.parse(f"quay.io/a:1@{DIGEST}")

    assert reference.tag == "1"
    assert reference.digest == Digest.parse(DIGEST)
    assert reference.manifest_reference == DIGEST
    assert str(reference) == f"quay.io/a:1@{DIGEST}"


@pytest.mark.parametrize(
    ("text", "username", "password"),
    [
        ("docker://user:pass@host/a", "user", "pass"),
        ("docker://user@host/a", "user", None),
        ("docker://:@host/a", "", ""),
        ("docker://us%40er:p%3Aa%2Fs@host/a", "us@er", "p:a/s"),
        ("user:pa:ss@host.example/a", "user", "pa:ss"),
        (f"docker://u:word@host/a@{DIGEST}", "u", "word"),
    ],
)
def test_user_and_password(text: str, username: str, password: str | None) -> None:
    reference = Reference.parse(text)

    assert (reference.username, reference.password) == (username, password)
    assert reference.repository == "a"
    if password:
        assert password not in str(reference)
        assert password not in repr(reference)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://host/a:1", "https://host/a:1"),
        ("docker://u:p@host/a", "https://host/a"),
        ("https://host.example/a", "host.example/a"),
        ("http://host/a", "http://host/a"),
        ("https://localhost/a", "localhost/a"),
    ],
)
def test_a_host_that_does_not_look_like_one_keeps_its_scheme(text: str, shown: str) -> None:
    assert str(Reference.parse(text)) == shown
    assert Reference.parse(shown).host == Reference.parse(text).host


def test_another_tag_of_the_same_repository() -> None:
    reference = Reference.parse(f"http://u:p@h:1/a:1@{DIGEST}")

    assert str(reference.with_reference(tag="2")) == "http://h:1/a:2"
    assert str(reference.with_reference()) == reference.repository_address == "http://h:1/a"
    assert reference.with_reference(tag="2").password == "p"


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("", "not a reference"),
        ("a b", "not a reference"),
        ("a\n", "not a reference"),
        ("a\x7f", "not a reference"),
        ("ftp://host/a", "unknown scheme 'ftp'"),
        ("ftp://x/y", "unknown scheme"),
        ("host.example/", "no repository"),
        ("host.example/Upper", "repository name: 'Upper'"),
        ("host.example/a//b", "repository name"),
        ("host.example/../etc", "repository name"),
        ("host.example/-a", "repository name"),
        ("host.example/a___b", "repository name"),
        ("host.example/" + "a" * 256, "repository name"),
        ("host.example/a:", "not a tag: ''"),
        ("host.example/a:.x", "not a tag"),
        ("host.example/a:" + "x" * 129, "not a tag"),
        ("host.example/a:b:c", "not a tag"),
        ("host.example/a@", "not a digest"),
        ("host.example/a@sha256:123", "not a digest"),
        (f"host.example/a@{DIGEST}0", "not a digest"),
        (f"host.example/a@{DIGEST}:tag", "not a digest"),
        ("host.example:port/a", "not a host name"),
        ("host.example:0/a", "not a host name"),
        ("host.example:65536/a", "not a host name"),
        ("-host.example/a", "not a host name"),
        ("host..example/a", "not a host name"),
        ("[::1/a", "not a host name"),
        ("[::g]/a", "not a host name"),
        ("[1:2]/a", "not an IPv6 address"),
        ("http://host", "no repository"),
        ("https://localhost:5000", "no repository"),
        ("docker://user:secret@a", "not a digest"),
        ("http://user:secret@host", "no repository"),
        (f"Ubuntu@{DIGEST}", HEX),
        ("docker://", "repository name"),
        ("docker:///a", "repository name"),
        ("docker://u:secret@host/A", "repository name"),
    ],
)
def test_what_is_wrong_is_named(text: str, named: str) -> None:
    with pytest.raises(InvalidReference) as excinfo:
        parse_address(text)

    message = str(excinfo.value)
    assert named in message
    assert "secret" not in message
    assert message.isprintable()
    assert isinstance(excinfo.value, ValueError)


def test_a_password_in_an_unknown_scheme_is_not_shown() -> None:
    with pytest.raises(InvalidReference) as excinfo:
        Reference.parse("ftp://user:secret@host/a")

    assert "secret" not in str(excinfo.value)


PART = st.from_regex(r"[a-z0-9]+([._-][a-z0-9]+)?", fullmatch=True).filter(lambda p: len(p) < 30)
REPOSITORY = st.lists(PART, min_size=1, max_size=3).map("/".join)
TAG = st.from_regex(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,20}", fullmatch=True)
HOST = st.sampled_from(
    [
        "quay.io",
        "localhost",
        "localhost:5000",
        "[::1]:5000",
        "h:1",
        "a-b.example:65535",
        "docker.io",
    ]
)


@UNTIMED
@given(HOST, REPOSITORY, st.none() | TAG, st.booleans(), st.booleans())
def test_what_is_written_is_read_again(
    host: str, repository: str, tag: str | None, pinned: bool, plain: bool
) -> None:
    text = f"{'http://' if plain else ''}{host}/{repository}"
    text += (f":{tag}" if tag else "") + (f"@{DIGEST}" if pinned else "")

    reference = Reference.parse(text)

    assert Reference.parse(str(reference)) == reference
    if host != "docker.io" or "/" in repository:
        assert str(reference) == text


@UNTIMED
@given(st.text(max_size=60) | st.text("a./:@[]-_%oci ~0sha256", max_size=60))
def test_no_text_raises_anything_but_ours(text: str) -> None:
    try:
        address = parse_address(text)
    except InvalidReference:
        return
    assert str(parse_address(str(address))) == str(address)


@pytest.mark.parametrize("text", ["@0/0", "oci:a@b", "HOST/a"])
def test_what_is_shown_is_read_as_the_same(text: str) -> None:
    assert str(parse_address(str(parse_address(text)))) == str(parse_address(text))


@UNTIMED
@given(st.text(max_size=300))
def test_names_are_checked_before_they_are_part_of_a_url(text: str) -> None:
    for check in (check_tag, check_repository):
        try:
            assert check(text) == text
        except ConcilError:
            continue
        assert not {"?", "#", "%", " ", "\\"} & set(text)
        assert ".." not in text.split("/")


# Layouts -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("oci:dir", LayoutAddress("dir")),
        ("oci:dir:v1", LayoutAddress("dir", "v1")),
        ("oci:/a b/c:v1", LayoutAddress("/a b/c", "v1")),
        ("oci:dir:quay.io/a/b:v1", LayoutAddress("dir", "quay.io/a/b:v1")),
        (f"oci:dir@{DIGEST}", LayoutAddress("dir", None, Digest.parse(DIGEST))),
        (f"oci:dir:v1@{DIGEST}", LayoutAddress("dir", "v1", Digest.parse(DIGEST))),
        ("oci:a@b", LayoutAddress("a@b")),
        ("oci-archive:a b.tar", LayoutAddress("a b.tar", scheme=OCI_ARCHIVE)),
        ("oci-archive:f:v1", LayoutAddress("f", "v1", scheme=OCI_ARCHIVE)),
        (f"oci-archive:f@{DIGEST}", LayoutAddress("f", None, Digest.parse(DIGEST), OCI_ARCHIVE)),
        ("docker-archive:f", LayoutAddress("f", scheme=DOCKER_ARCHIVE)),
        ("docker-archive:f:@2", LayoutAddress("f", "@2", scheme=DOCKER_ARCHIVE)),
        # The first colon ends the path, as in skopeo.
        ("oci-archive:a:b/c:1", LayoutAddress("a", "b/c:1", scheme=OCI_ARCHIVE)),
    ],
)
def test_layouts(text: str, expected: LayoutAddress) -> None:
    assert parse_address(text) == expected
    assert str(expected) == text


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("oci:", "no path"),
        ("oci::v1", "no path"),
        ("oci:dir:", "not an image name"),
        ("oci:dir:a//b", "not an image name"),
        ("oci:dir:v 1", "not an image name"),
        ("oci:dir@sha256:12", "not a digest"),
        ("oci:a\nb", "not a reference"),
        ("oci:\x00", "not a reference"),
        ("oci-archive:", "no path"),
        ("oci-archive:f:", "not an image name"),
        ("docker-archive::a", "no path"),
        ("docker-archive:f:", "not a tag"),
        ("docker-archive:f:UPPER", "not a tag"),
        ("docker-archive:f:user@host/a", "not a tag"),
        ("docker-archive:f:http://host/a", "not a tag"),
        ("docker-archive:f:a@sha256:12", "not a digest"),
        ("docker-archive:a\nb", "not a reference"),
    ],
)
def test_layouts_that_cannot_be(text: str, named: str) -> None:
    with pytest.raises(InvalidReference, match=named):
        parse_address(text)


@pytest.mark.parametrize(
    ("written", "full"),
    [
        ("alpine", "docker.io/library/alpine:latest"),
        ("alpine:3", "docker.io/library/alpine:3"),
        ("localhost/app:1", "localhost/app:1"),
        ("host:5000/app", "host:5000/app:latest"),
    ],
)
def test_tags_of_a_docker_archive_are_known_in_full(written: str, full: str) -> None:
    address = parse_address(f"docker-archive:f.tar:{written}")

    assert address == LayoutAddress("f.tar", full, scheme=DOCKER_ARCHIVE)


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("localhost", True),
        ("localhost:5000", True),
        ("LOCALHOST.", True),
        ("a.localhost", True),
        ("127.0.0.1:5000", True),
        ("127.9.9.9", True),
        ("[::1]:5000", True),
        ("[::1]", True),
        ("::1", True),
        ("[::2]", False),
        ("[::1].example", False),
        ("[::1]@example", False),
        ("[::1", False),
        ("127.0.0.1.example", False),
        ("localhost.example", False),
        ("10.0.0.1", False),
        ("0.0.0.0", False),
        ("", False),
    ],
)
def test_loopback_is_known_by_name(host: str, loopback: bool) -> None:
    assert is_loopback(host) is loopback


@pytest.mark.parametrize(
    ("tag", "parts"),
    [
        (f"sha256-{HEX}", (f"sha256-{HEX}", "")),
        (f"sha256-{HEX}.sig", (f"sha256-{HEX}", ".sig")),
        (f"sha512-{HEX}.a.b-c_d", (f"sha512-{HEX}", ".a.b-c_d")),
        (f"sha256-{HEX}.", None),
        (f"sha256-{HEX}0", None),
        (f"sha256-{HEX.upper()}", None),
        (f"sha1-{HEX}", None),
        ("v1", None),
        ("", None),
    ],
)
def test_tags_that_are_named_by_a_digest(tag: str, parts: tuple[str, str] | None) -> None:
    assert split_digest_tag(tag) == parts


def test_tag_of_a_digest_is_never_too_long() -> None:
    assert referrers_tag(Digest("sha256", HEX)) == f"sha256-{HEX}"
    assert referrers_tag(Digest("sha512", HEX + HEX)) == f"sha512-{HEX}"


@pytest.mark.parametrize(
    ("reference", "found"),
    [
        ("v1", "t"),
        ("", "t"),
        (f"sha256:{HEX}", "t"),
        ("docker.io/library/app:v1", "docker.io/library/app:t"),
        ("localhost:5000/app:v1", "localhost:5000/app:t"),
        ("localhost:5000/app", "t"),
        ("app:v1", "app:t"),
        (f"docker.io/library/app:v1@sha256:{HEX}", "docker.io/library/app:t"),
    ],
)
def test_tag_beside_another(reference: str, found: str) -> None:
    assert tag_beside_image(reference, "t") == found
