"""`concil mirror --dry-run`: what would be done, with sizes, and nothing of it is done."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from concil.server import EmbeddedRegistry
from tests.cli.commands.test_mirror_plan import tags_of
from tests.cli.runner import Cli
from tests.support.docker_registry import DockerRegistry
from tests.support.images import Image, make_image, make_index, make_layer, put_image
from tests.support.referrers import digest_tag, make_cosign_artifact, make_referrer, put_referrer
from tests.support.relay import Relay
from tests.support.request_log import RequestLog

pytestmark = pytest.mark.threads_only

SHARED = make_layer(50, 40_000)
FIRST, SECOND = make_image(1, (SHARED, 3000)), make_image(2, (SHARED, 2000))
ARM = make_image(4, (500,), platform="linux/arm64")


@pytest.fixture
def source(registry: EmbeddedRegistry) -> EmbeddedRegistry:
    put_image(registry.url, "team/app", "v1", FIRST)
    put_image(registry.url, "team/app", "v2", SECOND)
    put_image(registry.url, "team/app", "both", make_index([FIRST, ARM]))
    return registry


@pytest.fixture
def seen() -> RequestLog:
    return RequestLog()


@pytest.fixture
def relay(fresh_docker_registry: DockerRegistry, seen: RequestLog) -> Iterator[Relay]:
    with Relay(fresh_docker_registry.host, observer=seen) as relay:
        yield relay


@pytest.fixture
def plan(source: EmbeddedRegistry, tmp_path: Path) -> Path:
    path = tmp_path / "plan.toml"
    path.write_text(f'[[mirror]]\nsource = "{source.url}/team/app"\n')
    return path


def sizes(*images: Image) -> int:
    """Bytes of the blobs of all images, each once."""
    blobs = {digest: blob for image in images for digest, blob in image.all_blobs().items()}
    return sum(map(len, blobs.values()))


@pytest.mark.real
def test_first_run_is_predicted_to_the_byte_and_changes_nothing(  # noqa: PLR0917 - fixtures
    cli: Cli,
    fresh_docker_registry: DockerRegistry,
    relay: Relay,
    seen: RequestLog,
    plan: Path,
    jobs: str,
) -> None:
    report = plan.with_name("report.json")
    command = ("mirror", jobs, plan, f"{relay.url}/m", f"--report={report}")

    shown = cli(*command, "--dry-run")

    assert shown.code == 0, shown.err
    assert {each.method for each in seen.requests} <= {"GET", "HEAD"}
    assert tags_of(fresh_docker_registry.url, "m/team/app") == []
    document = json.loads(report.read_text())
    assert {entry["outcome"] for entry in document["images"]} == {"would_copy"}
    assert sum(entry["missing_bytes"] for entry in document["images"]) == sizes(FIRST, SECOND, ARM)
    assert len(shown.lines) == 4
    assert sum(line.startswith("copy http") for line in shown.lines) == 3
    assert shown.lines[-1].startswith("3 images: 3 to copy (")

    result = cli(*command)
    assert result.out.startswith("3 images: 3 copied"), result.err
    assert json.loads(report.read_text())["summary"]["bytes_sent"] == sizes(FIRST, SECOND, ARM)


@pytest.mark.real
def test_present_blobs_are_not_counted(
    cli: Cli, fresh_docker_registry: DockerRegistry, relay: Relay, plan: Path, jobs: str
) -> None:
    put_image(fresh_docker_registry.url, "m/team/app", "v1", FIRST)
    report = plan.with_name("report.json")

    shown = cli("mirror", jobs, plan, f"{relay.url}/m", f"--report={report}", "--dry-run")

    assert shown.code == 0, shown.err
    entries = {e["source"].rpartition(":")[2]: e for e in json.loads(report.read_text())["images"]}
    assert entries["v1"]["outcome"] == "present"
    assert entries["v2"]["missing_bytes"] == sizes(SECOND) - len(SHARED.blob)
    assert entries["both"]["missing_bytes"] == sizes(ARM)
    assert entries["both"]["manifests"] == 2  # itself and the one for arm64


def test_missing_layout_is_not_created(cli: Cli, plan: Path, tmp_path: Path, jobs: str) -> None:
    (tmp_path / "empty").mkdir()

    for name in ("layout", "empty"):
        shown = cli("mirror", jobs, plan, f"oci:{tmp_path / name}", "--dry-run")
        assert shown.code == 0, shown.err
        assert shown.lines[-1].startswith("3 images: 3 to copy (")

    assert not (tmp_path / "layout").exists()
    assert list((tmp_path / "empty").iterdir()) == []


def test_a_dry_run_is_not_remembered_as_a_mirror(
    cli: Cli, source: EmbeddedRegistry, plan: Path, jobs: str
) -> None:
    plan.write_text(plan.read_text() + 'immutable = ".*"\n')
    command = ("mirror", jobs, plan, f"{source.url}/copy")

    cli(*command, "--dry-run")

    assert cli(*command).out.startswith("3 images: 3 copied")
    shown = cli(*command, "--dry-run")
    assert [line.partition(" ")[0] for line in shown.lines[:-1]] == ["present"] * 3


def test_what_cannot_be_copied_fails_in_a_dry_run_too(
    cli: Cli, source: EmbeddedRegistry, tmp_path: Path, jobs: str
) -> None:
    listed = tmp_path / "list"
    listed.write_text(f"{source.host}/team/none:1\n{source.host}/team/app:v1\n")

    shown = cli("mirror", jobs, listed, f"{source.host}/copy", "--dry-run")

    assert shown.code == 3
    assert "1 to copy" in shown.lines[-1]
    assert "1 failed" in shown.lines[-1]
    assert "team/none" in shown.err


@pytest.mark.parametrize("since", [False, True], ids=["", "since"])
def test_dry_run_predicts_the_copied_signatures(
    cli: Cli, source: EmbeddedRegistry, tmp_path: Path, plan: Path, jobs: str, *, since: bool
) -> None:
    # The index has v1 in it: which of them brings what refers to it is a matter of order.
    plan.write_text(f"{plan.read_text()}exclude = ['both']\n")
    before = f"oci:{tmp_path}/to"
    cli("mirror", jobs, plan, "--referrers", before)
    options = ["--referrers", f"oci:{tmp_path}/new", f"--since={before}"]
    if not since:
        options = ["--referrers", before]
    signed = make_referrer(FIRST)
    put_referrer(source.url, "team/app", make_referrer(signed, b"again"))
    put_referrer(source.url, "team/app", signed)
    put_image(source.url, "team/app", digest_tag(SECOND, ".sig"), make_cosign_artifact())
    # A list of referrers, as clients write it where a registry has none.
    put_image(source.url, "team/app", digest_tag(FIRST), make_index([signed]))

    shown = cli("mirror", jobs, plan, *options, f"--report={tmp_path}/shown.json", "--dry-run")
    result = cli("mirror", jobs, plan, *options, f"--report={tmp_path}/done.json")

    assert (shown.code, result.code) == (0, 0)
    shown_json, done_json = (
        {
            entry["source"]: (entry["outcome"].endswith("present"), entry["referrers"])
            for entry in json.loads((tmp_path / name).read_text())["images"]
        }
        for name in ("shown.json", "done.json")
    )
    assert shown_json == done_json
    assert sum(referrers for _, referrers in done_json.values()) > 2
    missing = sum(
        entry.get("missing_bytes", 0)
        for entry in json.loads((tmp_path / "shown.json").read_text())["images"]
    )
    assert missing == json.loads((tmp_path / "done.json").read_text())["summary"]["bytes_sent"]


def test_dry_run_predicts_what_a_docker_archive_refuses(
    cli: Cli, source: EmbeddedRegistry, tmp_path: Path, jobs: str
) -> None:
    (tmp_path / "list").write_text(f"{source.host}/team/app:v1\n{source.host}/team/app:both\n")
    command = ("mirror", jobs, tmp_path / "list", f"docker-archive:{tmp_path}/a.tar")

    shown = cli(*command, "--dry-run")

    assert not (tmp_path / "a.tar").exists()
    result = cli(*command)
    assert shown.code == result.code == 3
    assert shown.err == result.messages
    assert "choose one with --platform" in result.err
    assert shown.lines[0].startswith(f"copy {source.host}/team/app:v1 -> ")
