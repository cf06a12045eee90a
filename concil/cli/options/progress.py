"""Declares options of verbs that transfer blobs: progress, jobs and rates."""

from __future__ import annotations

import argparse

from concil.cli.options import rates
from concil.cli.options.common import parse_count
from concil.defaults import WORKERS
from concil.display.modes import MODES
from concil.errors import safe_repr

MAX_JOBS = 256


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of verbs that transfer blobs."""
    parser.add_argument(
        "--progress",
        choices=MODES,
        help="progress display: auto (the default) shows bars on a terminal and plain lines "
        "elsewhere; json writes one event per line; all of them write to standard error",
    )
    parser.add_argument(
        "-j",
        "--jobs",
        type=parse_jobs,
        metavar="N",
        help="number of blobs and ranges that are transferred at the same time (default: "
        f"{WORKERS}); 0: one after the other, without threads",
    )
    rates.add_options(parser.add_argument_group("rate limits"))


def parse_progress(text: str) -> str:
    """Return the name of a display."""
    if text not in MODES:
        from concil.runtime.redaction import without_user  # noqa: PLC0415  # only for errors

        # Quoted without a password, should it be the URL of a proxy.
        raise argparse.ArgumentTypeError(
            f"{safe_repr(without_user(text))} is not one of {', '.join(MODES)}"
        )
    return text


def parse_jobs(text: str) -> int:
    """Parse a number from 0 to MAX_JOBS."""
    number = parse_count(text) if text.isascii() and text.isdigit() and len(text) < 5 else -1
    if not 0 <= number <= MAX_JOBS:
        raise argparse.ArgumentTypeError(f"{text!a} is not a number from 0 to {MAX_JOBS}")
    return number
