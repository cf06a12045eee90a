"""What a failure is called on the command line: one line and an exit code."""

from __future__ import annotations

import argparse
import errno
import os
import re

from concil.errors import AccessDenied, Cancelled, ConcilError, NotFound, UsageError
from concil.limits import reached
from concil.redaction import SECRETS

DONE = 0
FAILED = 1
USAGE = 2
SOME_FAILED = 3  # images of a mirror
NOT_FOUND = 4
DENIED = 5
INTERRUPTED = 130
PIPE_CLOSED = 141  # what a shell reports of a program that SIGPIPE ended

# How a library's parameter is set on the command line. Remedies of the library name the
# parameter, for there they are read by programmers.
OPTIONS = {
    "address=": "--addr",
    "authfile=": "--authfile",
    "dry_run=True": "--dry-run",
    'foreign_layers="source"': "--foreign-layers=source",
    "held=": "--since",
    "platforms=": "--platform",
    "referrers=True": "--referrers",
    "verify=FILE": "--cacert FILE",
    "verify=False": "--insecure",
    "without_limit=True": "--prune-all",
    "workers=": "--jobs",
}
_PARAMETER = re.compile(r"\b(?:" + "|".join(map(re.escape, OPTIONS)) + r")(?![^\s,;)])")

INTERRUPTED_LINE = "concil: interrupted; run the same command again to go on"

_CODES: tuple[tuple[type[BaseException], int], ...] = (
    (UsageError, USAGE),
    (argparse.ArgumentTypeError, USAGE),
    (NotFound, NOT_FOUND),
    (AccessDenied, DENIED),
    (Cancelled, INTERRUPTED),
    (KeyboardInterrupt, INTERRUPTED),
)


def exit_code(error: BaseException) -> int:
    """Return the exit code that tells a script what kind of failure it was."""
    return next((code for kind, code in _CODES if isinstance(error, kind)), FAILED)


def told(error: BaseException) -> str:
    """Say what failed and what to do about it, in one line without control characters."""
    if isinstance(error, ConcilError):
        text = f"{error}; {with_options(error.remedy)}" if error.remedy else str(error)
    elif (limit := reached(error)) is not None:
        text = "; ".join(limit)
    elif isinstance(error, OSError) and error.errno:
        place = f": {error.filename!a}" if error.filename else ""
        text = f"{os.strerror(error.errno)}{place}; {_system_remedy(error.errno)}"
    else:
        text = (
            f"unexpected {type(error).__name__}: {SECRETS.redact(str(error))}; "
            "please report this, with what the same command says under -vv"
        )
    return cleaned(text)


def with_options(text: str) -> str:
    """Replace the library's parameters in a remedy by the options that set them."""
    return _PARAMETER.sub(lambda found: OPTIONS[found[0]], text)


def cleaned(text: str) -> str:
    """One line of printable text: what comes from a registry ends up on a terminal."""
    return " ".join(printable(text).split())


def printable(text: str) -> str:
    """The text with a space for each control character."""
    return "".join(c if c.isprintable() else " " for c in text)


def _system_remedy(number: int) -> str:
    if number == errno.ENOSPC:
        return "free some space, then run it again"
    return "if that is no trouble of this machine, please report it with -vv"
