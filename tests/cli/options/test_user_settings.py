"""The config file and the variables: what they set, which wins, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from concil.cli.argument_parser import parse_arguments
from concil.cli.open_engine import build_endpoints
from concil.cli.options import settings
from concil.cli.options.user_settings import apply_user_settings
from concil.config import HostLimits, TransferConfig
from concil.http.requests_session import TLSSettings
from concil.server import EmbeddedRegistry
from tests.cli.runner import Cli, assert_fails
from tests.support.images import make_image, put_image, write_layout
from tests.support.tls import CertificateAuthority

FILE = """\
jobs = 12
retry = 2
progress = "plain"

[limits]
rate = "10/s"
bandwidth = "50M"

[hosts."a.example"]
jobs = 2
rate = "5/s"
"""


@pytest.fixture
def file(home: Path) -> Path:
    path = home / "config/concil/config.toml"
    path.parent.mkdir(parents=True)
    return path


def configure(*words: str) -> TransferConfig:
    arguments = parse_arguments([*words])
    apply_user_settings(arguments)
    return settings.build_config(arguments)


def test_the_file_sets_what_options_do_not(file: Path) -> None:
    file.write_text(FILE)

    config = configure("copy", "--limit-rate=1M", "a", "b")

    assert config.workers == 12
    assert config.retry.max_attempts == 3
    assert (config.requests, config.bandwidth) == (10, 1 << 20)
    assert config.host_limits == {"a.example": HostLimits(jobs=2, requests=5)}


def test_variables_win_over_the_file_and_options_over_variables(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file.write_text(FILE)
    monkeypatch.setenv("CONCIL_JOBS", "0")
    monkeypatch.setenv("CONCIL_RETRY", "7")
    monkeypatch.setenv("CONCIL_LIMIT_REQUESTS", "")  # empty: not set

    config = configure("copy", "--retry=1", "a", "b")

    assert (config.workers, config.retry.max_attempts, config.requests) == (0, 2, 10)


def test_an_option_that_is_the_default_wins_as_well(file: Path) -> None:
    file.write_text(FILE)

    config = configure("copy", "--jobs=8", "--retry=5", "a", "b")

    assert (config.workers, config.retry.max_attempts) == (8, 6)


def test_quiet_wins_over_the_progress_of_the_file(file: Path) -> None:
    file.write_text(FILE)
    arguments = {name: parse_arguments([*name.split(), "copy", "a", "b"]) for name in ("", "-q")}
    for each in arguments.values():
        apply_user_settings(each)

    assert [each.progress for each in arguments.values()] == ["plain", None]


def test_another_file_can_be_named(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file.write_text(FILE)
    (tmp_path / "other.toml").write_text("jobs = 5\n")
    monkeypatch.setenv("CONCIL_CONFIG", str(tmp_path / "other.toml"))

    assert configure("copy", "a", "b").workers == 5


def test_a_plan_adds_to_the_limits_of_the_file_and_replaces_them(file: Path) -> None:
    file.write_text(FILE)
    arguments = parse_arguments(["mirror", "plan.toml"])
    apply_user_settings(arguments)

    own = {"a.example": HostLimits(requests=1), "b.example": HostLimits(jobs=3)}
    settings.add_host_limits(arguments, own)

    assert settings.build_config(arguments).host_limits == {
        "a.example": HostLimits(jobs=2, requests=1),
        "b.example": HostLimits(jobs=3),
    }
    settings.add_host_limits(arguments, {})  # of the plan as it was edited meanwhile
    assert settings.build_config(arguments).host_limits == {
        "a.example": HostLimits(jobs=2, requests=5)
    }


def test_options_of_one_side_win_over_the_hosts_of_the_file_on_that_side(file: Path) -> None:
    file.write_text('[hosts."a.example"]\ninsecure = true\n')
    arguments = parse_arguments(["copy", "--dest-tls-verify=true", "a.example/a", "a.example/b"])
    apply_user_settings(arguments)

    endpoints = build_endpoints(arguments)

    assert endpoints.source.tls_by_host == {"a.example": TLSSettings(verify=False)}
    assert endpoints.destination.tls_by_host == {}


@pytest.mark.parametrize("verb", ["tags", "ls"])  # one without an engine, and one with
def test_the_certificates_of_a_host_are_trusted_for_this_host(
    cli: Cli, tmp_path: Path, file: Path, ca: CertificateAuthority, verb: str
) -> None:
    write_layout(tmp_path / "tls", {"app:v1": make_image(3)})
    context = ca.issue().server_context()
    with EmbeddedRegistry(tmp_path / "tls", ssl_context=context) as registry:
        address = f"{registry.host}/app"
        assert_fails(cli(verb, "--retry=0", address), 1, "certificate")

        (file.parent / "ca.pem").write_bytes(Path(ca.path).read_bytes())
        file.write_text(f'[hosts."{registry.host}"]\ncacert = "ca.pem"\n')
        assert cli(verb, address).lines == ["v1"]

        file.write_text(f'[hosts."{registry.host}"]\ninsecure = true\n')
        assert cli(verb, address).lines == ["v1"]
        assert_fails(cli(verb, "--retry=0", "--tls-verify=true", address), 1, "certificate")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("jobz = 3", (":1: 'jobz': unknown field", "did you mean jobs?")),
        ("\njobs = '3'", (":2: 'jobs': not a number",)),
        ("jobs = 300", (":1: 'jobs': '300' is not a number from 0 to 256",)),
        ("retry = true", (":1: 'retry': not a number",)),
        ("progress = 'bars'", (":1: 'progress': 'bars' is not one of auto, bar",)),
        ("limits = 3", (":1: limits is not a table",)),
        ("[limits]\nrat = '3/s'", (":2: 'rat': unknown field", "did you mean rate?")),
        ("[limits]\nrate = 'often'", (":2: 'rate': not a rate",)),
        ("limit-rate = '3M'", ("write bandwidth below [limits]",)),
        ("insecure = true", ('write it below [hosts."HOST"]',)),
        ("password = 'open sesame'", ("concil login HOST stores them",)),
        ("[hosts.'a.example']\ninsecur = 1", (":2: 'insecur'", "did you mean insecure?")),
        ("[hosts.'a.example']\ninsecure = 1", (":2: 'insecure': neither true nor false",)),
        ("[hosts.'a.example']\ncacert = 1", (":2: 'cacert': not a path",)),
        ("[hosts.'a.example']\ncacert = 'gone.pem'", (":2: cannot use cacert", "/gone.pem'")),
        ("[hosts.'a.example']\ncert-dir = 'gone'", (":2: ", "/gone'")),
        ("[hosts.'a.example']\nrate='1/s'\ncert = 'gone.pem'", (":3: ", "/gone.pem'")),
        ("[hosts.'a.example']\nkey = 'k.pem'", (":1:", "key is given without cert")),
        (
            "[hosts.'a.example']\ninsecure = true\ncacert = 'ca.pem'",
            (":1:", "insecure trusts any certificate, and cacert only some"),
        ),
        ("[hosts.a.example]\nrate = '3/s'", (":1:", "with the host in quotes")),
        ("jobs = ?", ("at line 1, column 8",)),
        ("a" + ".a" * 100 + " = 1", (":1: a key is nested too deeply",)),
    ],
)
def test_a_broken_file_is_one_line(cli: Cli, file: Path, text: str, words: tuple[str, ...]) -> None:
    file.write_text(text)

    result = cli("digest", "a.invalid/b:1")

    assert_fails(result, 2, *words)
    assert str(file.parent) in result.err


@pytest.mark.parametrize(
    "text",
    [
        "[hosts.'u:opensesame@a.example']\nrate = '3/s'",
        "progress = 'http://u:opensesame@proxy'",
        "jobs = 'http://u:opensesame@proxy'",
        "proxy = 'http://u:opensesame@proxy'",
        "[hosts.'a.example']\ncacert = 'http://u:opensesame@host/ca.pem'",
    ],
)
def test_no_password_in_the_file_is_shown(cli: Cli, file: Path, text: str) -> None:
    file.write_text(text)

    result = cli("config", "show")

    assert result.code == 2
    assert "opensesame" not in result.err + result.out


def test_no_password_in_the_name_of_the_file_is_shown(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CONCIL_CONFIG", "https://u:opensesame@host/config.toml")

    result = cli("config", "show")

    assert_fails(result, 2, "CONCIL_CONFIG is not a path: 'https://<hidden>@host/config.toml'")
    assert "opensesame" not in result.err


@pytest.mark.parametrize("content", [None, b"\xff", b"#" * (2 << 20)])
def test_a_file_that_cannot_be_read_is_one_line(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes | None
) -> None:
    path = tmp_path / "named.toml"
    if content is not None:
        path.write_bytes(content)
    monkeypatch.setenv("CONCIL_CONFIG", str(path))

    assert_fails(cli("digest", "a.invalid/b:1"), 2, "named.toml")


def test_a_directory_is_no_config_file(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CONCIL_CONFIG", str(tmp_path))

    assert_fails(cli("digest", "a.invalid/b:1"), 2, "not a regular file")


def test_a_wrong_variable_is_one_line(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONCIL_LIMIT_RATE", "fast")

    assert_fails(cli("digest", "a.invalid/b:1"), 2, "CONCIL_LIMIT_RATE: 'fast'")


def test_config_show_says_where_each_value_comes_from(
    cli: Cli, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file.write_text(FILE)
    monkeypatch.setenv("CONCIL_JOBS", "3")

    rows = [line.split() for line in cli("config", "show").lines]

    assert rows == [
        ["SETTING", "VALUE", "FROM"],
        ["jobs", "3", "CONCIL_JOBS"],
        ["limits.rate", "10/s", f"{file}:6"],
        ["limits.bandwidth", "50M", f"{file}:7"],
        ["progress", "plain", f"{file}:3"],
        ["retry", "2", f"{file}:2"],
        ['hosts."a.example".jobs', "2", f"{file}:10"],
        ['hosts."a.example".rate', "5/s", f"{file}:11"],
    ]


def test_config_show_prints_json_for_programs(cli: Cli, file: Path) -> None:
    file.write_text('[limits]\nbandwidth = "1M"\n')

    document = json.loads(cli("config", "show", "--format=json").out)

    assert document["file"] == str(file)
    assert document["settings"][:3] == [
        {"name": "jobs", "value": 8, "source": "default"},
        {"name": "limits.rate", "value": None, "source": "default"},
        {
            "name": "limits.bandwidth",
            "value": 1 << 20,
            "source": "file",
            "file": str(file),
            "line": 2,
        },
    ]


def test_config_show_names_a_misspelt_variable(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONCIL_JOBZ", "3")

    result = cli("config", "show")

    assert "CONCIL_JOBZ is not a setting; did you mean CONCIL_JOBS?" in result.err
    assert "there is no config file" in result.err


@pytest.mark.parametrize(
    "option", ["--platform=linux/amd64", "--insecure", "--tls-verify=false", "--retry=3"]
)
def test_config_show_refuses_the_options_of_an_image(cli: Cli, option: str) -> None:
    assert_fails(cli("config", "show", option), 2, option.partition("=")[0], "show:TAG")


def test_an_image_may_be_called_show(cli_here: Cli, registry: EmbeddedRegistry) -> None:
    put_image(registry.url, "show", "v1", make_image(1))

    assert "platform" in cli_here("config", f"{registry.host}/show:v1").out
    # With a tag it is the image of docker.io, which a file of logins that is missing reveals.
    assert_fails(cli_here("config", "--authfile=gone", "show:latest"), 2, "gone")


def test_the_example_of_the_documentation_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    example = Path(__file__).parents[3] / "docs/examples/config.toml"
    monkeypatch.setenv("CONCIL_CONFIG", str(example))

    config = configure("copy", "a", "b")

    assert (config.workers, config.retry.max_attempts, config.requests) == (16, 11, 20)
    assert config.host_limits["docker.io"] == HostLimits(requests=100 / 3600)
