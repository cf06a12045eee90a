"""Lists of distribution 3, which come in pages, of registries that are plain http."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import requests

from concil import Engine
from concil.server import EmbeddedRegistry, Request, Response
from tests.cli.runner import PATIENCE, Cli, Program
from tests.personalities.distribution import Distribution3
from tests.support.images import make_image, put_image, write_layout

pytestmark = [pytest.mark.slow, pytest.mark.threads_only]

IMAGE = make_image(5, (100,))
PAGE = 4  # names
TAGS = [f"v{n:02}" for n in range(PAGE * 2 + 1)]
REPOSITORIES = ["app", *(f"more/{n}" for n in range(PAGE * 2))]


class ShortPages(Distribution3):
    """With `catalog.maxentries` and `tags.maxtags` set."""

    page_limit = PAGE


@pytest.fixture
def source(tmp_path: Path) -> Iterator[EmbeddedRegistry]:
    with EmbeddedRegistry(tmp_path / "source", behavior=ShortPages()) as registry:
        for tag in TAGS:
            put_image(registry.url, "app", tag, IMAGE)
        for name in REPOSITORIES[1:]:
            put_image(registry.url, name, "v1", IMAGE)
        yield registry


def tags_of(registry: EmbeddedRegistry, repository: str) -> list[str]:
    found: list[str] = requests.get(f"{registry.url}/v2/{repository}/tags/list", timeout=60).json()[
        "tags"
    ]
    return found


@pytest.mark.parametrize("form", ["{}/app", "http://{}/app", "docker://{}/app"])
@pytest.mark.parametrize("options", [[], ["--insecure"]], ids=["", "insecure"])
def test_all_pages_of_tags_are_listed(
    cli: Cli, source: EmbeddedRegistry, form: str, options: list[str]
) -> None:
    result = cli("tags", *options, form.format(source.host))

    assert (result.code, result.lines, result.err) == (0, TAGS, "")


class HoldsPages(ShortPages):
    """Answers for a further page only once the test allows it."""

    def __init__(self) -> None:
        super().__init__()
        self.is_released = threading.Event()

    def before_request(self, request: Request) -> Response | None:
        if request.query_value("last"):
            assert self.is_released.wait(PATIENCE)
        return super().before_request(request)


@pytest.mark.parametrize("verb", ["tags", "ls"])
def test_tags_are_printed_while_the_list_is_read(
    program: Program, tmp_path: Path, verb: str
) -> None:
    behavior = HoldsPages()
    write_layout(tmp_path / "held", {f"app:{tag}": IMAGE for tag in TAGS})
    with (
        EmbeddedRegistry(tmp_path / "held", behavior=behavior) as registry,
        program.start(verb, f"{registry.host}/app") as running,
    ):
        assert running.stdout is not None
        first = [running.stdout.readline().decode().strip() for _ in range(PAGE)]
        behavior.is_released.set()
        rest = running.stdout.read().decode().split()
        assert running.stderr is not None
        assert running.stderr.read() == b""

    assert first + rest == TAGS


class ManyTags(Distribution3):
    """Says that there are 1,205 tags, without the work of making them."""

    tags = tuple(f"t{n:04}" for n in range(1205))

    def before_request(self, request: Request) -> Response | None:
        if (refused := super().before_request(request)) or not request.path.endswith("/tags/list"):
            return refused
        last, count = request.query_value("last") or "", int(request.query_value("n") or "")
        tags = [tag for tag in self.tags if tag > last]
        headers = {"Content-Type": "application/json"}
        if len(tags) > count:
            headers["Link"] = f'<{request.path}?last={tags[count - 1]}&n={count}>; rel="next"'
        return Response(200, headers, json.dumps({"name": "app", "tags": tags[:count]}).encode())


def test_more_tags_than_a_page_can_have(cli: Cli, tmp_path: Path) -> None:
    """As reported: of 1,205 tags 1,000 came."""
    with EmbeddedRegistry(tmp_path / "many", behavior=ManyTags()) as registry:
        result = cli("tags", f"{registry.host}/app")

        assert len([e for e in registry.requests if "/tags/list" in e.path]) == 2
    assert (result.code, result.messages) == (0, "")
    assert tuple(result.lines) == ManyTags.tags


def _toml(path: Path, host: str) -> Path:
    plan = path / "plan.toml"
    plan.write_text(f'[[mirror]]\nsource = "{host}/app"\nmatch = "v.*"\n')
    return plan


def _skopeo(path: Path, host: str) -> Path:
    plan = path / "plan.yaml"
    plan.write_text(f'"{host}":\n  tls-verify: false\n  images:\n    app: []\n')
    return plan


def _regsync(path: Path, host: str, target: str) -> Path:
    plan = path / "regsync.yml"
    creds = [{"registry": each, "tls": "disabled"} for each in (host, target)]
    sync = [{"source": host, "target": target, "type": "registry"}]
    plan.write_text(json.dumps({"version": 1, "creds": creds, "sync": sync}))
    return plan


@pytest.fixture(params=[_toml, _skopeo], ids=["toml", "skopeo"])
def plan(request: pytest.FixtureRequest, tmp_path: Path, source: EmbeddedRegistry) -> Path:
    write: Callable[[Path, str], Path] = request.param
    return write(tmp_path, source.host)


def test_plans_take_all_pages(cli: Cli, jobs: str, plan: Path, registry: EmbeddedRegistry) -> None:
    result = cli("mirror", jobs, plan, f"{registry.host}/to")

    assert (result.code, result.messages) == (0, "")
    assert result.out.startswith(f"{len(TAGS)} images: {len(TAGS)} copied")
    assert tags_of(registry, "to/app") == TAGS


def test_a_plan_for_a_whole_registry_takes_all_pages(
    cli: Cli, jobs: str, tmp_path: Path, source: EmbeddedRegistry, registry: EmbeddedRegistry
) -> None:
    result = cli("mirror", jobs, _regsync(tmp_path, source.host, registry.host))

    assert (result.code, result.messages) == (0, "")
    catalog = requests.get(f"{registry.url}/v2/_catalog", timeout=60).json()
    assert catalog["repositories"] == REPOSITORIES
    assert tags_of(registry, "app") == TAGS


def test_copy_all_takes_all_pages(
    cli: Cli, jobs: str, source: EmbeddedRegistry, registry: EmbeddedRegistry
) -> None:
    result = cli("copy", jobs, "--all", f"{source.host}/app", f"{registry.host}/to/app")

    assert result.code == 0, result.err
    assert tags_of(registry, "to/app") == TAGS


@pytest.mark.parametrize("form", ["{}", "http://{}"])
def test_an_engine_lists_all_repositories(source: EmbeddedRegistry, form: str) -> None:
    with Engine() as engine:
        assert list(engine.list_repositories(form.format(source.host))) == REPOSITORIES
