"""`python -m benchmarks.cases.exchanges CLIENT COUNT URL`: small exchanges, one by one.

CLIENT is one of those in `CLIENTS`, URL that of a blob or manifest.
"""

from __future__ import annotations

import http.client
import sys
from collections.abc import Callable, Mapping
from urllib.parse import urlsplit

# Each is imported only where it is used: what is counted is one client.


def concil_head(url: str, count: int) -> None:
    """`DockerHub.has_blob`: authorization, throttle, retries and all."""
    from concil.dockerhub import DockerHub  # noqa: PLC0415

    repository, _, digest = url.partition("/blobs/")
    with DockerHub(repository.replace("/v2/", "/")) as hub:
        for _ in range(count):
            assert hub.has_blob(digest)


def concil_get(url: str, count: int) -> None:
    """`DockerHub.get_manifest`, with the hash of the manifest."""
    from concil.dockerhub import DockerHub  # noqa: PLC0415

    repository, _, tag = url.partition("/manifests/")
    with DockerHub(repository.replace("/v2/", "/")) as hub:
        for _ in range(count):
            assert hub.get_manifest(tag)


def requests_head(url: str, count: int) -> None:
    """`requests.Session.head`."""
    import requests  # noqa: PLC0415

    with requests.Session() as session:
        for _ in range(count):
            assert session.head(url, timeout=60).ok


def http_client_head(url: str, count: int) -> None:
    """`http.client` of the standard library."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.netloc, timeout=60)
    for _ in range(count):
        connection.request("HEAD", parts.path)
        answer = connection.getresponse()
        answer.read()
        assert answer.status == http.HTTPStatus.OK
    connection.close()


CLIENTS: Mapping[str, Callable[[str, int], None]] = {
    "concil-head": concil_head,
    "concil-get": concil_get,
    "requests": requests_head,
    "http.client": http_client_head,
}


def main(arguments: list[str]) -> None:
    name, count, url = arguments
    CLIENTS[name](url, int(count))


if __name__ == "__main__":
    main(sys.argv[1:])
