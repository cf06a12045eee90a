"""`concil mirror` with a TOML plan, from one registry to another."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import requests

from concil.server import EmbeddedRegistry
from tests.cli.runner import Cli, assert_fails
from tests.support.docker_registry import DockerRegistry
from tests.support.images import assert_same_image, make_image, put_image

TAGS = ("1.0", "1.1", "1.2-rc1", "2.0", "latest")
IMAGES = {tag: make_image(n, (3000, 1000)) for n, tag in enumerate(TAGS)}


@pytest.fixture
def source(registry: EmbeddedRegistry) -> EmbeddedRegistry:
    """Return the registry with a repository of five tags."""
    for tag, image in IMAGES.items():
        put_image(registry.url, "team/app", tag, image)
    return registry


def plan(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(("[[mirror]]", *lines)) + "\n")
    return path


def tags_of(url: str, repository: str) -> list[str]:
    answer = requests.get(f"{url}/v2/{repository}/tags/list", timeout=60)
    return sorted(answer.json().get("tags") or [])


def test_tags_are_chosen_copied_and_then_up_to_date(
    cli: Cli, source: EmbeddedRegistry, tmp_path: Path, jobs: str
) -> None:
    written = plan(
        tmp_path / "plan.toml",
        f'source = "http://{source.host}/team/app"',
        'semver = ">=1.1"',
        'tags = ["latest"]',
    )

    first = cli("mirror", jobs, written, "--dest", f"{source.host}/copy")
    second = cli("mirror", jobs, written, f"{source.host}/copy")

    assert first.out.startswith("3 images: 3 copied"), first.err
    assert second.out.startswith("3 images: 0 copied, 3 up to date"), second.err
    assert tags_of(source.url, "copy/team/app") == ["1.1", "2.0", "latest"]
    assert_same_image(source.url, "copy/team/app", "1.1", IMAGES["1.1"])


@pytest.mark.real
def test_plan_with_complete_targets_needs_no_destination(
    cli: Cli, source: EmbeddedRegistry, docker_registry: DockerRegistry, tmp_path: Path
) -> None:
    written = plan(
        tmp_path / "plan.toml",
        f'source = "http://{source.host}/team/app"',
        f'target = "http://{docker_registry.host}/plans/{{name}}:v{{tag}}"',
        "latest = 2",
    )

    result = cli("mirror", written)

    assert result.code == 0, result.err
    assert tags_of(docker_registry.url, "plans/app") == ["v1.2-rc1", "v2.0"]
    assert_same_image(docker_registry.url, "plans/app", "v2.0", IMAGES["2.0"])


def test_missing_repository_is_reported_and_the_others_are_copied(
    cli: Cli, source: EmbeddedRegistry, tmp_path: Path
) -> None:
    written = plan(tmp_path / "plan.toml", f'source = "http://{source.host}/team/none"')
    alone = cli("mirror", written, f"{source.host}/copy")
    written.write_text(
        written.read_text() + f'[[mirror]]\nsource = "http://{source.host}/team/app"\nlatest = 1\n'
    )

    result = cli("mirror", written, f"{source.host}/copy")

    assert alone.code == 4
    assert result.code == 3
    assert f"concil: failed: {written}:1: " in result.err
    assert "team/none" in result.err
    assert tags_of(source.url, "copy/team/app") == ["2.0"]


def test_report_lists_every_image(
    cli: Cli, source: EmbeddedRegistry, tmp_path: Path, jobs: str
) -> None:
    written = plan(
        tmp_path / "plan.toml",
        f'source = "http://{source.host}/team/app"',
        'match = "[12].0"',
        'tags = ["gone"]',
    )
    report = tmp_path / "report.json"

    result = cli("mirror", jobs, written, f"{source.host}/copy", f"--report={report}")

    assert result.code == 3
    document = json.loads(report.read_text())
    outcomes = {entry["source"].rpartition(":")[2]: entry for entry in document["images"]}
    assert {tag: entry["outcome"] for tag, entry in outcomes.items()} == {
        "1.0": "copied",
        "2.0": "copied",
        "gone": "failed",
    }
    assert outcomes["1.0"]["digest"] == IMAGES["1.0"].digest
    assert outcomes["gone"]["error_type"] == "RegistryNotFound"
    assert document["summary"]["failed"] == 1


def test_unwritable_report_is_an_error_before_the_first_request(
    cli: Cli, source: EmbeddedRegistry, tmp_path: Path
) -> None:
    written = plan(tmp_path / "plan.toml", f'source = "http://{source.host}/team/app"')
    asked = len(source.requests)

    result = cli("mirror", written, f"{source.host}/copy", f"--report={tmp_path}/no/report.json")

    assert_fails(result, 1, "cannot write the report", "write it to another path")
    assert len(source.requests) == asked


def test_after_a_failure_nothing_is_begun_if_so_wished(
    cli: Cli, source: EmbeddedRegistry, tmp_path: Path
) -> None:
    written = tmp_path / "list"
    lines = [f"{source.host}/team/none:1", *(f"{source.host}/team/app:{tag}" for tag in TAGS)]
    written.write_text("\n".join(lines))

    # Without threads one image comes after the other.
    result = cli("mirror", "-j0", "--fail-fast", written, f"{source.host}/copy")

    assert result.code == 4
    assert result.out.startswith("1 image: 0 copied")
    assert tags_of(source.url, "copy/team/app") == []


def test_prune_without_any_tags_to_compare_says_that_it_does_nothing(
    cli: Cli, source: EmbeddedRegistry, tmp_path: Path
) -> None:
    (tmp_path / "list").write_text(f"{source.host}/team/app:1.0\n")
    listed = plan(tmp_path / "plan.toml", f'source = "{source.host}/team/app"')

    vain = cli("mirror", "--prune", tmp_path / "list", f"{source.host}/copy")
    result = cli("mirror", "--prune", listed, f"{source.host}/copy")

    assert (vain.code, result.code) == (0, 0)
    assert "nothing is pruned" in vain.err
    assert "nothing is pruned" not in result.err


def test_the_destination_may_stand_behind_options(
    cli: Cli, source: EmbeddedRegistry, tmp_path: Path
) -> None:
    written = tmp_path / "list"
    written.write_text(f"{source.host}/team/app:1.0\n")

    result = cli("mirror", written, "--referrers", "-j", "2", f"{source.host}/copy", "--retry=1")
    more = cli("mirror", written, "--referrers", f"{source.host}/copy", "more")
    unknown = cli("mirror", written, "--refers", f"{source.host}/copy")

    assert result.code == 0
    assert tags_of(source.url, "copy/team/app") == ["1.0"]
    assert_fails(more, 2, "too many arguments")
    assert_fails(unknown, 2, "mirror has no option --refers; did you mean --referrers?")


def test_invalid_plan_is_an_error_before_the_first_request(
    cli: Cli, source: EmbeddedRegistry, tmp_path: Path
) -> None:
    asked = len(source.requests)
    written = plan(tmp_path / "plan.toml", f'source = "{source.host}/team/app"', 'match = "("')

    assert_fails(cli("mirror", written, "h.example"), 2, f"{written}:3: ", "'match'")
    assert_fails(cli("mirror", written, "h.example", "--dest", "x"), 2, "two destinations")
    written = plan(tmp_path / "plan.toml", f'source = "{source.host}/team/app"')
    assert_fails(cli("mirror", written), 2, f"{written}:1: ", "it has no target")
    assert len(source.requests) == asked


def test_a_pattern_that_nothing_matches_is_a_warning(
    cli: Cli, source: EmbeddedRegistry, tmp_path: Path
) -> None:
    written = plan(
        tmp_path / "plan.toml", f'source = "http://{source.host}/team/app"', 'match = "none"'
    )

    result = cli("mirror", written, f"{source.host}/copy")

    assert result.code == 0
    assert f"{written}:1: no tag of" in result.err
