"""The session's short way: what it makes of a request is what requests makes of it."""

from __future__ import annotations

import re
import string
from collections.abc import Iterator
from http.cookiejar import DefaultCookiePolicy
from typing import Any

import pytest
import requests
from hypothesis import example, given
from hypothesis import strategies as st

from concil.http.requests_session import create_session
from tests.support.scripted_server import ScriptedServer, reply

_CHARACTERS = string.ascii_letters + string.digits + string.punctuation + " \t\né€"
_PIECES = st.one_of(
    st.text(_CHARACTERS, max_size=6),
    st.sampled_from([".", "..", "%2F", "%2f", "%7E", "%41", "%", "%zz", "/", "//", "?", "#", "@"]),
)
_URLS = st.builds(
    lambda scheme, host, port, pieces: f"{scheme}://{host}{port}/{''.join(pieces)}",
    st.sampled_from(["http", "https", "HTTP"]),
    st.sampled_from(["host", "127.0.0.1", "a.b-c.d", "Host", "h_t", "-h", ".h", "[::1]", "u:p@h"]),
    st.sampled_from(["", ":80", ":5000", ":05000", ":65535", ":99999", ":", ":x"]),
    st.lists(_PIECES, max_size=8),
)
_VALUES = st.one_of(
    st.text(_CHARACTERS, max_size=8), st.sampled_from(["Bearer x", "a\r\nb: c", " a"])
)
_HEADERS = st.dictionaries(
    st.sampled_from(["Accept", "accept-encoding", "Authorization", "X-A", "User-Agent", "a b", ""]),
    st.one_of(st.none(), _VALUES),
    max_size=4,
)


class Stretch:
    """A body that knows its length and is read once."""

    def __init__(self, length: int) -> None:
        self._length = length

    def __len__(self) -> int:
        return self._length

    def read(self, size: int = -1, /) -> bytes:
        return b"x" * (self._length if size < 0 else min(size, self._length))


class Winding(Stretch):
    """One that stands at its second byte: requests sends what is behind."""

    def tell(self) -> int:
        return 1


_BODIES: list[Any] = [None, b"", b"bytes", "text", Stretch(0), Stretch(3), Winding(3), {"a": "b"}]


@pytest.fixture(scope="module")
def session() -> Iterator[requests.Session]:
    with create_session() as made:
        yield made


def made_by(prepare: Any, request: requests.Request) -> tuple[Any, ...] | type[Exception]:  # noqa: ANN401 - a method
    """What comes out, to be compared."""
    try:
        prepared = prepare(request)
    except (requests.RequestException, ValueError) as error:
        return type(error)
    changed = prepared.copy()
    changed.url = "https://other/path?query#fragment"
    return (
        prepared.method,
        prepared.url,
        prepared.path_url,
        changed.path_url,
        list(prepared.headers.items()),
        prepared.body,
        prepared.hooks,
        dict(changed._cookies or {}),
    )


@given(
    method=st.sampled_from(["GET", "HEAD", "POST", "put", "PATCH", "DELETE"]),
    url=_URLS,
    headers=_HEADERS,
    body=st.sampled_from(_BODIES),
)
@example(
    method="PUT", url="http://h:5000/v2/a/b?_state=a%3D%3D&digest=sha256:0", headers={}, body=b""
)
@example(method="GET", url="https://h/v2/a/../b/./c?x=..", headers={}, body=None)
@example(method="PUT", url="https://h/v2/a", headers={"Content-Length": "7"}, body=Stretch(3))
@example(method="POST", url="https://h/v2/a", headers={"content-length": "7"}, body=None)
def test_a_request_is_made_as_requests_makes_it(
    session: requests.Session,
    method: str,
    url: str,
    headers: dict[str, str | None],
    body: Any,  # noqa: ANN401 - whatever requests takes
) -> None:
    request = requests.Request(method, url, headers=headers, data=body)

    ours = made_by(session.prepare_request, request)

    assert ours == made_by(lambda r: requests.Session.prepare_request(session, r), request)


@pytest.mark.parametrize(
    "keywords",
    [
        {"params": {"n": "1"}},
        {"json": {}},
        {"auth": ("user", "password")},
        {"cookies": {"a": "b"}},
        {"files": {"a": b"b"}},
    ],
    ids=lambda keywords: next(iter(keywords)),
)
def test_what_a_request_has_more_is_in_it(
    session: requests.Session, keywords: dict[str, Any]
) -> None:
    def seen(prepared: requests.PreparedRequest) -> tuple[Any, ...]:
        headers = dict(prepared.headers)
        boundary = re.escape(headers.get("Content-Type", "").partition("boundary=")[2])
        body = prepared.body
        text = body.decode() if isinstance(body, bytes) else str(body)
        headers["Content-Type"] = headers.get("Content-Type", "").partition(";")[0]
        return prepared.url, headers, re.sub(boundary, "", text) if boundary else text

    request = requests.Request("POST", "https://h/a", **keywords)

    ours = seen(session.prepare_request(request))

    assert ours == seen(requests.Session.prepare_request(session, request))
    assert ours != seen(session.prepare_request(requests.Request("POST", "https://h/a")))


@pytest.mark.parametrize("what", ["auth", "params", "cookies"])
def test_what_the_session_has_is_in_every_request(what: str) -> None:
    with create_session() as session:
        if what == "auth":
            session.auth = ("user", "password")
        elif what == "params":
            session.params = {"n": "1"}
        else:
            session.cookies.set_policy(None)  # type: ignore[arg-type]  # the usual one
            session.cookies.set("a", "b", domain="h.local", path="/")
        request = requests.Request("GET", "https://h/a")

        ours = session.prepare_request(request)
        theirs = requests.Session.prepare_request(session, request)

    assert (ours.url, ours.headers) == (theirs.url, theirs.headers)
    assert "Authorization" in ours.headers or ours.url != "https://h/a" or "Cookie" in ours.headers


def test_a_plain_request_takes_the_short_way(
    session: requests.Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a registry is asked for all day, and the Location of distribution 2.8."""

    def never(*_: object) -> requests.PreparedRequest:
        raise AssertionError

    monkeypatch.setattr(requests.Session, "prepare_request", never)
    digest = "sha256:" + "0" * 64
    uploads = "http://127.0.0.1:5000/v2/a/b-c/d__e/blobs/uploads"
    headers = {"Authorization": "Bearer a.b-c_d", "Accept": "application/json, */*;q=0.1"}
    for method, url, body in (
        ("HEAD", f"https://registry.example/v2/library/x/manifests/{digest}", None),
        ("POST", f"{uploads}/?mount={digest}&from=a%2Fb", None),
        ("PUT", f"{uploads}/0-1?_state=abc-_%3D%3D&digest={digest}", Stretch(5)),
    ):
        prepared = session.prepare_request(requests.Request(method, url, headers, data=body))
        assert (prepared.method, prepared.url, prepared.body) == (method, url, body)


def test_redirects_are_followed_for_who_uses_the_session_by_hand(server: ScriptedServer) -> None:
    server.respond("GET", "/a", reply(302, b"elsewhere", Location="/b"))
    server.respond("GET", "/b", reply(200, b"here"))

    with create_session() as session:
        answer = session.get(f"{server.url}/a")

    assert (answer.content, [each.url for each in answer.history]) == (b"here", [f"{server.url}/a"])


def test_hooks_are_called(server: ScriptedServer) -> None:
    server.respond("GET", "/a", reply(200, b"x"))
    seen: list[int] = []
    hook = {"response": [lambda answer, **_: seen.append(answer.status_code)]}

    with create_session() as session:
        request = session.prepare_request(requests.Request("GET", f"{server.url}/a", hooks=hook))
        settings: dict[str, Any] = {"verify": True, "cert": None, "proxies": {}}
        session.send(request, stream=True, allow_redirects=False, **settings).close()

    assert seen == [200]


def test_cookies_are_kept_by_a_policy_that_keeps_them(server: ScriptedServer) -> None:
    server.respond("GET", "/a", reply(200, **{"Set-Cookie": "a=b"}))
    settings: dict[str, Any] = {"verify": True, "cert": None, "proxies": {}}

    kept = []
    for policy in (DefaultCookiePolicy(), None):
        with create_session() as session:
            if policy is not None:
                session.cookies.set_policy(policy)
            request = session.prepare_request(requests.Request("GET", f"{server.url}/a"))
            answer = session.send(request, stream=True, allow_redirects=False, **settings)
            answer.close()
            assert answer.elapsed.total_seconds() > 0
            kept.append(session.cookies.get_dict())

    assert kept == [{"a": "b"}, {}]
