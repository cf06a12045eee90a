"""docker:// URLs as the original reads them, and what it left open."""

from __future__ import annotations

import urllib.parse

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from concil.dockerhub import DockerHub, DockerSplitResult, parse_docker_url
from concil.errors import InvalidReference

HEX = "ab" * 32
DIGEST = f"sha256:{HEX}"
HUB = "https://registry-1.docker.io/v2"
OLD_HUB = "https://registry.hub.docker.com/v2"


@pytest.mark.parametrize(
    ("docker_url", "repository", "tag", "url"),
    [
        (
            "docker://registry.hub.docker.com/library/ubuntu:latest",
            "library/ubuntu",
            "latest",
            f"{OLD_HUB}/library/ubuntu",
        ),
        (
            "docker://registry.hub.docker.com/library/ubuntu",
            "library/ubuntu",
            "latest",
            f"{OLD_HUB}/library/ubuntu",
        ),
        (
            "docker://user:pass@registry.hub.docker.com/library/ubuntu:18.04",
            "library/ubuntu",
            "18.04",
            f"{OLD_HUB}/library/ubuntu",
        ),
        (
            "docker://localhost:5000/my-image:test",
            "my-image",
            "test",
            "https://localhost:5000/v2/my-image",
        ),
        (
            "http://localhost:5000/my-image",
            "my-image",
            "latest",
            "http://localhost:5000/v2/my-image",
        ),
        ("https://localhost/my-image", "my-image", "latest", "https://localhost/v2/my-image"),
        ("store://host/a/b:1", "a/b", "1", "https://host/v2/a/b"),
        ("docker://docker.io/library/alpine", "library/alpine", "latest", f"{HUB}/library/alpine"),
        ("docker://docker.io/alpine:3", "library/alpine", "3", f"{HUB}/library/alpine"),
        ("docker://docker.io/user/app", "user/app", "latest", f"{HUB}/user/app"),
        ("docker://index.docker.io/alpine", "library/alpine", "latest", f"{HUB}/library/alpine"),
        (
            "docker://registry-1.docker.io/alpine",
            "library/alpine",
            "latest",
            f"{HUB}/library/alpine",
        ),
        ("docker://Quay.IO/a", "a", "latest", "https://quay.io/v2/a"),
        ("docker://[::1]:5000/a:1", "a", "1", "https://[::1]:5000/v2/a"),
        (f"docker://quay.io/a@{DIGEST}", "a", DIGEST, "https://quay.io/v2/a"),
        (f"docker://quay.io/a:1@{DIGEST}", "a", DIGEST, "https://quay.io/v2/a"),
        (f"docker://docker.io/alpine@{DIGEST}", "library/alpine", DIGEST, f"{HUB}/library/alpine"),
        ("docker://host/", "", "latest", "https://host/v2/"),
    ],
)
def test_urls(docker_url: str, repository: str, tag: str, url: str) -> None:
    parts = parse_docker_url(docker_url)

    assert isinstance(parts, DockerSplitResult)
    assert isinstance(parts, urllib.parse.SplitResult)
    assert (parts.repository, parts.tag, parts.url) == (repository, tag, url)


def test_the_parts_of_a_url() -> None:
    parts = parse_docker_url("docker://user:pa%20ss@localhost:5000/my-image:test")

    assert (parts.scheme, parts.hostname, parts.port) == ("docker", "localhost", 5000)
    assert (parts.username, parts.password) == ("user", "pa%20ss")
    assert parts.path == "/my-image:test"
    assert parts.geturl() == "docker://user:pa%20ss@localhost:5000/my-image:test"


@pytest.mark.parametrize(
    "docker_url",
    [
        "ftp://host/a",
        "host/a",
        "docker:///a",
        "",
        "docker://host:99999/a",
        "docker://host:port/a",
    ],
)
def test_what_has_no_url(docker_url: str) -> None:
    with pytest.raises(ValueError, match=r"docker:// ?-?Url|not a port") as caught:
        _ = parse_docker_url(docker_url).url

    assert isinstance(caught.value, InvalidReference)


def test_what_is_no_url_at_all() -> None:
    with pytest.raises(InvalidReference, match="not a docker URL"):
        parse_docker_url("docker://[::1/a")


def test_a_hub_of_a_url() -> None:
    hub = DockerHub("docker://us+er:p%40ss@registry.hub.docker.com/library/ubuntu:18.04")

    assert (hub.username, hub.password) == ("us er", "p@ss")
    assert (hub.repository, hub.tag) == ("library/ubuntu", "18.04")
    assert hub.url == f"{OLD_HUB}/library/ubuntu"
    hub.close()


@settings(deadline=None, database=None)
@given(st.text(max_size=50) | st.text("a:/@[]1.%?#", max_size=40).map("docker://".__add__))
def test_no_url_raises_anything_but_ours(text: str) -> None:
    try:
        DockerHub(text).close()
    except InvalidReference as error:
        message = str(error)
    else:
        return
    assert message.isprintable()
