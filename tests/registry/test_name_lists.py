"""Lists that come in pages: where the next one is, empty ones, and lists that go round."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from concil.errors import ProtocolViolation, StatusError
from concil.http import pagination
from concil.http.requests_session import TLSSettings, create_session
from concil.http.transport import Transport
from concil.oci.manifest import Digest
from concil.oci.media_types import OCI_INDEX, OCI_MANIFEST
from concil.registry.catalog import list_repositories
from concil.registry.client import RegistryClient
from concil.registry.endpoint import Endpoint
from concil.registry.referrers import Referrers, SharedReferrers
from tests.support.docker_registry import DockerRegistry
from tests.support.images import make_image, put_image
from tests.support.quick_retries import FAST
from tests.support.scripted_server import ReceivedRequest, ScriptedResponse, ScriptedServer, reply
from tests.support.tls import CertificateAuthority

SUBJECT = Digest.from_bytes(b"subject")
LONGEST = 100  # empty pages in a row


@dataclass(frozen=True)
class Listed:
    """One kind of list: how it is read, and what its pages look like."""

    path: str
    read: Callable[[Endpoint], list[str]]
    page: Callable[..., ScriptedResponse]

    @property
    def first(self) -> str:
        """Matches the first page."""
        return rf"{self.path}(\?n=1000)?"


def _tags(endpoint: Endpoint) -> list[str]:
    return list(RegistryClient(endpoint, "team/app", policy=FAST).list_tags())


def _catalog(endpoint: Endpoint) -> list[str]:
    return list(list_repositories(endpoint, FAST))


def _referrers(endpoint: Endpoint) -> list[str]:
    client = RegistryClient(endpoint, "team/app", policy=FAST)
    return [d.artifact_type for d in Referrers(client, SharedReferrers()).list_referrers(SUBJECT)]


def _linked(content: object, link: str, media_type: str = "application/json") -> ScriptedResponse:
    headers = {"Content_Type": media_type}
    return reply(200, json.dumps(content), **headers, **({"Link": link} if link else {}))


def _page_of_tags(*names: str, link: str = "") -> ScriptedResponse:
    return _linked({"name": "team/app", "tags": list(names) or None}, link)


def _page_of_catalog(*names: str, link: str = "") -> ScriptedResponse:
    return _linked({"repositories": names}, link)


def _page_of_referrers(*names: str, link: str = "") -> ScriptedResponse:
    entries = [
        {
            "mediaType": OCI_MANIFEST,
            "digest": str(Digest.from_bytes(name.encode())),
            "size": 5,
            "artifactType": name,
        }
        for name in names
    ]
    return _linked({"schemaVersion": 2, "manifests": entries}, link, f"{OCI_INDEX}; charset=utf-8")


LISTS = {
    "tags": Listed("/v2/team/app/tags/list", _tags, _page_of_tags),
    "catalog": Listed("/v2/_catalog", _catalog, _page_of_catalog),
    "referrers": Listed(f"/v2/team/app/referrers/{SUBJECT}", _referrers, _page_of_referrers),
}


@pytest.fixture(params=LISTS)
def listed(request: pytest.FixtureRequest) -> Listed:
    return LISTS[request.param]


@pytest.fixture(params=["https://{}", "http://{}"], ids=["falls back", "plain"])
def reached(request: pytest.FixtureRequest, server: ScriptedServer) -> Iterator[Endpoint]:
    """A registry that speaks plain http, addressed without a scheme and with it."""
    with create_session() as session:
        base = request.param.format(server.host)
        yield Endpoint(Transport(session), base, allow_plain_http=base.startswith("https"))


FORMS = [
    '<{path}?last=b>; rel="next"',
    '<{url}{path}?last=b>; rel="next"',
    "<./{last}?last=b>; rel=next",
    "<?last=b>; rel=next",
    "<//{host}{path}?last=b>; rel=next",
    "{path}?last=b; rel=next",
    '<{path}?last=b>; REL="NEXT"',
    '</else>; rel="prev", <{path}?last=b>; title="a, b"; rel="last next"',
]


@pytest.mark.parametrize("form", FORMS)
def test_the_second_page_of_a_plain_registry(
    server: ScriptedServer, reached: Endpoint, listed: Listed, form: str
) -> None:
    """The base of an address without a scheme is known with the first answer only."""
    last = listed.path.rpartition("/")[2]
    link = form.format(path=listed.path, url=server.url, host=server.host, last=last)
    server.respond("GET", listed.first, listed.page("a", "b", link=link))
    server.respond("GET", rf"{listed.path}\?last=b", listed.page("c"))

    assert listed.read(reached) == ["a", "b", "c"]

    assert len(server.requests) == 2


def test_an_encoded_name_in_a_link_stays_as_it_is(
    server: ScriptedServer, endpoint: Endpoint
) -> None:
    listed = LISTS["catalog"]
    link = '</v2/_catalog?last=team%2Fa%2Bb&n=1000>; rel="next"'
    server.respond("GET", listed.first, listed.page("a", link=link))
    server.respond("GET", r"/v2/_catalog\?last=team%2Fa%2Bb&n=1000", listed.page("c"))

    assert listed.read(endpoint) == ["a", "c"]


@pytest.mark.parametrize(
    ("name", "link"),
    [
        ("tags", "list?last=v1.2&n=1000"),
        ("tags", "list?n=1000&last=a:b"),
        ("catalog", "_catalog?last=team.x/app"),
    ],
)
def test_a_relative_link_is_not_taken_for_a_host(
    server: ScriptedServer, endpoint: Endpoint, name: str, link: str
) -> None:
    """Its query may look like one."""
    listed = LISTS[name]
    server.respond("GET", listed.first, listed.page("a", link=f"<{link}>; rel=next"))
    where = listed.path.rpartition("/")[0] + "/" + link
    server.respond("GET", re.escape(where), listed.page("b"))

    assert listed.read(endpoint) == ["a", "b"]


def test_a_proxy_that_ends_tls_does_not_end_a_list(
    ca: CertificateAuthority, listed: Listed
) -> None:
    """The registry behind it only knows http."""
    with (
        ScriptedServer(context=ca.issue().server_context()) as server,
        create_session(TLSSettings(str(ca.path))) as session,
    ):
        link = f"<http://{server.host}{listed.path}?last=a>; rel=next"
        server.respond("GET", listed.first, listed.page("a", link=link))
        server.respond("GET", rf"{listed.path}\?last=a", listed.page("b"))

        assert listed.read(Endpoint(Transport(session), server.url)) == ["a", "b"]


@pytest.mark.parametrize("name", ["tags", "catalog"])
def test_a_list_that_another_host_answers_goes_on_there(
    server: ScriptedServer, storage: ScriptedServer, endpoint: Endpoint, name: str
) -> None:
    """registry.k8s.io redirects lists, too."""
    listed = LISTS[name]
    server.respond("GET", listed.first, reply(307, Location=f"{storage.url}/moved"))
    storage.respond("GET", "/moved", listed.page("a", link="</moved?last=a>; rel=next"))
    storage.respond("GET", r"/moved\?last=a", listed.page("b"))

    assert listed.read(endpoint) == ["a", "b"]

    assert not any("authorization" in seen.headers for seen in storage.requests)


@pytest.mark.parametrize(
    "link", ["http://127.0.0.2:1{}", "//127.0.0.2:1{}", "https://else.example{}", "http://[::1]{}"]
)
def test_a_list_that_goes_on_elsewhere_is_refused(
    server: ScriptedServer, reached: Endpoint, listed: Listed, link: str
) -> None:
    link = f"<{link.format(listed.path)}>; rel=next"
    server.respond("GET", listed.first, listed.page("a", link=link))

    with pytest.raises(ProtocolViolation):
        listed.read(reached)

    assert len(server.requests) == 1


# Empty pages and circles -------------------------------------------------------------------


def _numbered(
    listed: Listed, contents: list[list[str]]
) -> Callable[[ReceivedRequest], ScriptedResponse]:
    """Pages that lead from one to the next."""

    def answer(seen: ReceivedRequest) -> ScriptedResponse:
        number = int(seen.query.get("page", ["0"])[0])
        more = number + 1 < len(contents)
        link = f"<{listed.path}?page={number + 1}>; rel=next" if more else ""
        return listed.page(*contents[number], link=link)

    return answer


@pytest.mark.parametrize(
    ("contents", "names"),
    [
        ([["a"], [], ["c"]], ["a", "c"]),
        ([[], ["b"]], ["b"]),
        ([["a"], *[[]] * (LONGEST - 1), ["z"]], ["a", "z"]),
        ([*[[]] * (LONGEST - 1), ["b"], *[[]] * (LONGEST - 1), ["z"]], ["b", "z"]),
        ([["a"], []], ["a"]),
        ([["a"], *[[]] * LONGEST, ["z"]], ["a"]),
    ],
    ids=["one", "the first", "ninety-nine", "twice ninety-nine", "the last", "a hundred"],
)
def test_an_empty_page_does_not_end_a_list(
    server: ScriptedServer,
    endpoint: Endpoint,
    listed: Listed,
    contents: list[list[str]],
    names: list[str],
) -> None:
    server.respond("GET", rf"{listed.path}(\?.*)?", _numbered(listed, contents))

    assert listed.read(endpoint) == names

    assert pagination.MAX_EMPTY_PAGES == LONGEST
    assert len(server.requests) <= len(contents)


def test_empty_pages_without_end_are_told_of(
    server: ScriptedServer, endpoint: Endpoint, listed: Listed, caplog: pytest.LogCaptureFixture
) -> None:
    server.respond("GET", rf"{listed.path}(\?.*)?", _numbered(listed, [[]] * (LONGEST * 2)))

    assert listed.read(endpoint) == []

    assert len(server.requests) == LONGEST
    assert "stopped after 100 consecutive empty pages of the list" in caplog.text


@pytest.mark.parametrize(
    "targets",
    [
        pytest.param(["?page=0", "?page=0"], id="to itself"),
        pytest.param(["?page=1", "?page=2", "?page=1"], id="to an earlier one"),
    ],
)
def test_a_list_that_goes_round_ends(
    server: ScriptedServer, endpoint: Endpoint, listed: Listed, targets: list[str]
) -> None:
    def answer(seen: ReceivedRequest) -> ScriptedResponse:
        number = int(seen.query.get("page", ["0"])[0])
        link = f"<{listed.path}{targets[number]}>; rel=next"
        return listed.page(f"name{number}", link=link)

    server.respond("GET", rf"{listed.path}(\?.*)?", answer)

    found = listed.read(endpoint)

    assert sorted(set(found)) == [f"name{n}" for n in range(len(targets) - (len(targets) == 2))]
    assert len(server.requests) <= len(targets)


@pytest.mark.parametrize("name", ["tags", "catalog"])
def test_an_empty_last_page_that_leads_to_the_first_ends_the_list(
    server: ScriptedServer, endpoint: Endpoint, name: str
) -> None:
    """Cloudflare has a Link on its last page, too, with nothing behind `last=`."""
    listed = LISTS[name]
    server.respond(
        "GET", listed.first, listed.page("a", "b", link=f"<{listed.path}?last=b>; rel=next")
    )
    server.respond(
        "GET", rf"{listed.path}\?last=b", listed.page(link=f"<{listed.path}?last=>; rel=next")
    )
    server.respond(
        "GET",
        rf"{listed.path}\?last=",
        listed.page("a", "b", link=f"<{listed.path}?last=b>; rel=next"),
    )

    assert listed.read(endpoint) == ["a", "b"]


# How many names a page has -----------------------------------------------------------------

TOO_MANY = '{"errors":[{"code":"PAGINATION_NUMBER_INVALID","detail":{"n":1000}}]}'


@pytest.mark.parametrize("name", ["tags", "catalog"])
def test_a_registry_with_shorter_pages_is_asked_for_them(
    server: ScriptedServer, reached: Endpoint, name: str
) -> None:
    """Distribution 3 refuses to send more than its `maxentries` rather than to send fewer."""
    listed = LISTS[name]
    server.respond("GET", rf"{listed.path}\?n=1000", reply(400, TOO_MANY))
    server.respond(
        "GET", listed.path, listed.page("a", link=f"<{listed.path}?last=a&n=1>; rel=next")
    )
    server.respond("GET", rf"{listed.path}\?last=a&n=1", listed.page("b"))

    assert listed.read(reached) == ["a", "b"]

    assert len(server.requests) == 3


@pytest.mark.parametrize("name", ["tags", "catalog"])
def test_a_refusal_of_the_second_page_is_an_error(
    server: ScriptedServer, endpoint: Endpoint, name: str
) -> None:
    listed = LISTS[name]
    server.respond("GET", listed.first, listed.page("a", link=f"<{listed.path}?last=a>; rel=next"))
    server.respond("GET", rf"{listed.path}\?last=a", reply(400, TOO_MANY))

    with pytest.raises(StatusError, match="400"):
        listed.read(endpoint)


def test_half_a_list_of_referrers_is_none(server: ScriptedServer, endpoint: Endpoint) -> None:
    """Also where the half that came is empty."""
    listed = LISTS["referrers"]
    server.respond("GET", listed.path, listed.page(link=f"<{listed.path}?page=2>; rel=next"))

    with pytest.raises(ProtocolViolation, match="list ended with 404"):
        listed.read(endpoint)


def test_a_redirect_of_referrers_that_goes_round_ends(
    server: ScriptedServer, endpoint: Endpoint
) -> None:
    listed = LISTS["referrers"]
    server.respond("GET", listed.path, reply(307, Location=listed.path))

    assert listed.read(endpoint) == []

    assert len(server.matching_requests("GET", "/referrers/")) <= 2


@pytest.mark.real
def test_the_catalog_of_docker_registry_page_by_page(
    fresh_docker_registry: DockerRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Addressed without a scheme, as people write it."""
    registry, names = fresh_docker_registry, ["a", "b/c", "b/d", "e", "f"]
    for name in names:
        put_image(registry.url, name, "v1", make_image(1, (10,)))
    monkeypatch.setattr("concil.registry.name_lists.PAGE_LENGTH", 2)

    with create_session() as session:
        endpoint = Endpoint(Transport(session), f"https://{registry.host}", allow_plain_http=True)
        found = list(list_repositories(endpoint, FAST))

    assert found == names
