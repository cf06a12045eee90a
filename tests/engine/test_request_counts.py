"""What a copy of an image costs in requests, between registries of both kinds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import requests

from concil.config import TransferConfig
from concil.engine.engine import Engine
from concil.server import EmbeddedRegistry, RegistryBehavior, Request, Response
from concil.transfer.mirror.report import MirrorItem
from tests.engine.engine_setup import Registry, engine_of
from tests.support.images import (
    Image,
    assert_same_image,
    make_image,
    make_layer,
    put_blob,
    put_image,
)
from tests.support.relay import Relay
from tests.support.request_log import RequestLog

pytestmark = pytest.mark.timeout(60)
LAYERS = [make_layer(seed, 1_000 + seed) for seed in range(3)]
SHARED = make_layer(9, 5_000)


@dataclass(frozen=True)
class Counted:
    """Relays in front of a source and a destination, which log the requests."""

    source: str  # URL
    destination: str  # URL
    logs: tuple[RequestLog, RequestLog]

    def lines(self) -> list[str]:
        """Return the requests as method and path, those to the source first."""
        return [f"{r.method} {r.path}" for log in self.logs for r in log.requests]

    def clear(self) -> None:
        """Forget the requests so far."""
        for log in self.logs:
            log.clear()


@pytest.fixture
def source(tmp_path: Path) -> Iterator[EmbeddedRegistry]:
    with EmbeddedRegistry(tmp_path / "source") as registry:
        yield registry


@pytest.fixture
def counted(source: EmbeddedRegistry, registry: Registry) -> Iterator[Counted]:
    logs = RequestLog(), RequestLog()
    with (
        Relay(source.host, observer=logs[0]) as first,
        Relay(registry.host, observer=logs[1]) as second,
    ):
        yield Counted(first.url, second.url, logs)


def test_new_image_of_four_blobs(
    engine: Engine, counted: Counted, source: EmbeddedRegistry, registry: Registry, repository: str
) -> None:
    image = make_image(1, LAYERS)
    put_image(source.url, "app", "v1", image)

    engine.copy(f"{counted.source}/app:v1", f"{counted.destination}/{repository}:v1")

    assert_same_image(registry.url, repository, "v1", image)
    assert len(counted.lines()) <= 16, "\n".join(counted.lines())


def test_unchanged_image(
    engine: Engine, counted: Counted, source: EmbeddedRegistry, registry: Registry, repository: str
) -> None:
    image = make_image(1, LAYERS)
    put_image(source.url, "app", "v1", image)
    put_image(registry.url, repository, "v1", image)

    engine.copy(f"{counted.source}/app:v1", f"{counted.destination}/{repository}:v1")

    assert len(counted.lines()) == 2, "\n".join(counted.lines())


def test_blob_of_another_repository_is_mounted(
    engine: Engine, counted: Counted, source: EmbeddedRegistry, registry: Registry, repository: str
) -> None:
    first, second = make_image(1, [SHARED]), make_image(2, [*LAYERS, SHARED])
    put_image(source.url, "one", "v1", first)
    put_image(source.url, "two", "v1", second)
    names = [f"{repository}/one", f"{repository}/two"]
    engine.copy(f"{counted.source}/one:v1", f"{counted.destination}/{names[0]}:v1")
    counted.clear()

    engine.copy(f"{counted.source}/two:v1", f"{counted.destination}/{names[1]}:v1")

    assert_same_image(registry.url, names[1], "v1", second)
    lines = counted.lines()
    assert len(lines) <= 17, "\n".join(lines)


class AnswersMounts(RegistryBehavior):
    """A registry that answers every mount from a repository itself with one status."""

    def __init__(self, status: int) -> None:
        self.status = status
        self.mounts = 0

    def before_request(self, request: Request) -> Response | None:
        if request.method == "POST" and "mount" in request.query:
            self.mounts += 1
            return Response(self.status)
        return None


@pytest.mark.parametrize("status", [200, 201, 202, 400, 403, 404, 405, 500, 501])
def test_nonsense_in_answer_to_mounts_loses_nothing(
    tmp_path: Path, source: EmbeddedRegistry, config: TransferConfig, engine: Engine, status: int
) -> None:
    images = {f"v{n}": make_image(20 + n, [*LAYERS, SHARED]) for n in range(2)}
    behavior = AnswersMounts(status)
    with EmbeddedRegistry(tmp_path / "target", behavior=behavior) as target:
        for tag, image in images.items():
            put_image(source.url, "app", tag, image)
            engine.copy(f"{source.url}/app:{tag}", f"{target.url}/app:{tag}")
            assert_same_image(target.url, "app", tag, image)

    assert behavior.mounts


def test_registry_that_never_mounts_gets_a_large_blob_once(
    tmp_path: Path, source: EmbeddedRegistry, engine: Engine
) -> None:
    large = make_layer(30, 1_000_000)
    image = make_image(31, [large])
    put_image(source.url, "app", "v1", image)

    class NeverMounts(RegistryBehavior):
        def before_request(self, request: Request) -> Response | None:
            request.query.pop("mount", None)
            return None

    with EmbeddedRegistry(tmp_path / "target", behavior=NeverMounts()) as target:
        put_blob(target.url, "app", large.blob)
        log = RequestLog()
        with Relay(target.host, observer=log) as relay:
            engine.copy(f"{source.url}/app:v1", f"{relay.url}/app:v1")
        assert_same_image(target.url, "app", "v1", image)

    assert log.body_bytes("PUT") + log.body_bytes("PATCH") < len(large.blob)


# Tags that the destination lacks ----------------------------------------------------------

TAGS = [f"v{number}" for number in range(12)]


@pytest.fixture
def serial_engine(config: TransferConfig) -> Iterator[Engine]:
    """Run an engine that copies one image after the other, in the order of the items."""
    with engine_of(replace(config, concurrent_images=1)) as engine:
        yield engine


def put_tags(source: EmbeddedRegistry, tags: list[str] = TAGS) -> dict[str, Image]:
    """Put one small image for each tag into the source."""
    images = {tag: make_image(40 + number, []) for number, tag in enumerate(tags)}
    for tag, image in images.items():
        put_image(source.url, "app", tag, image)
    return images


def mirror_tags(engine: Engine, source: str, destination: str, tags: list[str] = TAGS) -> None:
    """Mirror tags of one repository; every image has to arrive."""
    items = [MirrorItem(f"{source}/app:{tag}", f"{destination}:{tag}") for tag in tags]
    report = engine.mirror(items)
    assert [outcome.error for outcome in report.outcomes] == [None] * len(tags)


def lookups(lines: list[str], repository: str) -> list[str]:
    """Return the lookups of tags before they were put, and the requests for the list of tags."""
    found, put = [], set()
    for line in lines:
        method, _, path = line.partition(" ")
        name = path.removeprefix(f"/v2/{repository}/manifests/")
        if method == "PUT":
            put.add(name)
        is_lookup = method == "HEAD" and name in TAGS and name not in put
        if is_lookup or f"/{repository}/tags/list" in line:
            found.append(line)
    return found


def test_tags_of_an_unknown_repository_are_asked_for_once(
    engine: Engine, counted: Counted, source: EmbeddedRegistry, registry: Registry, repository: str
) -> None:
    images = put_tags(source)

    mirror_tags(engine, counted.source, f"{counted.destination}/{repository}")

    for tag, image in images.items():
        assert_same_image(registry.url, repository, tag, image)
    asked = lookups(counted.lines(), repository)
    assert len(asked) == 3, "\n".join(asked)  # two tags, and the list


def test_listed_tags_are_looked_up_by_name(
    serial_engine: Engine,
    counted: Counted,
    source: EmbeddedRegistry,
    registry: Registry,
    repository: str,
) -> None:
    images = put_tags(source)
    for tag in TAGS[3:5]:
        put_image(registry.url, repository, tag, images[tag])
    put_image(registry.url, repository, TAGS[5], images[TAGS[6]])

    mirror_tags(serial_engine, counted.source, f"{counted.destination}/{repository}")

    for tag, image in images.items():
        assert_same_image(registry.url, repository, tag, image)
    asked = lookups(counted.lines(), repository)
    assert sorted(asked[3:]) == [f"HEAD /v2/{repository}/manifests/{tag}" for tag in TAGS[3:6]]


def test_no_list_is_read_where_nothing_is_missing(
    engine: Engine, counted: Counted, source: EmbeddedRegistry, registry: Registry, repository: str
) -> None:
    for tag, image in put_tags(source).items():
        put_image(registry.url, repository, tag, image)

    mirror_tags(engine, counted.source, f"{counted.destination}/{repository}")

    assert len(counted.lines()) == 2 * len(TAGS), "\n".join(counted.lines())
    assert not [line for line in counted.lines() if "tags/list" in line]


@pytest.mark.parametrize("count", [1, 2])
def test_few_tags_cost_no_list(
    engine: Engine, counted: Counted, source: EmbeddedRegistry, repository: str, count: int
) -> None:
    put_tags(source)

    mirror_tags(engine, counted.source, f"{counted.destination}/{repository}", TAGS[:count])

    heads = [f"HEAD /v2/{repository}/manifests/{tag}" for tag in TAGS[:count]]
    assert sorted(lookups(counted.lines(), repository)) == heads


def test_immutable_tags_are_looked_up_by_name(
    engine: Engine, counted: Counted, source: EmbeddedRegistry, repository: str
) -> None:
    put_tags(source)
    destination = f"{counted.destination}/{repository}"
    items = [
        MirrorItem(f"{counted.source}/app:{tag}", f"{destination}:{tag}", immutable=True)
        for tag in TAGS
    ]

    engine.mirror(items)

    assert len(lookups(counted.lines(), repository)) == len(TAGS)


def test_the_next_run_asks_again(
    engine: Engine, counted: Counted, source: EmbeddedRegistry, registry: Registry, repository: str
) -> None:
    images = put_tags(source)
    mirror_tags(engine, counted.source, f"{counted.destination}/{repository}", TAGS[:3])
    for tag in TAGS:
        put_image(registry.url, repository, tag, images[tag])
    counted.clear()

    mirror_tags(engine, counted.source, f"{counted.destination}/{repository}")

    puts = [line for line in counted.lines() if line.startswith("PUT")]
    assert puts == []


class AnswersLists(RegistryBehavior):
    """A registry that answers requests for lists of tags in its own way."""

    def __init__(self, answer: Response) -> None:
        self.answer = answer
        self.lists = 0

    def before_request(self, request: Request) -> Response | None:
        if request.path.endswith("/tags/list"):
            self.lists += 1
            return self.answer
        return None


@pytest.mark.parametrize(
    "answer",
    [
        Response(401),
        Response(403),
        Response(404),
        Response(404, body=b'{"errors": [{"code": "NAME_UNKNOWN"}]}'),
        Response(400),
        Response(429),
        Response(500),
        Response(503),
        Response(204),
        Response(200, body=b"<html>"),
        Response(200, body=b'{"name": "app", "tags": null}'),
        Response(200, body=b'{"name": "app", "tags": ["other", 1, "v3"]}'),
        Response(200, body=b'{"name": "app", "tags": "v3"}'),
        Response(200, {"Link": '</v2/app/tags/list?last=a>; rel="next"'}, b'{"tags": ["a"]}'),
        Response(307, {"Location": "http://registry.invalid/"}),
    ],
    ids=lambda answer: f"{answer.status} {answer.body[:40]!r}",
)
def test_any_answer_to_a_list_loses_no_image(
    tmp_path: Path, source: EmbeddedRegistry, serial_engine: Engine, answer: Response
) -> None:
    images = put_tags(source, TAGS[:5])
    behavior = AnswersLists(answer)
    with EmbeddedRegistry(tmp_path / "target", behavior=behavior) as target:
        put_image(target.url, "app", "v3", images["v4"])

        mirror_tags(serial_engine, source.url, f"{target.url}/app", TAGS[:5])

        for tag, image in images.items():
            assert_same_image(target.url, "app", tag, image)
    assert behavior.lists == 1


class RefusesLists(RegistryBehavior):
    """A registry with a password whose lists of tags are for other users."""

    def __init__(self, status: int) -> None:
        self.status = status
        self.lists = 0

    def before_request(self, request: Request) -> Response | None:
        challenge = {"WWW-Authenticate": 'Basic realm="registry"'}
        if "authorization" not in request.headers:
            return Response(401, challenge)
        if request.path.endswith("/tags/list"):
            self.lists += 1
            return Response(self.status, challenge)
        return None


@pytest.mark.parametrize("status", [401, 403])
def test_user_who_may_not_list_tags_can_mirror(
    tmp_path: Path, source: EmbeddedRegistry, serial_engine: Engine, status: int
) -> None:
    images = put_tags(source, TAGS[:5])
    behavior = RefusesLists(status)
    with EmbeddedRegistry(tmp_path / "target", behavior=behavior) as target:
        address = target.url.replace("http://", "http://user:password@")

        mirror_tags(serial_engine, source.url, f"{address}/app", TAGS[:5])

        with requests.Session() as session:
            session.auth = ("user", "password")
            for tag, image in images.items():
                assert_same_image(target.url, "app", tag, image, session)
    assert behavior.lists
