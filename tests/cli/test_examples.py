"""The example files of the documentation run as they stand, between real registries.

A proxy takes the hosts that they name to loopback.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import requests

from tests.cli.commands.test_mirror_plan import tags_of
from tests.cli.runner import Cli
from tests.support.docker_registry import DockerRegistry
from tests.support.images import make_image, make_index, put_image
from tests.support.proxy import Proxy
from tests.support.tls import CertificateAuthority

pytestmark = pytest.mark.real
EXAMPLES = Path(__file__).parent.parent.parent / "docs" / "examples"
OPEN = ("registry-1.docker.io", "quay.io", "registry.corp.example")
CLOSED, DESTINATION = "registry.example.com", "registry.example.org"
USER, PASSWORD = "john", "not a secret"
ALPINE = make_index(
    [
        make_image(1 + n, (900,), platform=name)
        for n, name in enumerate(("linux/amd64", "linux/arm64", "linux/s390x"))
    ]
)


class ExampleRegistries:
    """What the examples name: two registries to read from, one to write to."""

    def __init__(self, source: DockerRegistry, closed: DockerRegistry, to: DockerRegistry) -> None:
        self.source = source
        self.closed = closed
        self.to = to


@pytest.fixture(scope="module")
def registries(
    tmp_path_factory: pytest.TempPathFactory, ca: CertificateAuthority
) -> Iterator[ExampleRegistries]:
    directory = tmp_path_factory.mktemp("world")
    names = ("127.0.0.1",)
    with ExitStack() as stack:
        source, closed, to = (
            stack.enter_context(each)
            for each in (
                DockerRegistry(directory / "source", certificate=ca.issue(*OPEN, *names)),
                DockerRegistry(
                    directory / "closed",
                    certificate=ca.issue(CLOSED, *names),
                    users={USER: PASSWORD},
                ),
                DockerRegistry(directory / "to", certificate=ca.issue(DESTINATION, *names)),
            )
        )
        session = requests.Session()
        session.trust_env, session.verify = False, str(ca.path)
        for tag in ("3.17.0", "3.19.0", "3.19.1", "latest"):
            put_image(source.url, "library/alpine", tag, ALPINE, session=session)
        for n, tag in enumerate(("v1.3.0", "v1.4.0", "v1.5.0", "edge")):
            put_image(source.url, "team/app", tag, make_image(20 + n, (900,)), session=session)
        put_image(source.url, "team/tool", "v2", make_image(30, (900,)), session=session)
        for days in (1, 2, 3, 400):
            created = (datetime.now(UTC) - timedelta(days=days)).isoformat()
            nightly = make_image(40 + days, (900,), created=created)
            put_image(source.url, "team/nightly", f"{days}-days-old", nightly, session=session)
        for name in ("shop/web", "shop/web/test"):
            put_image(source.url, name, "1", make_image(50, (900,)), session=session)
        session.auth = USER, PASSWORD
        for name, tag, seed in (
            *(("busybox", tag, 31) for tag in ("1", "2")),
            *(("redis", tag, 32) for tag in ("7.0", "7.2", "7.4")),
            ("redis", "by-digest", 33),
            *(("nginx", tag, 34) for tag in ("1.24.0-alpine", "1.25.3-alpine", "1.26.0")),
            *(("alpine", tag, 35) for tag in ("3.17.0", "3.18.0")),
        ):
            put_image(closed.url, name, tag, make_image(seed, (900,)), session=session)
        session.close()
        yield ExampleRegistries(source, closed, to)


@pytest.fixture
def proxied(
    registries: ExampleRegistries, monkeypatch: pytest.MonkeyPatch
) -> Iterator[ExampleRegistries]:
    """Let the hosts of the examples be found."""
    ports = {f"{host}:443": registries.source.port for host in OPEN}
    ports |= {f"{CLOSED}:443": registries.closed.port, f"{DESTINATION}:5000": registries.to.port}
    with Proxy(ports=ports) as proxy:
        monkeypatch.setenv("https_proxy", proxy.url)
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        yield registries


@pytest.fixture
def there(
    registries: ExampleRegistries, ca: CertificateAuthority, monkeypatch: pytest.MonkeyPatch
) -> ExampleRegistries:
    """Return the world, its destination readable by the tests' own requests."""
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(ca.path))
    return registries


def tags(registries: ExampleRegistries, repository: str) -> list[str]:
    return tags_of(registries.to.url, repository)


def test_the_toml_plan(
    cli: Cli, proxied: ExampleRegistries, there: ExampleRegistries, ca: CertificateAuthority
) -> None:
    plan = EXAMPLES / "plan.toml"

    result = cli("mirror", plan, f"{DESTINATION}:5000/toml", f"--cacert={ca.path}")

    assert result.code == 0, result.err
    assert tags(there, "toml/library/alpine") == ["3.19.0", "3.19.1", "latest"]
    assert tags(there, "toml/apps/app") == ["v1.4.0", "v1.5.0"]
    assert "stable" in tags(there, "tools/tool")
    assert tags(there, "toml/team/nightly") == ["1-days-old", "2-days-old"]
    assert tags(there, "toml/corp/shop/web") == ["1"]
    assert tags(there, "toml/corp/shop/web/test") == []
    image = f"{DESTINATION}:5000/toml/library/alpine:latest"
    shown = cli("inspect", image, f"--cacert={ca.path}")
    assert "arm64" in shown.out
    assert "s390x" not in shown.out


def test_the_list(
    cli: Cli, proxied: ExampleRegistries, there: ExampleRegistries, ca: CertificateAuthority
) -> None:
    result = cli("mirror", EXAMPLES / "list.txt", f"{DESTINATION}:5000/list", f"--cacert={ca.path}")

    assert result.code == 0, result.err
    assert tags(there, "list/library/alpine") == ["3.19.1"]
    assert tags(there, "list/apps/app") == ["stable"]
    assert "v2" in tags(there, "tools/tool")


def test_the_file_of_skopeo(
    cli: Cli, proxied: ExampleRegistries, there: ExampleRegistries, ca: CertificateAuthority
) -> None:
    plan = EXAMPLES / "skopeo-sync.yaml"

    result = cli("mirror", plan, f"{DESTINATION}:5000/skopeo", f"--cacert={ca.path}")

    assert result.code == 0, result.err
    assert "cert-dir: there is no directory '/home/john/certs'" in result.err
    assert tags(there, "skopeo/busybox") == ["1", "2"]
    assert tags(there, "skopeo/redis") == ["7.2", "7.4"]
    assert tags(there, "skopeo/nginx") == ["1.25.3-alpine"]
    assert tags(there, "skopeo/alpine") == ["3.18.0"]
    assert tags(there, "skopeo/tool") == ["v2"]
    pinned = f"{DESTINATION}:5000/skopeo/redis@{make_image(33, (900,)).digest}"
    assert cli("digest", pinned, f"--cacert={ca.path}").lines == [pinned.partition("@")[2]]


def test_the_file_of_regsync(
    cli: Cli,
    proxied: ExampleRegistries,
    there: ExampleRegistries,
    ca: CertificateAuthority,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HUB_USER", "somebody")
    monkeypatch.setenv("HUB_TOKEN", "not-a-secret")

    result = cli("mirror", EXAMPLES / "regsync.yaml", f"--cacert={ca.path}")

    assert result.code == 0, result.err
    assert tags(there, "library/alpine") == ["3.19.1"]
    assert tags(there, "filtered/alpine") == ["3.19.1", "latest"]
    assert tags(there, "team/app") == ["v1.4.0", "v1.5.0"]
    assert tags(there, "copies/busybox") == ["1", "2"]
    assert tags(there, "copies/nginx") == ["1.25.3-alpine", "1.26.0"]
    assert tags(there, "copies/redis") == []
    assert result.out.startswith("9 images: 9 copied"), result.out
