"""`concil mirror --metrics`: what a Prometheus reads of a mirror of this machine."""

from __future__ import annotations

import sys
import urllib.request
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from concil.server import EmbeddedRegistry
from tests.cli.runner import PATIENCE, Cli, Program, assert_fails
from tests.cli.service_program import service
from tests.support.images import make_image, put_image

SIZES = (3000, 40)


@pytest.fixture
def plan(registry: EmbeddedRegistry, tmp_path: Path) -> str:
    for number in (1, 2):
        put_image(registry.url, "app", f"v{number}", make_image(number, SIZES))
    sources = (f"{registry.host}/app", f"{registry.host}/none:v1")
    (tmp_path / "plan.toml").write_text(
        "".join(f'[[mirror]]\nsource = "{source}"\n' for source in sources)
    )
    return "plan.toml"


def samples(path: Path) -> dict[tuple[str, ...], float]:
    """Return the values by name and labels."""
    return {
        (sample.name.removeprefix("concil_"), *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(path.read_text())
        for sample in family.samples
    }


def test_the_file_says_what_was_copied_what_failed_and_what_was_sent(
    cli_here: Cli, registry: EmbeddedRegistry, plan: str, tmp_path: Path
) -> None:
    done = cli_here("mirror", plan, "oci:copy", "--metrics", "m.prom")

    values = samples(tmp_path / "m.prom")
    app, none = f"{registry.host}/app", f"{registry.host}/none:v1"
    assert done.code == 3
    assert values["images", app, "copied"] == 2
    assert values["images", none, "failed"] == 1
    assert values["runs_total", "partial"] == 1
    assert values["moved_bytes_total",] == sum(
        len(blob) for n in (1, 2) for blob in make_image(n, SIZES).all_blobs().values()
    )
    assert values["requests_total", registry.host, "404"] >= 1
    assert values["run_in_progress",] == values["queued_blobs",] == 0
    assert ("last_success_timestamp_seconds", none) not in values


def test_the_last_success_of_an_earlier_process_stays(
    cli_here: Cli, registry: EmbeddedRegistry, plan: str, tmp_path: Path
) -> None:
    name = "last_success_timestamp_seconds", f"{registry.host}/app"
    mirror = ("mirror", plan, "oci:copy", "--metrics", "m.prom")
    cli_here(*mirror)
    first = samples(tmp_path / "m.prom")[name]
    registry.close()

    done = cli_here(*mirror, "--retry", "0")

    values = samples(tmp_path / "m.prom")
    assert done.code != 0
    assert values[name] == first
    assert values["runs_total", "partial"] == 1


def test_a_file_that_cannot_be_written_changes_nothing_but_one_line(
    cli_here: Cli, registry: EmbeddedRegistry, plan: str
) -> None:
    images = f"{registry.host}/app:v1\n"
    Path("images.txt").write_text(images)

    done = cli_here("mirror", "images.txt", "oci:copy", "--metrics", "/dev/full")

    assert done.code == 0
    assert done.messages.count("cannot write the metrics /dev/full") == 1


@pytest.mark.parametrize(
    ("words", "reason"),
    [((), "metrics need the package prometheus-client"), (("--dry-run",), "--dry-run copies")],
)
def test_what_cannot_be_measured_is_said_in_one_line(
    cli_here: Cli, monkeypatch: pytest.MonkeyPatch, plan: str, words: tuple[str, ...], reason: str
) -> None:
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    monkeypatch.delitem(sys.modules, "concil.metrics.exposition", raising=False)

    done = cli_here("mirror", plan, "oci:copy", "--metrics", "m.prom", *words)

    assert_fails(done, 2)
    assert reason in done.err
    assert not Path("copy").exists()


@pytest.mark.process
def test_the_live_page_has_the_metrics(
    program: Program, registry: EmbeddedRegistry, plan: str
) -> None:
    with service(program, plan, "oci:copy", "--every=1h", "--http=127.0.0.1:0") as running:
        url = running.wait_for("the live page is at ").split()[-1]
        running.wait_for("next run at ")
        with urllib.request.urlopen(f"{url}metrics", timeout=PATIENCE) as answer:
            text = answer.read().decode()
            assert answer.headers["Content-Type"].startswith("application/openmetrics-text")
        assert running.stop() == 0

    assert 'concil_runs_total{result="partial"} 1.0' in text
    assert f'concil_images{{entry="{registry.host}/app",state="copied"}} 2.0' in text
    assert text.endswith("# EOF\n")


@pytest.mark.process
def test_the_requests_of_all_processes_are_counted(
    program: Program, registry: EmbeddedRegistry, plan: str
) -> None:
    counts = []
    for processes in (1, 2):
        target = f"{registry.host}/copy{processes}"
        words = ("--processes", str(processes), "--metrics", f"{processes}.prom")
        assert program("mirror", plan, target, *words).code == 3
        values = samples(program.directory / f"{processes}.prom")
        counts.append(values["requests_total", registry.host, "201"])

    # Blobs and manifests that were written, which the processes share.
    assert counts[0] == counts[1] > 0
