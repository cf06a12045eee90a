"""Options: what they are called, what they become, and how a wrong one is told."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path

import pytest

from concil.cli.argument_parser import parse_arguments
from concil.cli.examples import EXAMPLES
from concil.cli.open_engine import build_endpoints
from concil.cli.options import settings
from concil.cli.verbs import VERBS
from concil.errors import UsageError
from tests.cli.runner import Cli, Program, assert_fails
from tests.support.tls import CertificateAuthority

CREDS = ("--src-creds=a:b:c", "--dest-creds=d:e")


def parse(*words: str) -> argparse.Namespace:
    return parse_arguments(words)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ((), (True, True)),
        (("--src-tls-verify=false",), (False, True)),
        (("--dest-tls-verify=false",), (True, False)),
        (("--tls-verify=false",), (False, False)),
        (("--tls-verify=false", "--dest-tls-verify=true"), (False, True)),
        (("--insecure",), (False, False)),
        (("--insecure", "--src-tls-verify"), (True, False)),
        (("--no-src-tls-verify",), (False, True)),
    ],
)
def test_each_side_is_trusted_on_its_own(
    words: tuple[str, ...], expected: tuple[bool, bool]
) -> None:
    sides = build_endpoints(parse("copy", *words, "a", "b"))

    assert (sides.source.tls.verify, sides.destination.tls.verify) == expected


def test_each_side_has_its_credentials() -> None:
    sides = build_endpoints(parse("copy", *CREDS, "a", "b"))

    assert sides.source.credentials is not None
    assert sides.destination.credentials is not None
    assert sides.source.credentials.password == "b:c"
    assert sides.destination.credentials.username == "d"


def test_each_side_has_its_file_of_logins(tmp_path: Path) -> None:
    mine, theirs = tmp_path / "mine.json", tmp_path / "theirs.json"
    for path in (mine, theirs):
        path.write_text("{}")

    one = build_endpoints(parse("copy", f"--src-authfile={theirs}", "a", "b"))
    both = build_endpoints(
        parse("copy", f"--authfile={mine}", f"--dest-authfile={theirs}", "a", "b")
    )

    assert (one.source.authfile, one.destination.authfile) == (str(theirs), None)
    assert (both.source.authfile, both.destination.authfile) == (str(mine), str(theirs))
    assert settings.build_endpoint_options(
        parse("tags", f"--authfile={mine}", "a")
    ).authfile == str(mine)


def test_a_file_of_logins_that_cannot_be_used_is_one_line(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "broken").write_text('{"auths": {"h": {"auth": "czNjcjN0"')

    for name, code, message in (
        ("none", 2, "concil login --authfile"),
        ("broken", 5, "not a JSON object"),
        (".", 5, "not a regular file"),
    ):
        assert_fails(cli("tags", f"--authfile={tmp_path / name}", "reg.example/app"), code, message)


def test_each_side_has_its_authority(ca: CertificateAuthority) -> None:
    mine = str(ca.path)

    one = build_endpoints(parse("copy", f"--dest-cacert={mine}", "a", "b"))
    both = build_endpoints(parse("copy", f"--cacert={mine}", "--src-tls-verify=false", "a", "b"))

    assert (one.source.tls.verify, one.destination.tls.verify) == (True, mine)
    assert (both.source.tls.verify, both.destination.tls.verify) == (False, mine)


def test_jobs_raise_what_would_hold_them_back() -> None:
    config = settings.build_config(parse("copy", "--jobs=32", "--retry=0", "a", "b"))

    assert (config.workers, config.concurrent_images, config.jobs_per_host) == (32, 32, 32)
    assert config.retry.max_attempts == 1


def test_no_jobs_is_the_serial_mode() -> None:
    assert settings.build_config(parse("copy", "-j0", "a", "b")).workers == 0


def test_platforms_are_joined_by_commas_or_given_again() -> None:
    found = parse("copy", "--platform=linux/amd64,linux/arm/v7", "--platform", "a/b", "x", "y")

    assert settings.parse_platforms(found) == ("linux/amd64", "linux/arm/v7", "a/b")


def test_invalid_platform_is_an_error() -> None:
    with pytest.raises(UsageError, match="linux"):
        settings.parse_platforms(parse("copy", "--platform=linux", "a", "b"))


def test_verbosity_counts_before_and_behind_the_verb() -> None:
    assert parse("-vv", "tags", "x").verbose == 2
    assert parse("tags", "-vv", "x").verbose == 2
    assert parse("tags", "x").verbose == 0
    assert parse("-q", "tags", "x").quiet
    assert parse("blob", "head", "x", "-v").verbose == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("-v",), "no verb is given; see: concil --help"),
        (("-vvq",), "no verb is given"),
        (("--verison",), "--version"),
        (("nonsense",), "there is no verb 'nonsense'; all verbs: concil --help"),
        (("cpoy", "a", "b"), "there is no verb 'cpoy'; did you mean copy?"),
        (("help", "cpoy"), "did you mean copy?"),
        (("--platform", "a/b", "copy", "a", "b"), "'--platform' is given before the verb"),
        (("copy",), "copy needs SRC and DST; see: concil copy --help"),
        (("copy", "one"), "copy needs DST"),
        (("copy", "a", "b", "--plaform=x/y"), "did you mean --platform? see: concil copy --help"),
        (
            ("blob",),
            "blob needs a verb: push, pull, head, mount or delete; see: concil blob --help",
        ),
        (("blob", "psuh"), "blob has no verb 'psuh'; did you mean push? see: concil blob --help"),
        (
            ("blob", "push", "a", "b", "--job"),
            "blob push has no option --job; did you mean --jobs?",
        ),
        (("blob", "push", "a", "b", "c"), "see: concil blob push --help"),
        (("transfers", "forgte"), "did you mean forget?"),
        (("copy", "--jobs"), "-j/--jobs needs a value; see: concil copy --help"),
        (("copy", "--insecure=yes", "a", "b"), "--insecure takes no value"),
        (("copy", "--progress=bars", "a", "b"), "did you mean bar?"),
        (("blob", "pull", "x"), "--output"),
        (("copy", "--jobs=-1", "a", "b"), "--jobs"),
        (("copy", "--jobs=many", "a", "b"), "'many'"),
        (("copy", "--jobs=1000", "a", "b"), "256"),
        (("copy", "--retry=x", "a", "b"), "--retry"),
        (("copy", "--progress=loud", "a", "b"), "loud"),
        (("copy", "--src-tls-verify=maybe", "a", "b"), "maybe"),
        (("copy", "--plat=a/b", "a", "b"), "--plat"),
        (("digest", "--platform=a/b,c/d", "x"), "several platforms"),
    ],
)
def test_a_wrong_command_line_is_one_line(cli: Cli, words: tuple[str, ...], message: str) -> None:
    assert_fails(cli(*words), 2, message)


def test_what_may_be_a_password_is_not_repeated(cli: Cli) -> None:
    for words in (
        ("copy", "a", "b", "--creds=a:secret"),
        ("copy", "a", "b", "--src-cred", "a:secret"),
        ("digest", "a", "docker://a:secret@h/x"),
    ):
        result = cli(*words)

        assert result.code == 2
        assert "secret" not in result.err


@pytest.mark.parametrize("words", [("--help",), ("copy", "--help"), ("blob", "push", "--help")])
def test_help_is_a_result(cli: Cli, words: tuple[str, ...]) -> None:
    result = cli(*words)

    assert (result.code, result.err) == (0, "")
    assert "usage: concil" in result.out


@pytest.mark.parametrize(
    "words", [("copy",), ("blob", "push"), ("transfers", "forget"), ("mirror",)], ids=" ".join
)
def test_help_of_a_verb_begins_with_examples(cli: Cli, words: tuple[str, ...]) -> None:
    by_option, by_word = cli(*words, "--help"), cli("help", *words)

    assert by_option.out.startswith(f"examples:\n  concil {' '.join(words)} ")
    assert by_word == by_option


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_an_example(verb: str) -> None:
    assert EXAMPLES[verb]


@pytest.mark.parametrize("example", [line for lines in EXAMPLES.values() for line in lines])
def test_examples_can_be_parsed(example: str) -> None:
    assert parse(*shlex.split(example)).command


def test_concil_alone_prints_four_examples(cli: Cli) -> None:
    result = cli()

    examples = [line.split()[1:] for line in result.lines if line.startswith("  concil ")]
    assert (result.code, result.err, len(examples)) == (0, "", 4)
    assert all(parse(*example).command for example in examples)


def test_words_of_other_tools_are_aliases() -> None:
    for alias, verb in (("cp", "copy"), ("sync", "mirror")):
        assert parse(alias, "a", "b").verb == verb


def test_help_and_version_are_words(cli: Cli) -> None:
    assert cli("help") == cli("--help")
    assert cli("version") == cli("--version")
    assert "(also: cp)" in cli("help").out


def test_the_version_is_a_result(program: Program) -> None:
    assert program("--version").out.startswith("concil ")


def test_serve_is_a_verb(program: Program, tmp_path: Path) -> None:
    assert_fails(program("serve", tmp_path / "none" / "a"), 4, "does not exist")
    assert_fails(program("serve", tmp_path, "--addr=x"), 2, "HOST:PORT")
