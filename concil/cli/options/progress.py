"""Declares options of verbs that transfer blobs: progress, jobs and rates."""

from __future__ import annotations

import argparse

from concil.cli.options import rates
from concil.cli.options.common import parse_count
from concil.defaults import WORKERS
from concil.display.modes import MODES

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
        type=_parse_jobs,
        default=WORKERS,
        metavar="N",
        help="number of blobs and ranges that are transferred at the same time (default: "
        "%(default)s); 0: one after the other, without threads",
    )
    rates.add_options(parser.add_argument_group("rate limits"))


def _parse_jobs(text: str) -> int:
    number = parse_count(text) if text.isascii() and text.isdigit() and len(text) < 5 else -1
    if not 0 <= number <= MAX_JOBS:
        raise argparse.ArgumentTypeError(f"{text!a} is not a number from 0 to {MAX_JOBS}")
    return number
