"""What nobody thought of is still one line."""

from __future__ import annotations

import errno
import logging
import sys

import pytest

from concil.cli import main as command_line
from concil.cli.commands import images
from concil.cli.context import CommandContext
from concil.cli.output import errors, logs, results
from concil.display.display import open_display
from concil.errors import AccessDenied, Cancelled, ConcilError, NotFound, UsageError
from tests.cli.runner import Cli


def failing(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    """Let `concil digest` fail in some way."""

    def fail(_: CommandContext) -> int:
        raise error

    monkeypatch.setattr(images, "run_digest", fail)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConcilError("x"), 1),
        (UsageError("x"), 2),
        (NotFound("x"), 4),
        (AccessDenied("x"), 5),
        (Cancelled("x"), 130),
        (KeyboardInterrupt(), 130),
        (OSError(errno.EIO, "x"), 1),
        (ZeroDivisionError(), 1),
    ],
)
def test_the_kind_of_failure_decides_the_exit_code(error: BaseException, code: int) -> None:
    assert errors.exit_code(error) == code


def test_a_bug_is_one_line_that_asks_to_report_it(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing(monkeypatch, KeyError("no\nsuch"))

    result = cli("digest", "x")

    assert (result.code, result.err.count("\n")) == (1, 1)
    assert result.err.startswith("concil: unexpected KeyError: ")
    assert "report" in result.err


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(errno.ENOSPC, "No space", "/x"), "No space left on device: '/x'; free some"),
        (OSError(errno.EMFILE, "Too many"), "Too many open files; raise the limit"),
        (OSError(errno.EIO, "I/O"), "Input/output error; "),
        (MemoryError(), "out of memory"),
    ],
)
def test_the_system_says_no(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, error: BaseException, words: str
) -> None:
    failing(monkeypatch, error)

    result = cli("digest", "x")

    assert (result.code, result.err.count("\n")) == (1, 1)
    assert words in result.err


def test_control_characters_do_not_reach_the_terminal(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing(monkeypatch, ConcilError("a\x1b[2Jb\r\n\x9b1m\x00c", remedy="d\u202ee"))

    assert cli("digest", "x").err == "concil: a [2Jb 1m c; d e\n"


def test_closed_standard_output_is_an_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def put(_: CommandContext) -> int:
        results.print_line("x")
        return 0

    monkeypatch.setattr(images, "run_digest", put)
    monkeypatch.setattr(sys, "stdout", None)

    assert command_line.main(["digest", "x"]) == 1
    assert "standard output is closed" in capsys.readouterr().err


def test_log_records_are_lines_without_tracebacks(capsys: pytest.CaptureFixture[str]) -> None:
    display = open_display("none", sys.stderr)
    logger = logging.getLogger("concil.test")

    with logs.log_to_display(display, verbose=1, quiet=False):
        logger.debug("not shown")
        logger.info("told %s", "a\nb")
        logger.error("went wrong", exc_info=ValueError("cause"))
    logger.warning("after")

    assert capsys.readouterr().err.startswith("concil: told a b\nconcil: error: went wrong\n")


def test_a_traceback_is_shown_to_who_asks_for_everything(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with logs.log_to_display(open_display("none", sys.stderr), verbose=2, quiet=False):
        logging.getLogger("concil.test").error("went wrong", exc_info=ValueError("cause"))

    assert "ValueError: cause" in capsys.readouterr().err


def test_a_traceback_does_not_steer_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with logs.log_to_display(open_display("none", sys.stderr), verbose=2, quiet=False):
        logging.getLogger("concil.test").error("went wrong", exc_info=ValueError("a\x1b[2Jb\x9bc"))

    shown = capsys.readouterr().err
    assert "ValueError: a [2Jb c" in shown
    assert shown.replace("\n", "").isprintable()
