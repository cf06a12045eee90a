"""`concil mirror`: many images to one destination."""

from __future__ import annotations

import argparse
import contextlib
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from concil.cli import options, results
from concil.cli.command import Command
from concil.cli.copy import told_of
from concil.cli.failures import DONE, FAILED, SOME_FAILED, cleaned, exit_code, told
from concil.cli.reports import Reports, is_page
from concil.engine import Engine
from concil.errors import ConcilError, UsageError
from concil.plan import reading
from concil.plan.expand import Expansion
from concil.plan.targets import Below
from concil.reference import Reference, parse_address
from concil.timeline import Timeline
from concil.transfer.mirror import MirrorReport, Outcome

if TYPE_CHECKING:
    from concil.cli.options import Subparsers

_DESCRIPTION = """\
Copy every image of a plan. A plan is a list, or a TOML file that chooses tags of
repositories (see docs/plans.md). A line of a list is SOURCE, or SOURCE -> TARGET; TARGET
is a name below DST, or an address with its scheme; # begins a comment. Without TARGET an
image keeps its repository's path and tag: docker.io/library/alpine:3 goes to
DST/library/alpine:3, and in a layout it is called docker.io/library/alpine:3.
Images that are up to date are left alone; run it again after a failure."""


def add_parser(subparsers: Subparsers) -> None:
    """Add the verb to the command line."""
    parser = subparsers.add_parser(
        "mirror", help="copy the images of a list or plan", description=_DESCRIPTION
    )
    parser.add_argument(
        "plan", metavar="PLAN", help="a list with one image a line, or a .toml file; -: from stdin"
    )
    parser.add_argument(
        "destination",
        metavar="DST",
        nargs="?",
        help="host[:port]/prefix or oci:DIR; not needed where every entry has a whole target",
    )
    parser.add_argument("--dest", metavar="DST", help="the same")
    parser.add_argument(
        "--report",
        metavar="FILE",
        type=Path,
        action="append",
        default=[],
        help="write what became of each image, as JSON; FILE.html: a page with the timeline; "
        "may be repeated",
    )
    parser.add_argument(
        "--fail-fast", action="store_true", help="begin no more images after one that failed"
    )
    options.add_platform(parser, "copy only these platforms of each index")
    options.add_progress(parser)
    options.add_registry(parser, sides=("src", "dest"))
    parser.set_defaults(work=run)


def run(command: Command) -> int:
    """Copy them; the failures of single images are told at the end."""
    arguments = command.arguments
    began = time.monotonic()
    with contextlib.ExitStack() as stack:
        timeline = Timeline() if any(map(is_page, arguments.report)) else None
        if timeline is not None:
            command.stop.also(timeline.interrupt)  # before the engine, which fails by it
        engine = stack.enter_context(command.engine(watch=timeline))
        wanted = _expansion(arguments, engine)
        probes = wanted.check()
        if not probes:
            raise UsageError(
                f"no images in {cleaned(arguments.plan)}", remedy="a list has one image a line"
            )
        _check_hosts("--src-creds", arguments.src_creds, [item.source for item in probes])
        _check_hosts("--dest-creds", arguments.dest_creds, [item.destination for item in probes])
        if wanted.known:
            command.display.expect(len(probes))
            if timeline is not None:
                timeline.expect(len(probes))
        reports = Reports(arguments.report, timeline, _title(arguments))
        command.stop.before_exit(reports.abandon)
        stack.enter_context(reports)
        report = engine.mirror(
            wanted, on_image=reports.add, keep=False, fail_fast=arguments.fail_fast
        )
        for rule, error in wanted.failed:
            reports.add_unlisted(rule.source, error)
    command.display.close()
    order = {item: place for place, item in enumerate(probes)}
    for outcome in sorted(report.failed, key=lambda o: order.get(o.item, len(order))):
        command.display.write(_failure(outcome), "error")
    for rule, error in wanted.failed:
        command.display.write(cleaned(f"concil: failed: {rule.place}: {told(error)}"), "error")
    if not arguments.quiet:
        results.put_line(summary(report, time.monotonic() - began))
    return _code(report, [error for _, error in wanted.failed])


def _expansion(arguments: argparse.Namespace, engine: Engine) -> Expansion:
    """The plan as images; where they go is said by ``--dest``, the argument, or the plan."""
    if arguments.dest is not None and arguments.destination is not None:
        raise UsageError("two destinations are given", remedy="leave one of them away")
    destination = arguments.dest if arguments.dest is not None else arguments.destination
    below = Below(destination) if destination is not None else None
    rules = tuple(reading.read(arguments.plan))
    return Expansion(rules, engine.tags, below, options.platforms_of(arguments))


def _title(arguments: argparse.Namespace) -> str:
    """What runs, without a password of the destination."""
    plan = "standard input" if arguments.plan == "-" else Path(arguments.plan).name
    destination: str | None = arguments.dest or arguments.destination
    if destination is None:
        return f"Mirror of {plan}"
    if not destination.startswith("oci:"):
        destination = destination.rpartition("@")[2]
    return f"Mirror of {plan} to {destination}"


def summary(report: MirrorReport, seconds: float) -> str:
    """One line that says what became of all the images."""
    blobs = [landed for result in report.copied for landed in result.blobs]
    return (
        f"{report.images} images: {len(report.copied)} copied, "
        f"{report.up_to_date} up to date, {len(report.failed)} failed; "
        f"{told_of(blobs)}; {seconds:.1f} s"
    )


def _failure(outcome: Outcome) -> str:
    item = outcome.item
    names = f"{parse_address(item.source)} -> {parse_address(item.destination)}"
    cause = told(outcome.error) if outcome.error else ""
    return cleaned(f"concil: failed: {names}: {cause}")


def _code(report: MirrorReport, unlisted: Sequence[ConcilError]) -> int:
    """Some failed, or all: then what they have in common.

    Args:
        unlisted: why repositories could not be listed.
    """
    errors = [*(o.error for o in report.failed if o.error is not None), *unlisted]
    if not errors:
        return DONE
    if len(report.failed) < report.images:
        return SOME_FAILED
    codes = {exit_code(error) for error in errors}
    return codes.pop() if len(codes) == 1 else FAILED


def _check_hosts(option: str, creds: str | None, addresses: Iterable[str]) -> None:
    """One host's password must not be sent to others that happen to be in the list."""
    if creds is None:
        return
    found = [parse_address(text) for text in addresses]
    hosts = {each.host for each in found if isinstance(each, Reference) and not each.username}
    if len(hosts) > 1:
        raise UsageError(
            f"{option} would go to {len(hosts)} hosts: {', '.join(sorted(hosts)[:4])}",
            remedy="write user:password@ in front of the host they belong to, or mirror each "
            "host on its own",
        )
