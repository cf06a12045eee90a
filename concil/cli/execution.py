"""Runs the command of parsed arguments: display, log, signals, errors and exit code."""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Callable

from concil.cli.context import CommandContext
from concil.cli.output import logs, results
from concil.cli.output.errors import PIPE_CLOSED, describe_error, exit_code
from concil.cli.signals import run_interruptibly
from concil.cli.verbs import load_function
from concil.display.display import Display, open_display
from concil.errors import StoreError


def execute(command: Callable[..., int], arguments: argparse.Namespace) -> int:
    """Run a command and return its exit code; errors are printed in one line."""
    display = open_display(progress_mode(arguments), sys.stderr)
    try:
        with logs.log_to_display(display, verbose=arguments.verbose, quiet=arguments.quiet):
            code = _run(command, arguments, display)
        _flush_stdout()
        return code
    except BrokenPipeError:
        results.discard_output()
        return PIPE_CLOSED
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - printed in one line
        display.close()
        display.write(f"concil: {describe_error(error)}", "error")
        return exit_code(error)
    finally:
        display.close()


def _run(command: Callable[..., int], arguments: argparse.Namespace, display: Display) -> int:
    with warnings.catch_warnings():
        # InsecureRequestWarning of urllib3: users who pass --insecure need no warning.
        warnings.filterwarnings("ignore", message="Unverified HTTPS request")
        if getattr(arguments, "handles_signals", False):
            return command(arguments)
        if hasattr(arguments, "prepare"):
            load_function(arguments.prepare)(arguments)
        return run_interruptibly(command, CommandContext(arguments, display))


def progress_mode(arguments: argparse.Namespace) -> str:
    """Return the mode of the display that the options ask for."""
    mode: str | None = getattr(arguments, "progress", "none")
    return mode or ("none" if arguments.quiet else "auto")


def _flush_stdout() -> None:
    """Flush standard output, so that a write error fails the command."""
    if sys.stdout is None:
        return
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        results.discard_output()
        raise StoreError(f"cannot write to standard output: {error.strerror}") from error
