"""`concil mirror`: many images to one destination."""

from __future__ import annotations

import argparse
import contextlib
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from concil.cli import options, results
from concil.cli.command import Command
from concil.cli.copy import told_of
from concil.cli.failures import DONE, FAILED, SOME_FAILED, cleaned, exit_code, told
from concil.engine import Engine
from concil.errors import ConcilError, UsageError
from concil.plan import reading
from concil.plan.expand import Expansion
from concil.plan.targets import Below
from concil.reference import DOCKER_ARCHIVE, LayoutAddress, Reference, parse_address
from concil.report import JSONReport
from concil.since import held_by
from concil.transfer.mirror import MirrorItem, MirrorReport, Outcome

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
        "--report", metavar="FILE", type=Path, help="write what became of each image, as JSON"
    )
    parser.add_argument(
        "--since",
        action="append",
        default=[],
        metavar="RUN",
        help="leave out what an earlier run has carried over: its report, oci:DIR or "
        "oci-archive:FILE; may be repeated",
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
        sides = options.sides_of(arguments)
        if arguments.since:
            sides = replace(sides, held=held_by(arguments.since))
        engine = stack.enter_context(command.engine(sides))
        wanted = _expansion(arguments, engine)
        probes = wanted.check()
        if not probes:
            raise UsageError(
                f"no images in {cleaned(arguments.plan)}", remedy="a list has one image a line"
            )
        if arguments.since:
            _check_since(arguments.since, probes)
        _check_hosts("--src-creds", arguments.src_creds, [item.source for item in probes])
        _check_hosts("--dest-creds", arguments.dest_creds, [item.destination for item in probes])
        if wanted.known:
            command.display.expect(len(probes))
        written = stack.enter_context(JSONReport(arguments.report)) if arguments.report else None
        on_image = written.add if written is not None else None
        report = engine.mirror(wanted, on_image=on_image, keep=False, fail_fast=arguments.fail_fast)
        if written is not None:
            for rule, error in wanted.failed:
                written.add_unlisted(rule.source, error)
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


def _check_since(runs: Sequence[str], items: Iterable[MirrorItem]) -> None:
    """What is left out must be somewhere: in no registry, and not in the layout itself."""
    for target in (parse_address(item.destination) for item in items):
        if not isinstance(target, LayoutAddress) or target.kind == DOCKER_ARCHIVE:
            raise UsageError(
                f"--since leaves blobs out, and {target} needs them all",
                remedy="mirror to oci:DIR or oci-archive:FILE",
            )
        if {target.place, target.path} & set(runs):
            raise UsageError(
                f"{target.place} cannot lack what it holds itself", remedy="mirror to a new one"
            )


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
