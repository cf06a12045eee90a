"""URLs: origins, what is shown of them, where a Location points to."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from concil.errors import ProtocolViolation
from concil.http.network_policy import check_public, is_internal, resolve_host
from concil.http.redirects import resolve_location
from concil.http.urls import add_query_parameter, host_of, origin, redact_url
from tests.support.quick_retries import UNTIMED

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
    assert resolve_location(ANSWERED, location) == expected


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
        resolve_location(ANSWERED, location)


@pytest.mark.parametrize(
    "location",
    [
        # urllib finds home behind the @, a browser and urllib3 find the other host before it.
        "https://evil.example\\@reg.example:5000/x",
        "https://reg.example:5000\\@evil.example/x",
        "https://user:password@reg.example:5000/x",
        "https://reg.example:5000@evil.example/x",
        "https://reg.example%2eevil.example/x",
        "https://\uff11\uff12\uff17.0.0.1/x",  # digits that IDNA turns into 127
        "https://reg.example\u3002evil.example/x",
        "https://[fe80::1%25eth0]/x",
        "https://[::1].evil.example/x",
        "https://a b.example/x",
    ],
)
def test_a_host_that_two_readers_read_in_two_ways_is_refused(location: str) -> None:
    with pytest.raises(ProtocolViolation):
        resolve_location(ANSWERED, location)


LOOPBACK = [
    "localhost",
    "LocalHost.",
    "a.localhost",
    "localhost.localdomain",
    "ip6-localhost",
    "127.0.0.1",
    "127.0.0.1.",
    "127.1",
    "2130706433",
    "0x7f000001",
    "0x7f.1",
    "0177.0.0.01",
    "017700000001",
    "0.0.0.0",
    "0",
    "::",
    "::1",
    "0:0:0:0:0:0:0:1",
    "::ffff:127.0.0.1",
    "::ffff:7f00:1",
    "::127.0.0.1",
    "64:ff9b::7f00:1",
    "64:ff9b:1::127.0.0.1",
    "2002:7f00:1::",
]
LINK_LOCAL = ["169.254.169.254", "0xa9fea9fe", "2852039166", "fe80::1", "::ffff:169.254.169.254"]
PRIVATE = [
    "10.0.0.1",
    "10.1",
    "012.0.0.1",
    "172.16.0.1",
    "192.168.1.1",
    "100.64.0.1",
    "fd00::1",
    "fec0::1",
    "::ffff:10.0.0.1",
    "224.0.0.1",
    "ff02::1",
    "255.255.255.255",
]
PUBLIC = ["8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8", "reg.example", "localhost.example"]


@pytest.mark.parametrize("host", [*LOOPBACK, *LINK_LOCAL, *PRIVATE])
def test_a_host_inside_is_known_however_it_is_written(host: str) -> None:
    assert is_internal(host)


@pytest.mark.parametrize("host", PUBLIC)
def test_a_public_host_is_not_inside(host: str) -> None:
    assert not is_internal(host)


@UNTIMED
@given(st.text(max_size=40) | st.text("0123456789abcdefx.:%[]", max_size=40))
def test_any_text_can_be_judged(host: str) -> None:
    assert is_internal(host) in (True, False)


def _url(host: str) -> str:
    return f"http://[{host}]/x" if ":" in host else f"http://{host}/x"


@pytest.mark.parametrize("host", [*LOOPBACK, *LINK_LOCAL, *PRIVATE])
@pytest.mark.parametrize("home", ["http://reg.example/", "http://8.8.8.8/"])
def test_a_public_registry_leads_nobody_inside(home: str, host: str) -> None:
    with pytest.raises(ProtocolViolation, match="in a private network"):
        resolve_location(home, _url(host))


@pytest.mark.parametrize(
    ("home", "target"),
    [
        ("10.0.0.5", "127.0.0.1"),
        ("10.0.0.5", "localhost"),
        ("10.0.0.5", "169.254.169.254"),
        ("127.0.0.1", "169.254.169.254"),
        ("registry", "127.0.0.1"),
        ("registry.corp.internal", "169.254.169.254"),
        ("localhost.example", "10.0.0.1"),
    ],
)
def test_a_registry_inside_leads_nobody_to_what_is_only_this_machines(
    home: str, target: str
) -> None:
    with pytest.raises(ProtocolViolation, match="in a private network"):
        resolve_location(_url(home), _url(target))


@pytest.mark.parametrize(
    ("home", "target"),
    [
        ("10.0.0.5", "10.0.0.6"),
        ("10.0.0.5", "192.168.1.1"),
        ("127.0.0.1", "localhost"),
        ("localhost", "172.17.0.2"),
        ("registry", "10.0.0.6"),
        ("registry.local", "10.0.0.6"),
        ("169.254.1.1", "169.254.1.1"),
        ("10.0.0.5", "reg.example"),
        ("reg.example", "minio"),
        ("reg.example", "storage.example"),
    ],
)
def test_a_registry_inside_may_keep_its_blobs_beside_it(home: str, target: str) -> None:
    assert resolve_location(_url(home), _url(target)) == _url(target)


def test_http_stays_http() -> None:
    assert resolve_location("http://reg.example/v2/", "http://b.example/x") == "http://b.example/x"


@UNTIMED
@given(st.text(max_size=60) | st.text("[]:/?#@.%h tps\\", max_size=30).map("http://".__add__))
def test_no_location_raises_anything_else(location: str) -> None:
    try:
        target = resolve_location(ANSWERED, location)
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
        ("https://h/a\x1b[2Jb\x9bc", "https://h/a%1B%5B2Jb%C2%9Bc"),
        ("https://h\x1b/a", "https://h%1B/a"),
        ("https://h/" + "x" * 9000, "https://h/" + "x" * 299),
        (
            "https://a/token?service=s&scope=repository:x:pull,push&password=p",
            "https://a/token?service=s&scope=repository:x:pull,push",
        ),
    ],
)
def test_secrets_are_not_shown(url: str, shown: str) -> None:
    assert redact_url(url) == shown


SECRET = "s3cr3t"


@UNTIMED
@given(
    st.sampled_from(["_state", "X-Amz-Signature", "token", "sig", "Digest", "n%3d", "a;n"]),
    st.text("abc&=?/%;+", max_size=10),
)
def test_no_unknown_parameter_is_shown(name: str, rest: str) -> None:
    rest = rest.replace("&", "")

    assert SECRET not in redact_url(f"https://u:{SECRET}@h/v2/?{name}={SECRET}{rest}")


@UNTIMED
@given(st.text(max_size=40) | st.text("[]:/?#@.%h", max_size=20).map("http://".__add__))
def test_any_text_can_be_shown(text: str) -> None:
    assert isinstance(redact_url(text), str)
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
    assert add_query_parameter(url, "digest", "sha256:ab") == expected


def resolved(*addresses: str) -> Callable[[str], list[str]]:
    return lambda host: list(addresses)


@pytest.mark.parametrize(
    "url",
    [
        "http://layers.example/x",
        "ftp://layers.example/x",
        "https://127.0.0.1/x",
        "https://localhost/x",
        "https://registry/x",
        "https://nas.local/x",
        "https://10.1.2.3/x",
        "https://0x7f000001/x",
        "https://169.254.169.254/latest/meta-data",
        "https://[::1]/x",
        "https://[::ffff:10.0.0.1]/x",
        "https://user:password@layers.example/x",
        "https://layers.example\\@10.0.0.1/x",
        "//layers.example/x",
        "layer.tar",
        "",
    ],
)
def test_url_of_a_stranger_leads_out_of_the_network_by_https_or_nowhere(url: str) -> None:
    with pytest.raises(ProtocolViolation) as caught:
        check_public(url, resolve_name=resolved("93.184.216.34"))

    assert "password" not in str(caught.value)


def test_name_that_resolves_to_an_address_inside_is_inside() -> None:
    url = "https://layers.example/x"

    with pytest.raises(ProtocolViolation, match="in a private network"):
        check_public(url, resolve_name=resolved("93.184.216.34", "fd00::1"))
    check_public(url, resolve_name=resolved("93.184.216.34"))
    check_public(url, resolve_name=None)


def test_names_are_resolved() -> None:
    assert set(resolve_host("localhost")) <= {"127.0.0.1", "::1"}
    assert resolve_host("localhost") != []
    assert resolve_host("." * 300) == []
