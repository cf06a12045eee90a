"""Formats errors as one line and maps them to exit codes."""

from __future__ import annotations

import argparse
import errno
import os
import re

from concil.errors import (
    AccessDenied,
    Cancelled,
    ConcilError,
    NotFound,
    UntrustedImage,
    UsageError,
)
from concil.runtime.redaction import SECRETS

DONE = 0
FAILED = 1
USAGE = 2
PARTIAL_FAILURE = 3  # images of a mirror
NOT_FOUND = 4
ACCESS_DENIED = 5
DRIFT = 6  # a check found images that are not in order
UNTRUSTED = 7  # an image has no signature that is accepted
INTERRUPTED = 130
PIPE_CLOSED = 141  # the exit code that shells report for SIGPIPE

# Command line options by library parameter. The library's remedies name parameters:
# they are written for programmers.
OPTION_BY_PARAMETER = {
    "address=": "--addr",
    "authfile=": "--authfile",
    "dry_run=True": "--dry-run",
    'foreign_layers="source"': "--foreign-layers=source",
    "baseline=": "--since",
    "platform=": "--platform",
    "platforms=": "--platform",
    "referrers=True": "--referrers",
    "verify=FILE": "--cacert FILE",
    "verify=False": "--insecure",
    "tag_only=True": "--tag-only",
    "without_limit=True": "--prune-all",
    "workers=": "--jobs",
}
_PARAMETER = r"\b(?:" + "|".join(map(re.escape, OPTION_BY_PARAMETER)) + r")(?![^\s,;)])"

RESUME_REMEDY = "run the same command again to resume"
INTERRUPTED_MESSAGE = f"concil: interrupted; {RESUME_REMEDY}"

_EXIT_CODES: tuple[tuple[type[BaseException], int], ...] = (
    (UsageError, USAGE),
    (argparse.ArgumentTypeError, USAGE),
    (NotFound, NOT_FOUND),
    (AccessDenied, ACCESS_DENIED),
    (UntrustedImage, UNTRUSTED),
    (Cancelled, INTERRUPTED),
    (KeyboardInterrupt, INTERRUPTED),
)


def exit_code(error: BaseException) -> int:
    """Return the exit code that tells a script the kind of failure."""
    return next((code for kind, code in _EXIT_CODES if isinstance(error, kind)), FAILED)


def describe_error(error: BaseException) -> str:
    """Return what failed and the remedy, in one line without control characters."""
    if isinstance(error, ConcilError):
        text = error.summary
        if error.remedy:
            text = f"{text}; {replace_parameters(error.remedy)}"
        return single_line(text)
    from concil.runtime.limits import describe_limit  # noqa: PLC0415  # not for usage errors

    if (limit_parts := describe_limit(error)) is not None:
        text = "; ".join(limit_parts)
    elif isinstance(error, OSError) and error.errno:
        file_name = f": {error.filename!a}" if error.filename else ""
        text = f"{os.strerror(error.errno)}{file_name}; {_system_remedy(error.errno)}"
    else:
        text = (
            f"unexpected {type(error).__name__}: {SECRETS.redact(str(error))}; please report "
            "this with the output of the same command under -vv"
        )
    return single_line(text)


def replace_parameters(text: str) -> str:
    """Replace the library's parameters in a remedy by the options that set them."""
    if not any(parameter in text for parameter in OPTION_BY_PARAMETER):
        return text  # compiling the pattern takes as long as importing this module
    return re.sub(_PARAMETER, lambda found: OPTION_BY_PARAMETER[found[0]], text)


def single_line(text: str) -> str:
    """Return one line of printable text: a registry's text may hold terminal escapes."""
    return " ".join(replace_control_characters(text).split())


def replace_control_characters(text: str) -> str:
    """Return the text with each control character replaced by a space."""
    return "".join(c if c.isprintable() else " " for c in text)


def _system_remedy(number: int) -> str:
    if number == errno.ENOSPC:
        return "free some space, then run it again"
    return "if this machine is not the cause, please report it with the output of -vv"
