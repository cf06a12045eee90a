"""The `[notify]` table of a plan."""

from __future__ import annotations

import pytest

from concil.errors import UsageError
from concil.plan.formats.toml_plan import parse_plan
from concil.plan.notify_settings import DEFAULT_EVENTS, NotifySettings

HOOK = '[notify]\nwebhook = "https://h.example"'
MIRROR = '[[mirror]]\nsource = "r.example/app:v1"\n'


def parse(lines: str) -> NotifySettings | None:
    return parse_plan(f"{MIRROR}{lines}", "plan.toml").notify


def test_a_plan_without_the_table_notifies_nobody() -> None:
    assert parse("") is None


def test_every_field_is_read() -> None:
    assert parse(
        """[notify]
        webhook = "https://h.example/x"
        webhook_secret_env = "HOOK"
        command = ["/bin/notify", "-v"]
        on = ["failure", "new"]
        timeout = 2.5
        """
    ) == NotifySettings(
        "plan.toml:3",
        "https://h.example/x",
        "HOOK",
        command=("/bin/notify", "-v"),
        events=frozenset({"failure", "new"}),
        timeout=2.5,
    )


@pytest.mark.parametrize(
    "lines",
    [
        'webhook = "http://localhost:8080/x"',
        'webhook = "http://127.0.0.1/x"',
        'webhook = "http://h.example/x"\nallow_plain_http = true',
        'command = ["x"]',
        'webhook = "https://h.example"\nwebhook_secret_file = "/run/secret"',
    ],
)
def test_a_webhook_is_secure_or_local(lines: str) -> None:
    settings = parse(f"[notify]\n{lines}")

    assert settings is not None
    assert settings.events == DEFAULT_EVENTS


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        ("notify = 1\n", "plan.toml:1: notify is not a table"),
        ("[notify]\n", "neither a webhook nor a command"),
        ('[notify]\nwebhok = "https://h.example"', "plan.toml:4: 'webhok': unknown field"),
        ('[notify]\nwebhook = "http://h.example"', "does not use https"),
        ('[notify]\nwebhook = "ftp://h.example"', "not a URL"),
        ('[notify]\nwebhook = "https://h.example/ x"', "not a URL"),
        ('[notify]\nwebhook = "https://u:hunter2@h.example"', "a URL with a password"),
        ("[notify]\nwebhook = 7", "not a string"),
        ('[notify]\ncommand = "notify -v"', "not a list of strings"),
        ('[notify]\ncommand = ["x"]\non = ["fail"]', "not a list of events"),
        ('[notify]\ncommand = ["x"]\non = []', "not a list of events"),
        ('[notify]\ncommand = ["x"]\ntimeout = 0', "not a number of seconds"),
        ('[notify]\ncommand = ["x"]\ntimeout = "1s"', "not a number of seconds"),
        ('[notify]\ncommand = ["x"]\nwebhook_secret_env = "A"', "needs a webhook"),
        (f'{HOOK}\nwebhook_secret_env = "A"\nwebhook_secret_file = "/x"', "two secrets"),
        ('[notify]\ncommand = ["x"]\nallow_plain_http = 1', "neither true nor false"),
    ],
)
def test_an_invalid_table_is_refused_by_file_and_line(lines: str, reason: str) -> None:
    text = f"{lines}{MIRROR}" if lines.startswith("notify =") else f"{MIRROR}{lines}"
    with pytest.raises(UsageError) as caught:
        parse_plan(text, "plan.toml")

    assert reason in str(caught.value)
    assert str(caught.value).startswith("plan.toml:")
    assert "hunter2" not in str(caught.value)
