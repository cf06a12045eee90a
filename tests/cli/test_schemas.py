"""What programs read has the schemas of docs/reference: reports, and `--progress json`."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from concil.progress.events import State
from concil.server import EmbeddedRegistry
from concil.transfer.findings import Condition
from tests.cli.runner import Cli
from tests.engine.engine_setup import blob_path
from tests.support.images import make_image, put_image, write_layout

REFERENCE = Path(__file__).parents[2] / "docs" / "reference"
Document = dict[str, Any]


def load(name: str) -> Document:
    document: Document = json.loads((REFERENCE / name).read_text())
    return document


def problems(document: Document, schema: str) -> list[str]:
    validator = Draft202012Validator(load(schema))
    return [f"{error.json_path}: {error.message}" for error in validator.iter_errors(document)]


@pytest.fixture
def repository(registry: EmbeddedRegistry, tmp_path: Path) -> str:
    """Return a repository with two tags, beside a list that also names one that does not exist."""
    for n, tag in enumerate(("1", "2")):
        put_image(registry.url, "team/app", tag, make_image(n, (3000, 40)))
    name = f"{registry.host}/team/app"
    (tmp_path / "images.txt").write_text("".join(f"{name}:{tag}\n" for tag in ("1", "2", "none")))
    return name


def outcomes(path: Path) -> set[str]:
    """Return the outcomes of a report that has the schema."""
    document = json.loads(path.read_text())
    assert problems(document, "report.schema.json") == []
    return {image["outcome"] for image in document["images"]}


def test_reports_of_mirrors_have_the_schema(cli_here: Cli, repository: str, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    mirror = ("mirror", "images.txt", "oci:copy", "--report", report)

    assert cli_here(*mirror, "--dry-run").code == 3
    assert outcomes(report) == {"would_copy", "failed"}
    assert cli_here(*mirror).code == 3
    assert outcomes(report) == {"copied", "failed"}
    assert cli_here(*mirror).code == 3
    assert outcomes(report) == {"present", "failed"}


def test_reports_of_prunes_have_the_schema(cli_here: Cli, repository: str, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    plan = tmp_path / "plan.toml"
    plan.write_text(f'[[mirror]]\nsource = "http://{repository}"\nprune = true\n')
    mirror = ("mirror", plan, "oci:copy", "--report", report)
    assert cli_here(*mirror).code == 0
    assert cli_here("delete", f"{repository}:2").code == 0

    assert cli_here(*mirror, "--dry-run").code == 0
    assert outcomes(report) == {"present", "would_prune"}
    assert cli_here(*mirror).code == 0
    assert outcomes(report) == {"present", "pruned"}


def test_reports_of_checks_have_the_schema(cli_here: Cli, tmp_path: Path) -> None:
    images = {f"app:{n}": make_image(n, (3000, 40)) for n in range(4)}
    write_layout(tmp_path / "source", images)
    (tmp_path / "images.txt").write_text("".join(f"oci:source:{name}\n" for name in images))
    assert cli_here("mirror", "images.txt", "oci:copy").code == 0
    shutil.rmtree(tmp_path / "source")
    write_layout(tmp_path / "source", images | {"app:1": make_image(9)})
    blob_path(tmp_path / "copy", max(images["app:2"].all_blobs())).unlink()
    blob_path(tmp_path / "copy", max(images["app:3"].all_blobs())).write_bytes(b"x")
    check = ("check", "images.txt", "oci:copy", "--deep", "--report", tmp_path / "report.json")

    assert cli_here(*check).code == 6
    assert outcomes(tmp_path / "report.json") == set(Condition)
    definitions = load("report.schema.json")["$defs"]
    entry = Draft202012Validator({"$ref": "#/$defs/image", "$defs": definitions})
    for line in cli_here("check", "images.txt", "oci:copy", "--format=json", "--repair").lines:
        entry.validate(json.loads(line))


def test_events_have_the_schema(cli_here: Cli, repository: str) -> None:
    err = cli_here("mirror", "images.txt", "oci:copy", "--progress=json", "-v").err

    lines = [json.loads(line) for line in err.splitlines()]
    assert {line["kind"] for line in lines} == {"image", "blob", "log"}
    assert [problem for line in lines for problem in problems(line, "event.schema.json")] == []


def test_the_schema_of_events_has_every_state() -> None:
    states = load("event.schema.json")["$defs"]["progress"]["properties"]["state"]["enum"]

    assert sorted(states) == sorted(State)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"schema_version": 2}, "$.schema_version"),
        ({"new": 1}, "$"),
        ({"images": [{"outcome": "copied"}]}, "$.images[0]"),
        ({"images": [{"outcome": "kept", "target": "a", "digest": "sha256:00"}]}, "$.images[0]"),
    ],
)
def test_a_report_of_another_form_is_refused(change: Document, problem: str) -> None:
    time = "2026-05-04T10:00:00+00:00"
    summary = {"failed": 0, "not_tried": 0, "bytes_sent": 0, "complete": True}
    report: Document = {
        "schema_version": 1, "concil": "2.0.0", "verb": "mirror", "started": time, "images": [],
        "ended": time, "summary": summary,
    }  # fmt: skip
    assert problems(report, "report.schema.json") == []

    assert problem in {
        found.partition(":")[0] for found in problems(report | change, "report.schema.json")
    }
