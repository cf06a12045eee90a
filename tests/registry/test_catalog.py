"""The repositories of a registry, where it lists them."""

from __future__ import annotations

import json

import pytest
import requests

from concil.errors import ProtocolViolation, RegistryDenied, StatusError
from concil.http.requests_session import create_session
from concil.http.transport import Transport
from concil.registry.catalog import list_repositories
from concil.registry.endpoint import Endpoint
from tests.support.docker_registry import DockerRegistry
from tests.support.images import make_image, put_image
from tests.support.quick_retries import FAST
from tests.support.scripted_server import ScriptedResponse, ScriptedServer, reply

FIRST = r"/v2/_catalog\?n=1000"


def page(*names: str, link: str | None = None) -> ScriptedResponse:
    headers = {} if link is None else {"Link": link}
    return reply(200, json.dumps({"repositories": names}), **headers)


def test_pages_are_followed(server: ScriptedServer, endpoint: Endpoint) -> None:
    server.respond("GET", FIRST, page("a", "b/c", link="</v2/_catalog?last=b/c>; rel=next"))
    server.respond("GET", r"/v2/_catalog\?last=b/c", page("d"))

    assert list(list_repositories(endpoint, FAST)) == ["a", "b/c", "d"]


@pytest.mark.parametrize("status", [401, 403, 404, 405, 501])
def test_a_registry_that_lists_nothing_says_what_can_be_done(
    server: ScriptedServer, endpoint: Endpoint, status: int
) -> None:
    server.respond("GET", FIRST, reply(status))

    with pytest.raises((StatusError, RegistryDenied)) as caught:
        list(list_repositories(endpoint, FAST))

    assert "give the repositories by name" in caught.value.remedy


@pytest.mark.parametrize("body", ["x", "[]", '{"repositories": 5}'])
def test_what_is_no_list_is_refused(server: ScriptedServer, endpoint: Endpoint, body: str) -> None:
    server.respond("GET", FIRST, reply(200, body))

    with pytest.raises(ProtocolViolation, match="the list of repositories is"):
        list(list_repositories(endpoint, FAST))


@pytest.mark.real
def test_docker_registry_lists_them(fresh_docker_registry: DockerRegistry) -> None:
    registry = fresh_docker_registry
    for name in ("one", "deep/er/two"):
        put_image(registry.url, name, "v1", make_image(1, (10,)))

    with create_session() as session:
        found = list(list_repositories(Endpoint(Transport(session), registry.url), FAST))

    assert sorted(found) == ["deep/er/two", "one"]
    answer = requests.get(f"{registry.url}/v2/_catalog", timeout=60)
    assert sorted(answer.json()["repositories"]) == sorted(found)
