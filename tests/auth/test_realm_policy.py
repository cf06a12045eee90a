"""Where a registry may send its users for a token, however the host is written."""

from __future__ import annotations

from ipaddress import IPv4Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from concil.auth.realm_policy import check_realm
from concil.errors import ConcilError, ProtocolViolation
from tests.support.quick_retries import UNTIMED

HOME = "https://reg.example"


@pytest.mark.parametrize(
    ("realm", "home"),
    [
        ("https://auth.example/token", HOME),
        ("https://auth.example:8443/token?account=x", HOME),
        ("/token", HOME),
        ("https://8.8.8.8/token", HOME),
        ("https://[2606:4700::1111]/token", HOME),
        ("https://localhost.example/token", HOME),
        ("https://10.0.0.1.example/token", HOME),
        ("http://auth.example/token", "http://reg.example"),
        ("https://auth.example/token", "http://reg.example"),
        ("https://10.0.0.5:8443/token", "https://10.0.0.5"),
        ("https://167772165/token", "https://10.0.0.5"),
        ("http://10.0.0.5/token", "http://10.0.0.5:5000"),
        ("http://localhost:5001/token", "http://127.0.0.1:5000"),
        ("http://127.0.0.1:5001/token", "http://auth.localhost:5000"),
        ("http://[::1]:5001/token", "http://localhost:5000"),
    ],
)
def test_a_realm_that_may_be_asked(realm: str, home: str) -> None:
    assert check_realm(realm, home).startswith(("https://", "http://"))


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "127.0.0.1.",
        "127.1",
        "2130706433",
        "0x7f000001",
        "0x7f.0.0.1",
        "0177.0.0.1",
        "017700000001",
        "0",
        "0.0.0.0",
        "10.0.0.1",
        "0xa.1",
        "172.16.0.1",
        "192.168.1.1",
        "100.64.0.1",
        "169.254.169.254",
        "2852039166",
        "224.0.0.1",
        "255.255.255.255",
        "[::]",
        "[::1]",
        "[::127.0.0.1]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[::ffff:a9fe:a9fe]",
        "[64:ff9b::7f00:1]",
        "[2002:7f00:1::]",
        "[fe80::1]",
        "[fe80::1%25eth0]",
        "[fd00::1]",
        "[ff02::1]",
        "localhost",
        "[fec0::1]",
        "[64:ff9b:1::a00:1]",
        "localhost.",
        "localhost.localdomain",
        "ip6-localhost",
        "LOCALHOST",
        "evil.localhost",
        "evil.localhost.",
        "\uff11\uff12\uff17.0.0.1",
        "127\u30020\u30020\u30021",
        "\u24dbocalhost",
    ],
)
def test_a_host_inside_the_network_is_refused(host: str) -> None:
    with pytest.raises(ProtocolViolation):
        check_realm(f"https://{host}/token", HOME)


@pytest.mark.parametrize(
    ("realm", "home"),
    [
        ("http://auth.example/token", HOME),
        ("http://reg.example/token", HOME),
        ("http://10.0.0.5/token", "https://10.0.0.5"),
        ("https://10.0.0.6/token", "https://10.0.0.5"),
        ("https://169.254.169.254/token", "https://10.0.0.5"),
        ("https://10.0.0.1/token", "http://127.0.0.1:5000"),
        ("https://127.0.0.1/token", "https://10.0.0.5"),
        ("ftp://auth.example/token", HOME),
        ("file:///etc/passwd", HOME),
        ("javascript:alert(1)", HOME),
        ("https://[bad/token", HOME),
        ("https://auth.example:port/token", HOME),
        ("https://auth.example:99999/token", HOME),
        ("https://exa mple/token", HOME),
    ],
)
def test_a_realm_that_may_not_be_asked(realm: str, home: str) -> None:
    with pytest.raises(ProtocolViolation):
        check_realm(realm, home)


@pytest.mark.parametrize(
    ("realm", "asked"),
    [
        ("https://", "https://reg.example/"),
        ("https:///token", "https://reg.example/token"),
        ("https://auth.example\\@127.0.0.1/token", "https://auth.example/%5C@127.0.0.1/token"),
        ("https://127.0.0.1@auth.example/token", "https://127.0.0.1@auth.example/token"),
    ],
)
def test_what_was_judged_is_what_is_asked(realm: str, asked: str) -> None:
    assert check_realm(realm, HOME) == asked


def test_a_refusal_tells_no_secret() -> None:
    with pytest.raises(ProtocolViolation) as caught:
        check_realm("https://user:s3cret@10.0.0.1/token?key=s3cret", HOME)

    assert "s3cret" not in str(caught.value)
    assert "10.0.0.1" in str(caught.value)


HOSTS = st.text("0123456789abcdefx.:[]%@\\/?#-\u3002\uff11 ", max_size=40)


@UNTIMED
@given(HOSTS | st.text(max_size=60))
def test_no_realm_raises_anything_but_ours(host: str) -> None:
    for realm in (host, f"https://{host}/token"):
        try:
            checked = check_realm(realm, HOME)
        except ConcilError:
            continue
        assert checked.startswith("https://")


@UNTIMED
@given(st.ip_addresses(v=4), st.sampled_from(["0x{:x}", "{:d}", "0{:o}", "0x{:08X}"]))
def test_no_way_to_write_an_address_gets_past(address: IPv4Address, form: str) -> None:
    outcomes = set()
    for host in (str(address), f"{address}.", form.format(int(address)), f"[::ffff:{address}]"):
        try:
            outcomes.add(bool(check_realm(f"https://{host}/token", HOME)))
        except ProtocolViolation:
            outcomes.add(False)

    assert outcomes == {address.is_global and not address.is_multicast}
