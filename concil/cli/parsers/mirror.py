"""Declares `concil mirror`."""

from __future__ import annotations

from argparse import Action, ArgumentTypeError

from concil.cli.options import common, progress, referrers, signature_options, spool_options

TYPE_CHECKING = False  # as that of typing, which takes longer to import than this module
if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence
    from typing import Any

MAX_PROCESSES = 256
_DESCRIPTION = """\
Copy every image of a plan. A plan is a list, or a TOML file that selects tags of
repositories (see docs/plans.md). A line of a list is SOURCE, or SOURCE -> TARGET; TARGET
is a name below DST, or an address with its scheme; # begins a comment. Without TARGET an
image keeps its repository's path and tag: docker.io/library/alpine:3 is copied to
DST/library/alpine:3, and in a layout it is called docker.io/library/alpine:3.
Images that are up to date are not copied again; after a failure, run the command again."""


def declare(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the verb."""
    parser.description = _DESCRIPTION
    parser.add_argument(
        "plan",
        metavar="PLAN",
        help="a list with one image per line, or a .toml file; - reads a list from standard input",
    )
    parser.add_argument(
        "destination",
        metavar="DST",
        nargs="?",
        help="host[:port]/prefix or oci:DIR; not needed if every entry has a complete target",
    )
    parser.add_argument(
        "--dest",
        metavar="DST",
        action="append",
        help="another way to give DST; may be repeated, to copy every image to all of them",
    )
    parser.add_argument(
        "--report",
        metavar="FILE",
        action="append",
        default=[],
        help="write the outcome of each image as JSON, or with FILE.html a page with a timeline; "
        "may be repeated",
    )
    parser.add_argument(
        "--since",
        action="append",
        default=[],
        metavar="RUN",
        help="leave out what an earlier run has already exported, as listed in its report, "
        "oci:DIR or oci-archive:FILE; may be repeated",
    )
    parser.add_argument(
        "--fail-fast", action="store_true", help="start no more images after the first failure"
    )
    _add_sharing_options(parser)
    parser.add_argument(
        "--retry-failed",
        metavar="REPORT",
        help="copy only the images that failed, or were not tried, in the run of this report",
    )
    _add_prune_options(parser)
    _add_schedule_options(parser)
    _add_monitoring_options(parser)
    _add_page_options(parser)
    spool_options.add_options(parser)
    common.add_platform(parser, "copy only these platforms of each index")
    referrers.add_options(parser)
    referrers.add_no_clobber(parser)
    signature_options.add_options(parser)
    progress.add_options(parser)
    common.add_registry(parser, sides=("src", "dest"))
    parser.set_defaults(command="concil.cli.commands.mirror:run")


def _add_sharing_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that split the work."""
    parser.add_argument(
        "--processes",
        metavar="N",
        type=_parse_processes,
        default=1,
        help="split the work over N processes of this machine, or with auto over one for each core "
        "(default: %(default)s); all limits, and --jobs, are for the whole run",
    )
    parser.add_argument(
        "--dask", metavar="ADDRESS", help="copy on the workers of the Dask scheduler at tcp://..."
    )


def _add_schedule_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of a service."""
    group = parser.add_argument_group("service")
    times = group.add_mutually_exclusive_group()
    times.add_argument(
        "--every",
        metavar="TIME",
        action=_Schedule,
        help="run now, and again at this interval, until SIGTERM or Ctrl-C: 90s, 10m, 1h30m, 1d",
    )
    times.add_argument(
        "--cron",
        metavar="LINE",
        action=_Schedule,
        help='run at the times of a cron line, for example "*/10 * * * *"; needs concil[service]',
    )
    group.add_argument(
        "--jitter",
        metavar="TIME",
        help="delay each run by a random time of at most TIME (default: a tenth of the interval, "
        "at most 1m)",
    )


def _add_monitoring_options(parser: argparse.ArgumentParser) -> None:
    """Add the options for metrics."""
    parser.add_argument(
        "--metrics",
        metavar="FILE",
        help="write metrics for Prometheus every 15 s and at the end: OpenMetrics, or for "
        "FILE.prom the text format that node_exporter reads; needs concil[service]",
    )


def _add_page_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the live page."""
    group = parser.add_argument_group("live page")
    group.add_argument(
        "--http",
        metavar="HOST:PORT",
        help="serve a page that shows what the mirror does, for example at 127.0.0.1:8080; port 0 "
        "chooses a free port",
    )
    tokens = group.add_mutually_exclusive_group()
    tokens.add_argument(
        "--http-token-file",
        metavar="FILE",
        help="requests need the token in FILE, which an address other than loopback requires",
    )
    tokens.add_argument(
        "--http-token",
        metavar="TOKEN",
        help="the token itself, which other users can read in the list of processes; "
        "CONCIL_HTTP_TOKEN is safer",
    )


class _Schedule(Action):
    """Stores when the mirror runs, and chooses the command that runs it again and again."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,  # noqa: ARG002 - the signature of argparse
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,  # noqa: ARG002
    ) -> None:
        """Store the value."""
        setattr(namespace, self.dest, values)
        namespace.command = "concil.cli.commands.mirror_service:run"


def _parse_processes(text: str) -> int | str:
    is_number = text.isascii() and text.isdigit() and len(text) < 5
    if text != "auto" and not (is_number and 1 <= int(text) <= MAX_PROCESSES):
        raise ArgumentTypeError(f"{text!a} is neither a number from 1 to {MAX_PROCESSES} nor auto")
    return int(text) if is_number else text


def _add_prune_options(parser: argparse.ArgumentParser) -> None:
    """Add the options for dry runs and pruning."""
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="only print what would be copied and pruned, and its size",
    )
    parser.add_argument(
        "--prune",
        action="store_true",
        help="delete destination tags that no longer exist at the source, as prune = true does "
        "in an entry of a plan that selects tags",
    )
    parser.add_argument(
        "--prune-all",
        action="store_true",
        help="like --prune, even if that deletes more than a quarter of a repository's tags, or "
        "all of them",
    )
