"""`concil mirror` and a host that lets nobody in: one failure, and the rest is not tried."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from concil.server import EmbeddedRegistry
from tests.cli.commands.test_mirror_plan import tags_of
from tests.cli.runner import Cli
from tests.support.docker_registry import DockerRegistry
from tests.support.images import make_image, put_image
from tests.support.relay import Relay
from tests.support.request_log import RequestLog

pytestmark = pytest.mark.real
COUNT = 40


@pytest.fixture
def seen() -> RequestLog:
    return RequestLog()


@pytest.fixture
def closed(tmp_path: Path, seen: RequestLog) -> Iterator[Relay]:
    with (
        DockerRegistry(tmp_path / "closed", users={"me": "right"}) as registry,
        Relay(registry.host, observer=seen) as relay,
    ):
        yield relay


@pytest.mark.parametrize("user", ["", "me:wrong@"])
def test_repositories_that_cannot_be_listed_are_one_failure(
    cli: Cli, registry: EmbeddedRegistry, closed: Relay, tmp_path: Path, user: str
) -> None:
    put_image(registry.url, "team/app", "v1", make_image(1))
    written = tmp_path / "plan.toml"
    sources = [f"http://{user}{closed.host}/r{n}" for n in range(COUNT)]
    sources.append(f"{registry.url}/team/app")
    written.write_text("".join(f'[[mirror]]\nsource = "{source}"\n' for source in sources))

    result = cli("mirror", written, f"{registry.url}/copy")

    assert result.code == 3
    first, rest = result.messages.splitlines()
    assert first.startswith(f"concil: failed: {written}:1: cannot ")
    assert rest.startswith(f"concil: failed: {COUNT - 1} more repositories were not tried: cannot ")
    assert ": 401 Unauthorized" in first
    assert ": 401 Unauthorized" in rest
    assert "wrong" not in result.err
    assert tags_of(registry.url, "copy/team/app") == ["v1"]


@pytest.mark.parametrize("user", ["", "me:wrong@"])
def test_images_of_a_closed_host_are_one_failure(  # noqa: PLR0917 - fixtures
    cli: Cli, registry: EmbeddedRegistry, closed: Relay, seen: RequestLog, tmp_path: Path, user: str
) -> None:
    put_image(registry.url, "team/app", "v1", make_image(1))
    listed = tmp_path / "list"
    report = tmp_path / "report.json"
    lines = [f"{registry.url}/team/app:v1 -> r{n}:v1" for n in range(COUNT)]
    listed.write_text("\n".join(lines))

    result = cli("mirror", "-j4", listed, f"http://{user}{closed.host}/m", f"--report={report}")

    assert result.code == 5
    assert result.out.startswith(
        f"{COUNT} images: 0 copied, 0 up to date, 1 failed, {COUNT - 1} not"
    )
    assert len(result.messages.splitlines()) == 2
    document = json.loads(report.read_text())
    assert document["summary"]["failed"] == 1
    assert document["summary"]["not_tried"] == COUNT - 1
    # What was under way at once, and GET /v2/ for some of these.
    assert len(seen.requests) <= 2 * 16
