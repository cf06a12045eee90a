"""The dashboard and the alerts of docs/examples name metrics and labels that exist."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from concil.metrics.collector import MetricsCollector
from concil.progress.events import Event, State
from concil.progress.request_observer import Exchange
from tests.metrics.test_collector import RULES, run

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "docs" / "examples"
RULES_FILE = EXAMPLES / "prometheus-rules.yaml"
PROMTOOL = shutil.which("promtool")  # of the Debian package prometheus, which brings 96 MB
NAME = re.compile(r"\b(concil_\w+)(?:\{([^}]*)\})?")
LABEL = re.compile(r'(\w+)\s*(?:=|!=|=~|!~)\s*"')


@pytest.fixture(scope="module")
def text() -> str:
    """Return the text of a collector that has a sample of every metric."""
    collector = MetricsCollector(count_resumable=lambda: 0)
    run(collector, result="success")
    collector(Event("host", "r.example", "", State.PAUSED, 0, None, seconds=1.0))
    collector(Event("blob", "b", "r.example/app", State.DONE, 1, 1))
    collector.record_request(Exchange("GET", "https://x", "r.example", 200, 0.0, 0.1))
    collector.record_retry("r.example")
    collector.record_token("r.example")
    collector.record_quota("r.example", 1, 2)
    collector.record_notification("failure", is_delivered=True)
    return collector.render_text().decode()


@pytest.fixture(scope="module")
def labels(text: str) -> dict[str, set[str]]:
    """Return the labels of each metric."""
    names: dict[str, set[str]] = {"concil_image_outcomes_total": {"entry", "state"}}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            names.setdefault(sample.name, set()).update(sample.labels)
    return names


def expressions(path: Path) -> list[str]:
    """Return the queries of a dashboard or of alerts."""
    if path.suffix == ".json":
        panels = json.loads(path.read_text())["panels"]
        return [target["expr"] for panel in panels for target in panel["targets"]]
    groups = yaml.safe_load(path.read_text())["groups"]
    return [rule["expr"] for group in groups for rule in group["rules"]]


@pytest.mark.parametrize("name", ["grafana-dashboard.json", "prometheus-rules.yaml"])
def test_queries_name_metrics_and_labels_that_exist(labels: dict[str, set[str]], name: str) -> None:
    used = [found for query in expressions(EXAMPLES / name) for found in NAME.findall(query)]

    assert len(used) > 10
    assert {metric for metric, _ in used} <= set(labels)
    for metric, selector in used:
        assert set(LABEL.findall(selector)) <= labels[metric] | {"instance"}, metric


def test_every_metric_is_documented(labels: dict[str, set[str]]) -> None:
    page = (ROOT / "docs" / "monitoring.md").read_text()
    documented = set(re.findall(r"`(concil_\w+)`", page))

    assert RULES
    assert {name for name in labels if not name.startswith("concil_process_")} == documented


@pytest.mark.skipif(PROMTOOL is None, reason="no promtool")
def test_promtool_accepts_the_metrics_and_the_alerts(text: str) -> None:
    metrics = promtool("metrics", input=text)
    rules = promtool("rules", str(RULES_FILE))

    assert (metrics.returncode, metrics.stdout + metrics.stderr) == (0, "")
    assert rules.returncode == 0, rules.stdout + rules.stderr


def promtool(*words: str, input: str = "") -> subprocess.CompletedProcess[str]:  # noqa: A002
    assert PROMTOOL is not None
    return subprocess.run(
        [PROMTOOL, "check", *words],
        input=input,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
