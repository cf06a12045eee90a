"""The repositories of a registry, where it lists them."""

from __future__ import annotations

import json

import pytest
import requests

from concil.errors import ProtocolViolation, RegistryDenied, StatusError
from concil.registry.catalog import repositories
from concil.registry.endpoint import Endpoint
from concil.registry.http_session import new_session
from concil.registry.session import Transport
from tests.lab.images import make_image, put_image
from tests.lab.registry import DockerRegistry
from tests.registry.scripted import Answer, Scripted, reply
from tests.registry.wiring import FAST

FIRST = r"/v2/_catalog\?n=1000"


def page(*names: str, link: str | None = None) -> Answer:
    headers = {} if link is None else {"Link": link}
    return reply(200, json.dumps({"repositories": names}), **headers)


def test_pages_are_followed(server: Scripted, endpoint: Endpoint) -> None:
    server.on("GET", FIRST, page("a", "b/c", link="</v2/_catalog?last=b/c>; rel=next"))
    server.on("GET", r"/v2/_catalog\?last=b/c", page("d"))

    assert list(repositories(endpoint, FAST)) == ["a", "b/c", "d"]


@pytest.mark.parametrize("status", [401, 403, 404, 405, 501])
def test_a_registry_that_lists_nothing_says_what_can_be_done(
    server: Scripted, endpoint: Endpoint, status: int
) -> None:
    server.on("GET", FIRST, reply(status))

    with pytest.raises((StatusError, RegistryDenied)) as caught:
        list(repositories(endpoint, FAST))

    assert "name the repositories" in caught.value.remedy


@pytest.mark.parametrize("body", ["x", "[]", '{"repositories": 5}'])
def test_what_is_no_list_is_refused(server: Scripted, endpoint: Endpoint, body: str) -> None:
    server.on("GET", FIRST, reply(200, body))

    with pytest.raises(ProtocolViolation, match="the list of repositories is"):
        list(repositories(endpoint, FAST))


@pytest.mark.real
def test_docker_registry_lists_them(fresh_docker_registry: DockerRegistry) -> None:
    registry = fresh_docker_registry
    for name in ("one", "deep/er/two"):
        put_image(registry.url, name, "v1", make_image(1, (10,)))

    with new_session() as session:
        found = list(repositories(Endpoint(Transport(session), registry.url), FAST))

    assert sorted(found) == ["deep/er/two", "one"]
    answer = requests.get(f"{registry.url}/v2/_catalog", timeout=60)
    assert sorted(answer.json()["repositories"]) == sorted(found)
