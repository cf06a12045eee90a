"""WWW-Authenticate headers as registries really send them."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from concil.auth.challenge import Challenge, parse_challenges
from tests.support.quick_retries import UNTIMED

HUB = (
    'Bearer realm="https://auth.docker.io/token",service="registry.docker.io",'
    'scope="repository:library/alpine:pull,push"'
)


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        pytest.param([], [], id="no header"),
        pytest.param([""], [], id="an empty header"),
        pytest.param(
            [HUB],
            [
                Challenge(
                    "bearer",
                    {
                        "realm": "https://auth.docker.io/token",
                        "service": "registry.docker.io",
                        "scope": "repository:library/alpine:pull,push",
                    },
                )
            ],
            id="docker hub: a comma in a quoted value",
        ),
        pytest.param(
            ['Bearer realm="https://git/v2/token"', "Basic"],
            [Challenge("bearer", {"realm": "https://git/v2/token"}), Challenge("basic")],
            id="gitea: two headers, the second without parameters",
        ),
        pytest.param(
            ['Bearer realm="https://git/v2/token", Basic realm="git"'],
            [
                Challenge("bearer", {"realm": "https://git/v2/token"}),
                Challenge("basic", {"realm": "git"}),
            ],
            id="two challenges in one header",
        ),
        pytest.param(
            ["Basic realm=openshift"],
            [Challenge("basic", {"realm": "openshift"})],
            id="openshift: unquoted",
        ),
        pytest.param(
            ['Bearer realm="https://zot/token",service="zot",scope=""'],
            [Challenge("bearer", {"realm": "https://zot/token", "service": "zot", "scope": ""})],
            id="zot: an empty scope",
        ),
        pytest.param(
            ['bEARER Realm="https://h/t" , SERVICE = "s"'],
            [Challenge("bearer", {"realm": "https://h/t", "service": "s"})],
            id="names in any case, spaces around",
        ),
        pytest.param(
            [r'Basic realm="a \"quoted\" \\ name"'],
            [Challenge("basic", {"realm": r'a "quoted" \ name'})],
            id="escapes",
        ),
        pytest.param(
            ["Negotiate YII+abc==, Basic realm=x"],
            [Challenge("negotiate"), Challenge("basic", {"realm": "x"})],
            id="a token68 before another challenge",
        ),
        pytest.param(
            ["Negotiate, Basic realm=x"],
            [Challenge("negotiate"), Challenge("basic", {"realm": "x"})],
            id="a scheme without parameters",
        ),
        pytest.param(
            ['Bearer realm="https://h/t",error="invalid_token",error="insufficient_scope"'],
            [Challenge("bearer", {"realm": "https://h/t", "error": "invalid_token"})],
            id="of a name that comes twice the first",
        ),
        pytest.param(
            ['Bearer realm="https://h/t",scope="a:b:pull c:d:pull"'],
            [Challenge("bearer", {"realm": "https://h/t", "scope": "a:b:pull c:d:pull"})],
            id="several scopes",
        ),
        pytest.param(
            ['Bearer realm="https://h/t'],
            [Challenge("bearer", {"realm": "https://h/t"})],
            id="a quote that never ends",
        ),
        pytest.param(
            [',, Basic ,realm="x",,'],
            [Challenge("basic", {"realm": "x"})],
            id="empty list elements",
        ),
        pytest.param(
            ["Bearer realm=,service=s"],
            [Challenge("bearer", {"service": "s"})],
            id="a value that is missing",
        ),
        pytest.param(
            ["Negotiate YII+abc, Basic realm=x"],
            [Challenge("negotiate"), Challenge("basic", {"realm": "x"})],
            id="a token68 without padding",
        ),
        pytest.param(
            ["NTLM TlRMTVNTUAAC/+-._~=="],
            [Challenge("ntlm")],
            id="a token68 of every character it may have",
        ),
        pytest.param(
            ['realm="Bearer realm=https://evil/t", Basic realm=x'],
            [Challenge("basic", {"realm": "x"})],
            id="a parameter before any scheme",
        ),
        pytest.param(
            ['Basic realm="Bearer realm=\\"https://evil/t\\", Bearer"'],
            [Challenge("basic", {"realm": 'Bearer realm="https://evil/t", Bearer'})],
            id="a challenge inside a quoted value",
        ),
        pytest.param(
            ['Bearer realm="https://h/t",\r\n service="s"'],
            [Challenge("bearer", {"realm": "https://h/t", "service": "s"})],
            id="a folded line",
        ),
        pytest.param(
            ['Basic realm="a", Bearer realm="https://h/t", Basic realm="b"'],
            [
                Challenge("basic", {"realm": "a"}),
                Challenge("bearer", {"realm": "https://h/t"}),
                Challenge("basic", {"realm": "b"}),
            ],
            id="a scheme twice",
        ),
        pytest.param(
            ['Bearer realm\t=\t"https://h/t"\t,\tscope = "a b"'],
            [Challenge("bearer", {"realm": "https://h/t", "scope": "a b"})],
            id="tabs around",
        ),
        pytest.param(
            ['Bearer realm="https://h/t" service="s"'],
            [Challenge("bearer", {"realm": "https://h/t", "service": "s"})],
            id="commas that were forgotten",
        ),
        pytest.param(
            ["Bearer realm=https://h/t,service=s"],
            [Challenge("bearer", {"realm": "https://h/t", "service": "s"})],
            id="an unquoted URL",
        ),
        pytest.param(
            ["Bearer realm*=UTF-8''x,realm=\"https://h/t\""],
            [Challenge("bearer", {"realm*": "UTF-8''x", "realm": "https://h/t"})],
            id="an extended name is another name",
        ),
        pytest.param(
            ['Bearer realm="caf\xe9"'],
            [Challenge("bearer", {"realm": "caf\xe9"})],
            id="obs-text",
        ),
        pytest.param(["=", '"', "\\", '"\\', ",", "= ="], [], id="no challenge at all"),
    ],
)
def test_challenges_are_read(headers: list[str], expected: list[Challenge]) -> None:
    assert parse_challenges(headers) == expected


def test_a_parameter_that_is_missing_is_empty() -> None:
    assert Challenge("bearer", {"realm": "x"}).get("service") == ""


def test_only_the_beginning_of_a_giant_header_is_read() -> None:
    [challenge] = parse_challenges(["Basic realm=" + "x" * 1_000_000])

    assert len(challenge.get("realm")) < 20_000


@pytest.mark.parametrize("piece", ['"', "\\", "=", " ", "a", "a ", 'a="', "a ==", "a=b,", "-._~+/"])
def test_the_longest_header_takes_no_time(piece: str) -> None:
    header = "Bearer " + piece * (16 * 1024 // len(piece))

    began = time.thread_time()
    parse_challenges([header + "!"])

    assert time.thread_time() - began < 1  # quadratic would be minutes


@UNTIMED
@given(st.lists(st.text(max_size=300)))
def test_no_header_raises(headers: list[str]) -> None:
    assert all(challenge.scheme for challenge in parse_challenges(headers))


# Texts made of what the syntax is made of reach more of the parser than random ones.
FRAGMENTS = st.lists(
    st.sampled_from(['"', "\\", ",", "=", " ", "\t", "Bearer", "Basic", "realm", "x", "==", "é"]),
    max_size=40,
).map("".join)


@UNTIMED
@given(FRAGMENTS)
def test_no_mixture_of_the_syntax_raises(header: str) -> None:
    for challenge in parse_challenges([header]):
        assert challenge.scheme == challenge.scheme.lower()


TOKENS = st.text("abcdefghijklmnopqrstuvwxyz0123456789-_", min_size=1, max_size=12)
VALUES = st.text(st.characters(codec="latin-1", exclude_categories=["Cc"]), max_size=40)


def quoted(value: str) -> str:
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


@UNTIMED
@given(st.lists(st.tuples(TOKENS, st.dictionaries(TOKENS, VALUES, max_size=4)), max_size=4))
def test_what_is_written_as_the_rfc_asks_is_read_as_it_was_meant(
    challenges: list[tuple[str, dict[str, str]]],
) -> None:
    text = ", ".join(
        f"{scheme} {', '.join(f'{name}={quoted(value)}' for name, value in values.items())}"
        for scheme, values in challenges
    )

    assert parse_challenges([text]) == [Challenge(scheme, values) for scheme, values in challenges]
