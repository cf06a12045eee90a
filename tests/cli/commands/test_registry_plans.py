"""`concil mirror` with the files of skopeo and regsync: whole registries, and TLS by host."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from tests.cli.commands.test_mirror_plan import tags_of
from tests.cli.runner import Cli, Outcome, assert_fails, assert_one_line
from tests.support.docker_registry import DockerRegistry
from tests.support.images import assert_same_image, make_image, put_image
from tests.support.relay import Relay
from tests.support.tls import CertificateAuthority

pytestmark = pytest.mark.real
APP, TOOL, OLD = (make_image(n, (3000, 1000)) for n in range(3))


@pytest.fixture
def source(fresh_docker_registry: DockerRegistry) -> DockerRegistry:
    """Return a registry with three repositories, and one that has lost its tag."""
    registry = fresh_docker_registry
    for name, tag, image in (
        ("team/app", "v1", APP),
        ("team/app", "v2", TOOL),
        ("team/tool", "v1", TOOL),
        ("old", "v1", OLD),
        ("empty", "v1", OLD),
    ):
        put_image(registry.url, name, tag, image)
    requests.delete(
        f"{registry.url}/v2/empty/manifests/{OLD.digest}", timeout=60
    ).raise_for_status()
    return registry


@pytest.fixture
def to(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DockerRegistry]:
    with DockerRegistry(tmp_path_factory.mktemp("to")) as registry:
        yield registry


def plan(path: Path, source: str, target: str, *more: str) -> Path:
    path.write_text(
        "\n".join(
            (
                *("creds:", f'  - {{registry: "{source}", tls: disabled}}'),
                f'  - {{registry: "{target}", tls: disabled}}',
                *("sync:", f'  - source: "{source}"', f'    target: "{target}"'),
                *("    type: registry", *more),
            )
        )
    )
    return path


def catalog(registry: DockerRegistry) -> list[str]:
    answer = requests.get(f"{registry.url}/v2/_catalog", timeout=60)
    return sorted(answer.json()["repositories"])


def test_a_whole_registry(
    cli: Cli, source: DockerRegistry, to: DockerRegistry, tmp_path: Path, jobs: str
) -> None:
    written = plan(tmp_path / "regsync.yml", source.host, to.host)

    first = cli("mirror", jobs, written)
    second = cli("mirror", jobs, written)

    assert (first.code, first.messages) == (0, "")
    assert first.out.startswith("4 images: 4 copied")
    assert second.out.startswith("4 images: 0 copied, 4 up to date")
    assert catalog(to) == ["old", "team/app", "team/tool"]
    assert tags_of(to.url, "team/app") == ["v1", "v2"]
    assert_same_image(to.url, "team/app", "v1", APP)


def test_repositories_and_tags_of_a_registry_are_chosen(
    cli: Cli, source: DockerRegistry, to: DockerRegistry, tmp_path: Path
) -> None:
    more = ("    repos: {allow: ['team/.*', old], deny: [old]}", "    tags: {allow: [v1]}")
    written = plan(tmp_path / "regsync.yml", source.host, to.host, *more)

    looked = cli("mirror", "--dry-run", written)
    nothing = catalog(to)
    result = cli("mirror", written)

    assert looked.out.splitlines()[-1].startswith("2 images: 2 to copy"), looked.err
    assert nothing == []
    assert result.code == 0, result.err
    assert catalog(to) == ["team/app", "team/tool"]
    assert tags_of(to.url, "team/app") == ["v1"]


def test_a_registry_into_a_layout(cli: Cli, source: DockerRegistry, tmp_path: Path) -> None:
    layout = tmp_path / "images"
    written = plan(tmp_path / "regsync.yml", source.host, f"ocidir://{layout}")

    result = cli("mirror", written)

    assert result.code == 0, result.err
    assert sorted(cli("tags", f"oci:{layout}").lines) == [
        f"{source.host}/{name}" for name in ("old:v1", "team/app:v1", "team/app:v2", "team/tool:v1")
    ]


def test_two_entries_for_one_target_are_found(
    cli: Cli, source: DockerRegistry, to: DockerRegistry, tmp_path: Path
) -> None:
    other = (
        f'  - source: "{source.host}/team/tool:v1"',
        f'    target: "{to.host}/team/app:v1"',
        "    type: image",
    )
    result = cli("mirror", plan(tmp_path / "regsync.yml", source.host, to.host, *other))

    assert result.code == 3
    assert result.out.startswith("4 images: 4 copied")
    assert_one_line(
        result.messages, "two images would be written to", "/team/app:v1", "another target"
    )


def test_a_list_that_cannot_be_had_is_retried(
    cli: Cli, source: DockerRegistry, to: DockerRegistry, tmp_path: Path
) -> None:
    report = tmp_path / "report.json"
    with Relay(source.host) as relay:
        written = plan(tmp_path / "regsync.yml", relay.host, to.host)
        source.kill()
        failed = cli("mirror", "--retry=0", written, "--report", report)
        source.restart()
        unlisted = json.loads(report.read_text())["images"]
        again = cli("mirror", written, "--retry-failed", report)

    assert failed.code == 1
    assert [entry["source"] for entry in unlisted] == [f"http://{relay.host}"]
    assert again.out.startswith("4 images: 4 copied"), again.err


def test_what_failed_of_a_registry_is_retried_alone(
    cli: Cli, source: DockerRegistry, to: DockerRegistry, tmp_path: Path
) -> None:
    report = tmp_path / "report.json"
    written = plan(tmp_path / "regsync.yml", source.host, to.host)
    digest = APP.digest.partition(":")[2]
    place = f"docker/registry/v2/blobs/sha256/{digest[:2]}/{digest}/data"
    (manifest,) = source.directory.glob(f"**/{place}")
    manifest.rename(manifest.with_name("hidden"))
    failed = cli("mirror", "--retry=0", written, "--report", report)
    manifest.with_name("hidden").rename(manifest)

    again = cli("mirror", written, "--retry-failed", report)

    assert failed.out.startswith("4 images: 3 copied, 0 up to date, 1 failed"), failed.out
    assert again.out.startswith("1 image: 1 copied"), again.err


def test_a_registry_is_not_pruned(
    cli: Cli, source: DockerRegistry, to: DockerRegistry, tmp_path: Path
) -> None:
    result = cli("mirror", "--prune", plan(tmp_path / "regsync.yml", source.host, to.host))

    assert_fails(result, 2, "regsync.yml:5: a whole registry cannot be pruned")
    assert catalog(to) == []


def test_registry_onto_itself_is_refused_before_the_first_request(
    cli: Cli, source: DockerRegistry, tmp_path: Path
) -> None:
    result = cli("mirror", plan(tmp_path / "regsync.yml", source.host, source.host))

    assert_fails(result, 2, "regsync.yml:5:", f"{source.host} would be copied onto itself")


@pytest.fixture
def closed(tmp_path: Path, ca: CertificateAuthority) -> Iterator[DockerRegistry]:
    """A registry whose certificate nobody knows."""
    place = tmp_path / "closed"
    with DockerRegistry(place, certificate=ca.issue("127.0.0.1")) as registry:
        with requests.Session() as session:
            session.trust_env, session.verify = False, str(ca.path)
            put_image(registry.url, "team/app", "v1", APP, session=session)
        yield registry


def assert_trusts(result: Outcome, *, trusted: bool) -> None:
    """Assert that an image came, or that its registry was not trusted."""
    if trusted:
        assert (result.code, result.messages) == (0, "")
        assert result.out.startswith("1 image: 1 copied")
    else:
        assert result.code == 1
        assert_one_line(result.messages, "certificate is not trusted")


@pytest.mark.parametrize("how", ["", "tls-verify: false", "cert-dir: {directory}"])
@pytest.mark.filterwarnings("ignore::urllib3.exceptions.InsecureRequestWarning")
def test_the_file_of_skopeo_says_whom_to_trust(
    cli: Cli, closed: DockerRegistry, ca: CertificateAuthority, tmp_path: Path, how: str
) -> None:
    (tmp_path / "ca.crt").write_text(ca.path.read_text())
    written = tmp_path / "sync.yml"
    field = how.format(directory=tmp_path)
    written.write_text(f'"{closed.host}":\n  images: {{team/app: [v1]}}\n  {field}\n')

    result = cli("mirror", written, f"oci:{tmp_path}/images")

    assert_trusts(result, trusted=bool(how))


@pytest.mark.parametrize("how", ["", "tls: insecure", "regcert: {pem}"])
@pytest.mark.filterwarnings("ignore::urllib3.exceptions.InsecureRequestWarning")
def test_the_file_of_regsync_says_whom_to_trust(
    cli: Cli, closed: DockerRegistry, ca: CertificateAuthority, tmp_path: Path, how: str
) -> None:
    written = tmp_path / "regsync.yml"
    field = how.format(pem=json.dumps(ca.path.read_text()))
    written.write_text(
        f'creds:\n  - registry: "{closed.host}"\n    {field}\n'
        f'sync:\n  - source: "{closed.host}/team/app:v1"\n    type: image\n'
        f'    target: "ocidir://{tmp_path}/images:v1"\n'
    )

    result = cli("mirror", written)

    assert_trusts(result, trusted=bool(how))
