"""Lists that an earlier run has read are asked for with their entity tags."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from concil.auth.credentials.credentials import CredentialProviders, Credentials
from concil.errors import StatusError
from concil.http.requests_session import create_session
from concil.http.transport import Transport
from concil.oci.cached_page import CachedPage
from concil.registry.catalog import list_repositories
from concil.registry.client import RegistryClient
from concil.registry.endpoint import Endpoint
from concil.registry.list_cache import ListCache
from concil.transfer.journal import Journal
from concil.transfer.list_pages import ListPages
from tests.support.quick_retries import FAST
from tests.support.scripted_server import ReceivedRequest, ScriptedResponse, ScriptedServer, reply

TAGS = "/v2/team/app/tags/list"
ALICE, BOB = Credentials("alice", "the password of Alice"), Credentials("alice", "another one")


class TaggedList:
    """A list whose entity tags depend on the names alone, as a proxy may make them."""

    def __init__(self, *names: str, link: str = "", **headers: str) -> None:
        self.names = names
        self.link = link
        self.headers = headers
        self.confirmed = 0  # answers of 304

    def answer(self, request: ReceivedRequest) -> ScriptedResponse:
        body = json.dumps({"tags": self.names, "repositories": self.names})
        etag = f'"{hashlib.sha256(body.encode()).hexdigest()}"'
        headers = {"ETag": etag, **({"Link": self.link} if self.link else {}), **self.headers}
        if request.headers.get("if-none-match") == etag:
            self.confirmed += 1
            return reply(304, ETag=etag)
        return reply(200, body, **headers)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.sqlite"


Read = Callable[..., list[str]]


@pytest.fixture
def read(server: ScriptedServer, path: Path) -> Read:
    """Read a list as a new process does."""

    def read_list(credentials: Credentials | None = None, *, catalog: bool = False) -> list[str]:
        with closing(Journal(path)) as journal, create_session() as session:
            providers = CredentialProviders(credentials)
            endpoint = Endpoint(Transport(session), server.url, providers=providers)
            cache = ListCache(ListPages(journal))
            if catalog:
                return list(list_repositories(endpoint, FAST, cache))
            client = RegistryClient(endpoint, "team/app", policy=FAST, list_cache=cache)
            return list(client.list_tags())

    return read_list


@pytest.mark.parametrize(("url", "catalog"), [(TAGS, False), ("/v2/_catalog", True)])
def test_an_unchanged_list_is_not_sent_again(
    server: ScriptedServer, read: Read, url: str, catalog: bool
) -> None:
    tags = TaggedList("a", "b")
    server.respond("GET", rf"{url}\?n=1000", tags.answer)

    assert read(catalog=catalog) == read(catalog=catalog) == ["a", "b"]
    assert tags.confirmed == 1
    tags.names = ("a", "b", "c")
    assert read(catalog=catalog) == read(catalog=catalog) == ["a", "b", "c"]

    assert tags.confirmed == 2
    assert len(server.requests) == 4


def test_each_page_has_a_tag_of_its_own(server: ScriptedServer, read: Read) -> None:
    first, last = TaggedList("a", "b", link=f"<{TAGS}?n=2&last=b>; rel=next"), TaggedList("c")
    server.respond("GET", rf"{TAGS}\?n=1000", first.answer)
    server.respond("GET", rf"{TAGS}\?n=2&last=b", last.answer)

    assert read() == read() == ["a", "b", "c"]
    assert (first.confirmed, last.confirmed) == (1, 1)
    last.names = ("c", "d")

    assert read() == ["a", "b", "c", "d"]
    assert (first.confirmed, last.confirmed) == (2, 1)


@pytest.mark.parametrize("count", [10, 100, 1000, 1003])
def test_a_page_that_may_be_full_is_read_again(
    server: ScriptedServer, read: Read, count: int
) -> None:
    """A further page may follow it later, and its tag does not show that."""
    names = tuple(map(str, range(count)))
    first = TaggedList(*names)
    server.respond("GET", rf"{TAGS}\?n=1000", first.answer)
    server.respond("GET", rf"{TAGS}\?last=9", TaggedList("new").answer)

    assert read() == list(names)
    first.link = f"<{TAGS}?last=9>; rel=next"

    assert read() == [*names, "new"]
    assert first.confirmed == 0


@pytest.mark.parametrize(
    ("link", "headers"),
    [
        (f"<{TAGS}?n=2&token=expires>; rel=next", {}),
        ("", {"Cache_Control": "no-store"}),
        ("", {"ETag": "without quotes"}),
        ("", {"ETag": ""}),
    ],
)
def test_pages_that_may_change_unseen_are_not_kept(
    server: ScriptedServer, read: Read, path: Path, link: str, headers: dict[str, str]
) -> None:
    server.respond("GET", rf"{TAGS}\?n=1000", TaggedList("a", link=link, **headers).answer)
    server.respond("GET", rf"{TAGS}\?n=2.*", reply(200, '{"tags": []}'))

    assert read() == read() == ["a"]

    assert not any("if-none-match" in request.headers for request in server.requests)
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("SELECT COUNT(*) FROM list_pages").fetchone() == (0,)


def test_a_list_of_another_host_is_not_kept(server: ScriptedServer, read: Read) -> None:
    """Its tag may stand for other content at the next host that the registry chooses."""
    server.respond("GET", rf"{TAGS}\?n=1000", reply(307, Location=f"{server.url}/elsewhere"))
    server.respond("GET", "/elsewhere", TaggedList("a").answer)

    assert read() == read() == ["a"]

    assert not any("if-none-match" in request.headers for request in server.requests)


def _for_alice(
    answer: Callable[[ReceivedRequest], ScriptedResponse], *users: Credentials
) -> object:
    headers = {user.basic_header() for user in users}

    def check(request: ReceivedRequest) -> ScriptedResponse:
        if request.headers.get("authorization") in headers:
            return answer(request)
        return reply(401, WWW_Authenticate='Basic realm="r"')

    return check


def test_pages_are_kept_for_the_user_that_has_read_them(
    server: ScriptedServer, read: Read, path: Path
) -> None:
    tags = TaggedList("a")
    server.respond("GET", rf"/v2/|{TAGS}\?n=1000", _for_alice(tags.answer, ALICE, BOB))  # type: ignore[arg-type]

    assert read(ALICE) == read(ALICE) == ["a"]
    assert tags.confirmed == 1
    count = len(server.requests)
    assert read(BOB) == ["a"]

    assert tags.confirmed == 1
    assert not any("if-none-match" in r.headers for r in server.requests[count:])
    assert ALICE.password.encode() not in path.read_bytes()


def test_a_page_of_nobody_is_not_taken_for_that_of_a_user(
    server: ScriptedServer, read: Read
) -> None:
    tags = TaggedList("public")
    server.respond("GET", rf"/v2/|{TAGS}\?n=1000", tags.answer)
    assert read() == ["public"]
    server.respond("GET", rf"/v2/|{TAGS}\?n=1000", _for_alice(tags.answer, ALICE))  # type: ignore[arg-type]

    assert read(ALICE) == ["public"]

    assert tags.confirmed == 0


def test_a_confirmation_that_was_not_asked_for_is_an_error(
    server: ScriptedServer, read: Read
) -> None:
    server.respond("GET", rf"{TAGS}\?n=1000", reply(304, ETag='"x"'))

    with pytest.raises(StatusError, match="304"):
        read()


def test_a_page_that_was_lost_is_read_again(server: ScriptedServer, read: Read, path: Path) -> None:
    tags = TaggedList("a")
    server.respond("GET", rf"{TAGS}\?n=1000", tags.answer)
    read()
    with closing(sqlite3.connect(path)) as db:
        db.execute("UPDATE list_pages SET content = 'damaged'")
        db.commit()

    assert read() == ["a"]

    assert (tags.confirmed, len(server.requests)) == (1, 3)
    assert read() == ["a"]
    assert tags.confirmed == 2


@pytest.fixture
def journal(path: Path) -> Iterator[Journal]:
    with closing(Journal(path)) as opened:
        yield opened


def test_the_pages_of_the_journal_are_bounded(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("concil.transfer.list_pages.MAX_TOTAL_SIZE", 3000)
    monkeypatch.setattr("concil.transfer.list_pages._TRIM_INTERVAL", 1)
    pages = ListPages(journal)
    for number in range(20):
        content = hashlib.shake_128(bytes([number])).digest(1000)
        pages.store(f"http://h/{number}", "anonymous", CachedPage('"1"', "", content))
        journal.flush()

    kept = [number for number in range(20) if pages.etags(f"http://h/{number}")]

    assert kept in ([17, 18, 19], [18, 19])
    assert pages.load("http://h/19", "anonymous") is not None
    assert pages.load("http://h/19", "somebody else") is None
