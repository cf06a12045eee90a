"""Tags are selected by the dates of their images, which are asked for once."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest
import requests

from concil.engine.engine import Engine
from concil.plan.plan import Plan
from concil.server import EmbeddedRegistry
from concil.transfer.journal import Journal
from tests.engine.engine_setup import engine_of
from tests.support.images import (
    OCI,
    Image,
    assert_same_image,
    digest_of,
    make_image,
    make_index,
    put_image,
    write_layout,
)
from tests.support.relay import Relay
from tests.support.request_log import RequestLog

pytestmark = pytest.mark.timeout(60)
PLAN = """[[mirror]]
source = "{url}/app"
match = 'v\\d+'
keep = 2
"""


def seconds(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


def dated(seed: int, created: str | None, platform: str = "linux/amd64") -> Image:
    return make_image(seed, (10,), created=created, platform=platform)


def artifact(created: str | None) -> Image:
    """Build an artifact without the config of an image."""
    config = b"{}"
    entry = {"mediaType": "application/x", "digest": digest_of(config), "size": len(config)}
    annotations = {"org.opencontainers.image.created": created} if created else {}
    manifest = {
        "schemaVersion": 2,
        "mediaType": OCI.manifest,
        "config": entry,
        "layers": [],
        "annotations": annotations,
    }
    return Image(OCI.manifest, json.dumps(manifest).encode(), {digest_of(config): config})


@dataclass(frozen=True)
class Source:
    """A registry behind a relay that logs the requests."""

    registry: EmbeddedRegistry
    url: str
    log: RequestLog

    def put(self, tag: str, image: Image) -> None:
        put_image(self.registry.url, "app", tag, image)

    def take_requests(self) -> list[str]:
        """Return the requests since the last call, as method and kind."""
        lines = [f"{r.method} {r.path.split('/')[-2]}" for r in self.log.requests]
        self.log.clear()
        return sorted(lines)


@pytest.fixture
def source(tmp_path: Path) -> Iterator[Source]:
    log = RequestLog()
    with (
        EmbeddedRegistry(tmp_path / "source") as registry,
        Relay(registry.host, observer=log) as relay,
    ):
        yield Source(registry, relay.url, log)


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (dated(1, "2024-05-06T07:08:09Z"), "2024-05-06T07:08:09"),
        (dated(1, "2024-05-06T07:08:09.123456789+02:00"), "2024-05-06T05:08:09.123456"),
        (dated(1, None), None),
        (dated(1, "1970-01-01T00:00:00Z"), None),
        (dated(1, "0001-01-01T00:00:00+23:00"), None),
        (dated(1, "1980-01-01T00:00:01Z"), None),
        (dated(1, "yesterday"), None),
        (dated(1, "9999-12-31T23:59:59-23:00"), None),
        (artifact("2024-01-02T00:00:00Z"), "2024-01-02T00:00:00"),
        (artifact(None), None),
        (make_index([dated(1, None), dated(2, "2024-01-02T00:00:00Z")]), "2024-01-02T00:00:00"),
    ],
)
def test_dates_are_those_of_the_config(
    engine: Engine, source: Source, image: Image, expected: str | None
) -> None:
    source.put("v1", image)

    found = engine.find_creation_times(f"{source.url}/app", ["v1", "gone"])

    assert found == [None if expected is None else seconds(expected), None]


@pytest.mark.parametrize(
    ("platforms", "expected"),
    [
        ((), "2024-01-01"),
        (("linux/arm64",), "2024-02-01"),
        (("linux/s390x",), "2024-01-01"),  # whose copy fails and says so
    ],
)
def test_the_platforms_that_are_copied_count(
    engine: Engine, source: Source, platforms: tuple[str, ...], expected: str
) -> None:
    amd64 = dated(1, "2024-01-01T00:00:00Z")
    arm64 = dated(2, "2024-02-01T00:00:00Z", "linux/arm64")
    source.put("v1", make_index([amd64, arm64]))

    found = engine.find_creation_times(f"{source.url}/app", ["v1"], platforms)

    assert found == [seconds(expected)]


def test_an_index_that_lacks_a_platform_has_the_date_of_the_next(
    engine: Engine, source: Source
) -> None:
    """As after a copy of some platforms of an index, with a registry that allows it."""
    missing, present = dated(1, "2024-01-01T00:00:00Z"), dated(2, "2024-02-01T00:00:00Z")
    source.put("v1", make_index([missing, present]))
    response = requests.delete(
        f"{source.registry.url}/v2/app/manifests/{missing.digest}", timeout=30
    )
    response.raise_for_status()

    found = engine.find_creation_times(f"{source.url}/app", ["v1"])

    assert found == [seconds("2024-02-01")]


def test_an_index_of_many_images_without_date_costs_few_requests(
    engine: Engine, source: Source
) -> None:
    source.put("v1", make_index([dated(number, None) for number in range(30)]))

    for _ in range(2):
        assert engine.find_creation_times(f"{source.url}/app", ["v1"]) == [None]

    requests_made = source.take_requests()
    assert requests_made.count("GET manifests") <= 8
    assert requests_made.count("HEAD manifests") == 2


def test_a_layout_has_dates_too(engine: Engine, tmp_path: Path) -> None:
    write_layout(tmp_path / "layout", {"old": dated(1, "2024-01-01T00:00:00Z")})

    found = engine.find_creation_times(f"oci:{tmp_path}/layout", ["old", "gone"])

    assert found == [seconds("2024-01-01"), None]


def test_tags_of_one_digest_are_read_once(engine: Engine, source: Source) -> None:
    for tag in ("v1", "v1.2", "latest"):
        source.put(tag, dated(1, "2024-01-01T00:00:00Z"))

    engine.find_creation_times(f"{source.url}/app", ["v1", "v1.2", "latest"])

    assert source.take_requests() == ["GET blobs", "GET manifests", *["HEAD manifests"] * 3]
    engine.find_creation_times(f"{source.url}/app", ["v1", "latest"])
    assert source.take_requests() == ["HEAD manifests"] * 2  # without a journal


def test_a_date_that_cannot_be_read_is_tried_again(
    engine: Engine, source: Source, tmp_path: Path
) -> None:
    image = dated(1, "2024-01-01T00:00:00Z")
    source.put("v1", image)
    config = next(iter(image.blobs))
    path = tmp_path / "source" / "blobs" / config.replace(":", "/")
    content = path.read_bytes()
    path.write_bytes(b"x" * len(content))

    assert engine.find_creation_times(f"{source.url}/app", ["v1"]) == [None]
    path.write_bytes(content)

    assert engine.find_creation_times(f"{source.url}/app", ["v1"]) == [seconds("2024-01-01")]


def test_a_second_run_costs_a_lookup_for_each_tag(
    source: Source, tmp_path: Path, embedded: EmbeddedRegistry
) -> None:
    images = [dated(n, f"2024-01-{n:02}T00:00:00Z") for n in range(1, 6)]
    for number, image in enumerate(images, 1):
        source.put(f"v{number}", image)
    (tmp_path / "plan.toml").write_text(PLAN.format(url=source.url))
    plan = Plan.read(tmp_path / "plan.toml")

    def run() -> list[str]:
        journal_path = tmp_path / "journal.sqlite"
        with closing(Journal(journal_path)) as journal, engine_of(journal=journal) as engine:
            report = engine.mirror(plan.items(engine, embedded.url))
        assert not report.failed
        return source.take_requests()

    first, second = run(), run()

    with engine_of() as engine:
        assert sorted(engine.list_tags(f"{embedded.url}/app")) == ["v4", "v5"]
    assert_same_image(embedded.url, "app", "v5", images[4])
    assert first.count("GET blobs") >= len(images)  # the configs
    # The list, the dates, and the comparison of both images.
    assert second == ["GET tags", *["HEAD manifests"] * (5 + 2)]
    source.put("v6", dated(6, "2024-01-06T00:00:00Z"))
    third = run()
    assert third.count("GET manifests") <= 2
    assert third.count("HEAD manifests") <= 6 + 2
    assert_same_image(embedded.url, "app", "v4", images[3])  # it stays
