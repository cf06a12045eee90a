"""`[notify]` in a plan: what a real webhook receives of a mirror, and what it cannot delay."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from concil.server import EmbeddedRegistry
from tests.cli.runner import Cli, Program, assert_fails
from tests.cli.service_program import service
from tests.cli.test_schemas import load
from tests.engine.test_quota import Pulls
from tests.notify.webhook_server import WebhookServer
from tests.support.images import make_image, put_image

IMAGE = make_image(1, (3000,))


def write_plan(path: Path, registry: EmbeddedRegistry, notify: str) -> Path:
    entries = "".join(f'[[mirror]]\nsource = "{registry.host}/app:{tag}"\n' for tag in ("v1", "v2"))
    path.write_text(f"{entries}[notify]\n{notify}\n")
    return path


def test_a_failure_a_new_image_and_a_recovery_are_each_notified_once(
    cli_here: Cli, registry: EmbeddedRegistry, tmp_path: Path
) -> None:
    put_image(registry.url, "app", "v1", IMAGE)
    with WebhookServer() as hook:
        events = 'on = ["failure", "recovery", "new"]'
        plan = write_plan(tmp_path / "plan.toml", registry, f'webhook = "{hook.url}"\n{events}')

        assert [cli_here("mirror", plan, "oci:copy").code for _ in range(2)] == [3, 3]
        put_image(registry.url, "app", "v2", IMAGE)
        assert cli_here("mirror", plan, "oci:copy").code == 0

        received = [hook.document() for _ in range(4)]
        assert hook.received.empty()
    validator = Draft202012Validator(load("notification.schema.json"))
    assert [problem.message for each in received for problem in validator.iter_errors(each)] == []
    assert [(each["event"], each["subjects"][0]["source"]) for each in received] == [
        ("failure", f"{registry.host}/app:v2"),
        ("new", f"{registry.host}/app:v1"),
        ("recovery", f"{registry.host}/app:v2"),
        ("new", f"{registry.host}/app:v2"),
    ]
    assert {(each["plan"], each["destination"]) for each in received} == {("plan.toml", "oci:copy")}


def test_a_webhook_that_hangs_ends_neither_late_nor_with_another_code(
    cli_here: Cli, registry: EmbeddedRegistry, tmp_path: Path
) -> None:
    put_image(registry.url, "app", "v1", IMAGE)
    with WebhookServer(None) as hook:
        notify = f'webhook = "{hook.url}"\ntimeout = 0.1'
        plan = write_plan(tmp_path / "plan.toml", registry, notify)

        done = cli_here("mirror", plan, "oci:copy")

    assert done.code == 3
    assert "2 images: 1 copied" in done.out
    assert "notifications were not delivered before the end" in done.err
    assert "T0KEN" not in done.err


def test_a_low_quota_is_notified_and_measured(cli_here: Cli, tmp_path: Path) -> None:
    with EmbeddedRegistry(tmp_path / "hub", behavior=Pulls(9)) as hub, WebhookServer() as hook:
        for tag in ("v1", "v2"):
            put_image(hub.url, "app", tag, IMAGE)
        notify = f'webhook = "{hook.url}"\non = ["quota"]'
        plan = write_plan(tmp_path / "plan.toml", hub, notify)

        assert cli_here("mirror", plan, "oci:copy", "--metrics", "m.prom").code == 0

        document = hook.document()
        assert hook.received.empty()
    (subject,) = document["subjects"]
    assert (document["event"], subject["host"], subject["limit"]) == ("quota", hub.host, 100)
    assert subject["remaining"] < 10
    metrics = (tmp_path / "m.prom").read_text()
    assert f'concil_quota_limit{{host="{hub.host}"}} 100.0' in metrics
    # Both tags are the same image, whose manifest is read once.
    assert f'concil_quota_remaining{{host="{hub.host}"}} 8.0' in metrics


@pytest.mark.process
def test_a_webhook_that_hangs_does_not_keep_a_service_from_its_runs_and_its_end(
    program: Program, registry: EmbeddedRegistry, tmp_path: Path
) -> None:
    put_image(registry.url, "app", "v1", IMAGE)
    with WebhookServer(None) as hook:
        plan = write_plan(tmp_path / "plan.toml", registry, f'webhook = "{hook.url}"')
        with service(program, plan, "oci:copy", "--every=1s", "--jitter=0s") as running:
            assert hook.document()["event"] == "failure"
            running.wait_for("2 images: 0 copied, 1 up to date, 1 failed")
            code = running.stop(signal.SIGTERM)

    assert code == 0
    assert "T0KEN" not in "".join(running.lines)


def test_a_secret_that_is_missing_is_said_before_anything_is_copied(
    cli_here: Cli, registry: EmbeddedRegistry, tmp_path: Path
) -> None:
    notify = 'webhook = "https://h.example"\nwebhook_secret_env = "NO_SUCH_SECRET"'
    plan = write_plan(tmp_path / "plan.toml", registry, notify)

    done = cli_here("mirror", plan, "oci:copy")

    assert_fails(done, 2)
    assert "plan.toml:5: the variable 'NO_SUCH_SECRET' has no secret of the webhook" in done.err
