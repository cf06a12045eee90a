"""`concil mirror --retry-failed`: only what the run of a report has left undone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from concil.server import EmbeddedRegistry
from tests.cli.commands.test_mirror_plan import IMAGES, plan, source, tags_of
from tests.cli.runner import Cli, assert_fails
from tests.support.images import put_image

__all__ = ["source"]


@pytest.fixture
def report(tmp_path: Path) -> Path:
    return tmp_path / "report.json"


def outcomes(report: Path) -> list[tuple[str, str]]:
    entries = json.loads(report.read_text())["images"]
    return sorted((each["source"].rpartition("/")[2], each["outcome"]) for each in entries)


def test_only_what_failed_is_copied_and_nothing_is_listed(
    cli: Cli, source: EmbeddedRegistry, tmp_path: Path, report: Path, jobs: str
) -> None:
    written = plan(
        tmp_path / "plan.toml",
        f'source = "http://{source.host}/team/app"',
        'match = ".*"',
        'tags = ["late", "never"]',
    )
    first = cli("mirror", jobs, written, f"{source.host}/copy", f"--report={report}")
    put_image(source.url, "team/app", "late", IMAGES["1.0"])
    source.clear_requests()

    again = tmp_path / "again.json"
    second = cli(
        *("mirror", jobs, written, f"{source.host}/copy"),
        *(f"--retry-failed={report}", f"--report={again}"),
    )

    assert (first.code, second.code) == (3, 3)
    assert outcomes(again) == [("app:late", "copied"), ("app:never", "failed")]
    assert not any("tags/list" in each.path for each in source.requests)
    assert not any("/manifests/1.0" in each.path for each in source.requests)
    assert "late" in tags_of(source.url, "copy/team/app")


def test_a_repository_that_could_not_be_listed_is_listed_again(
    cli: Cli, source: EmbeddedRegistry, tmp_path: Path, report: Path, jobs: str
) -> None:
    written = tmp_path / "plan.toml"
    entries = [f'[[mirror]]\nsource = "http://{source.host}/team/{n}"' for n in ("app", "new")]
    written.write_text("\n".join(entries))
    assert cli("mirror", written, f"{source.host}/copy", f"--report={report}").code == 3
    put_image(source.url, "team/new", "v1", IMAGES["1.0"])

    result = cli("mirror", jobs, written, f"{source.host}/copy", f"--retry-failed={report}")

    assert result.out.startswith("1 image: 1 copied, 0 up to date, 0 failed;"), result.err
    again = cli("mirror", written, f"{source.host}/copy", f"--report={report}")
    result = cli("mirror", written, f"{source.host}/copy", f"--retry-failed={report}")
    assert again.code == result.code == 0
    assert result.lines == [f"no image failed in {report}"]


def test_lines_of_a_list_are_retried_too(
    cli: Cli, source: EmbeddedRegistry, tmp_path: Path, report: Path, jobs: str
) -> None:
    listed = tmp_path / "list"
    listed.write_text(
        f"{source.host}/team/app:1.0\n"
        f"{source.host}/team/app:late -> renamed:v1\n"
        f"{source.host}/team/app:late -> other:v1\n"
    )
    cli("mirror", listed, f"{source.host}/copy", f"--report={report}")
    put_image(source.url, "team/app", "late", IMAGES["1.0"])

    result = cli("mirror", jobs, listed, f"{source.host}/copy", f"--retry-failed={report}")

    assert result.out.startswith("2 images: 2 copied"), result.err


OTHERS = {"outcome": "failed", "source": "other.example/a:1", "target": "h.example/b:1"}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, ("cannot read the report", "No such file")),
        ("", ("is not a report",)),
        ("[]", ("is not a report",)),
        ('{"images": [{}], "summary": {"complete": true}}', ("is not a report",)),
        ('{"images": 1, "summary": {"complete": true}}', ("is not a report",)),
        ("[" * 100_000, ("is not a report",)),
        (
            json.dumps({"schema_version": 1, "images": [OTHERS], "summary": {"complete": True}}),
            ("the plan contains none",),
        ),
        (
            json.dumps({"images": [OTHERS], "summary": {"complete": True}}),
            ("is not a report of this version of concil", "schema_version", "mirror again"),
        ),
    ],
)
def test_invalid_report_is_an_error_before_the_first_request(
    cli: Cli, source: EmbeddedRegistry, report: Path, content: str | None, words: tuple[str, ...]
) -> None:
    if content is not None:
        report.write_text(content)
    written = plan(report.with_name("plan.toml"), f'source = "http://{source.host}/team/app"')
    source.clear_requests()

    result = cli("mirror", written, f"{source.host}/copy", f"--retry-failed={report}")

    assert_fails(result, 1 if content is None else 2, str(report), *words)
    assert list(source.requests) == []


def test_report_of_an_interrupted_run_prints_a_warning(
    cli: Cli, source: EmbeddedRegistry, tmp_path: Path, report: Path
) -> None:
    report.write_text('{"schema_version": 1, "images": [], "summary": {"complete": false}}')
    written = plan(tmp_path / "plan.toml", f'source = "http://{source.host}/team/app"')

    result = cli("mirror", written, f"{source.host}/copy", f"--retry-failed={report}")

    assert result.code == 0
    assert "was interrupted" in result.err


def test_a_run_that_stopped_at_a_failure_says_that_its_report_has_not_all(
    cli: Cli, source: EmbeddedRegistry, tmp_path: Path, report: Path
) -> None:
    written = tmp_path / "list"
    written.write_text("".join(f"http://{source.host}/team/app:{t}\n" for t in ("never", "1.0")))
    command = "mirror", "-j0", written, f"{source.host}/copy"

    first = cli(*command, "--fail-fast", f"--report={report}")
    again = cli(*command, f"--retry-failed={report}")

    assert outcomes(report) == [("app:never", "failed")]
    assert json.loads(report.read_text())["summary"]["complete"] is False
    assert "ended early" in first.out
    assert "it does not list the images that were not started" in again.err


def test_immutable_tags_that_are_done_are_not_asked_for_unless_wished(
    cli: Cli, source: EmbeddedRegistry, tmp_path: Path, jobs: str
) -> None:
    written = plan(
        tmp_path / "plan.toml",
        f'source = "http://{source.host}/team/app"',
        r'immutable = ["\\d+\\.\\d+"]',
    )
    command = ("mirror", jobs, written, f"{source.host}/copy")
    assert cli(*command).code == 0
    source.clear_requests()
    second = cli(*command)
    heads = [each.path for each in source.requests if each.method == "HEAD"]
    source.clear_requests()
    third = cli(*command, "--recheck")

    assert second.out.startswith("5 images: 0 copied, 5 up to date"), second.err
    assert {path.rpartition("/")[2] for path in heads} == {"1.2-rc1", "latest"}
    assert third.out.startswith("5 images: 0 copied, 5 up to date"), third.err
    heads = [each.path for each in source.requests if each.method == "HEAD"]
    assert len([path for path in heads if "/manifests/" in path]) == 10
