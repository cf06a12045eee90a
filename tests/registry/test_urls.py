"""URLs: origins, what is shown of them, where a Location points to."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from concil.errors import ProtocolViolation
from concil.registry.urls import host_of, origin, redacted, resolve, with_query
from tests.registry.wiring import UNTIMED

ANSWERED = "https://reg.example:5000/v2/team/app/blobs/uploads/"


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://reg.example/v2/", ("https", "reg.example", 443)),
        ("http://reg.example/v2/", ("http", "reg.example", 80)),
        ("HTTPS://Reg.Example.:443/", ("https", "reg.example", 443)),
        ("https://user:pw@reg.example:5000/x", ("https", "reg.example", 5000)),
        ("http://[::1]:5000/", ("http", "::1", 5000)),
    ],
)
def test_origins(url: str, expected: tuple[str, str, int]) -> None:
    assert origin(url) == expected


@pytest.mark.parametrize(
    "url",
    ["ftp://host/x", "/v2/", "https:///x", "https://host:99999/", "http://[::1/", "http://h:x/"],
)
def test_what_is_no_url_of_a_registry_has_no_origin(url: str) -> None:
    with pytest.raises(ProtocolViolation):
        origin(url)


@pytest.mark.parametrize(
    ("location", "expected"),
    [
        pytest.param(
            "/v2/x?_state=a%2Bb%3D", "https://reg.example:5000/v2/x?_state=a%2Bb%3D", id="path"
        ),
        pytest.param(
            "uuid?_state=a%2Bb", ANSWERED + "uuid?_state=a%2Bb", id="relative to what answered"
        ),
        pytest.param("?_stateHash=9", ANSWERED + "?_stateHash=9", id="a query alone"),
        pytest.param("../other", "https://reg.example:5000/v2/team/app/blobs/other", id="dots"),
        pytest.param(
            "https://storage.example/k?X-Sig=a%2Fb",
            "https://storage.example/k?X-Sig=a%2Fb",
            id="else",
        ),
        pytest.param("//storage.example/k", "https://storage.example/k", id="without a scheme"),
        pytest.param("storage.example/k", "https://storage.example/k", id="without scheme and //"),
        pytest.param("storage:5000/k", "https://storage:5000/k", id="a port and no scheme"),
        # A registry behind a TLS proxy does not know that it is.
        pytest.param(
            "http://reg.example/v2/x?a=1", "https://reg.example:5000/v2/x?a=1", id="http, no port"
        ),
        pytest.param(
            "http://reg.example:5000/v2/x", "https://reg.example:5000/v2/x", id="http, same port"
        ),
        pytest.param(
            "http://reg.example:443/v2/x", "https://reg.example:443/v2/x", id="nexus: http on 443"
        ),
    ],
)
def test_a_location_is_resolved(location: str, expected: str) -> None:
    assert resolve(ANSWERED, location) == expected


@pytest.mark.parametrize(
    "location",
    [
        "http://elsewhere.example/x",  # from https to http at another host
        "ftp://reg.example/x",
        "file:///etc/passwd",
        "http://[::1/x",
        "https://reg.example:port/x",
    ],
)
def test_a_location_that_leads_astray_is_refused(location: str) -> None:
    with pytest.raises(ProtocolViolation):
        resolve(ANSWERED, location)


def test_http_stays_http() -> None:
    assert resolve("http://reg.example/v2/", "http://b.example/x") == "http://b.example/x"


@UNTIMED
@given(st.text(max_size=60) | st.text("[]:/?#@.%h tps\\", max_size=30).map("http://".__add__))
def test_no_location_raises_anything_else(location: str) -> None:
    try:
        target = resolve(ANSWERED, location)
    except ProtocolViolation:
        return
    assert origin(target)[0] == "https"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://user:pw@h.example:5000/v2/x", "https://h.example:5000/v2/x"),
        ("https://h/v2/a/blobs/uploads/9f?_state=secret", "https://h/v2/a/blobs/uploads/<session>"),
        ("https://h/v2/a/blobs/uploads/", "https://h/v2/a/blobs/uploads/"),
        ("https://s3/k?X-Amz-Signature=abc&n=3", "https://s3/k?n=3"),
        ("https://h/x?digest=sha256:aa#token=1", "https://h/x?digest=sha256:aa"),
        (
            "https://a/token?service=s&scope=repository:x:pull,push&password=p",
            "https://a/token?service=s&scope=repository:x:pull,push",
        ),
    ],
)
def test_secrets_are_not_shown(url: str, shown: str) -> None:
    assert redacted(url) == shown


SECRET = "s3cr3t"


@UNTIMED
@given(
    st.sampled_from(["_state", "X-Amz-Signature", "token", "sig", "Digest", "n%3d", "a;n"]),
    st.text("abc&=?/%;+", max_size=10),
)
def test_no_unknown_parameter_is_shown(name: str, rest: str) -> None:
    rest = rest.replace("&", "")

    assert SECRET not in redacted(f"https://u:{SECRET}@h/v2/?{name}={SECRET}{rest}")


@UNTIMED
@given(st.text(max_size=40) | st.text("[]:/?#@.%h", max_size=20).map("http://".__add__))
def test_any_text_can_be_shown(text: str) -> None:
    assert isinstance(redacted(text), str)
    assert isinstance(host_of(text), str)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://h/x", "https://h/x?digest=sha256:ab"),
        ("https://h/x?_state=a%2Bb%3D%3D", "https://h/x?_state=a%2Bb%3D%3D&digest=sha256:ab"),
        ("https://h/x?a=1#part", "https://h/x?a=1&digest=sha256:ab#part"),
    ],
)
def test_a_parameter_is_added_and_the_rest_stays_byte_for_byte(url: str, expected: str) -> None:
    assert with_query(url, "digest", "sha256:ab") == expected
