"""`concil mirror`: many images to one destination."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import TYPE_CHECKING

from concil.cli import mirror_list, options, results
from concil.cli.command import Command
from concil.cli.copy import told_of
from concil.cli.failures import DONE, FAILED, SOME_FAILED, cleaned, exit_code, told
from concil.errors import UsageError
from concil.reference import Reference, parse_address
from concil.transfer.mirror import MirrorReport, Outcome

if TYPE_CHECKING:
    from concil.cli.options import Subparsers

_DESCRIPTION = """\
Copy every image of a list. A line is SOURCE, or SOURCE -> TARGET; TARGET is a name
below DST, or an address with its scheme; # begins a comment. Without TARGET an image
keeps its repository's path and tag: docker.io/library/alpine:3 goes to
DST/library/alpine:3, and in a layout it is called docker.io/library/alpine:3.
Images that are up to date are left alone; run it again after a failure."""


def add_parser(subparsers: Subparsers) -> None:
    """Add the verb to the command line."""
    parser = subparsers.add_parser(
        "mirror", help="copy the images of a list", description=_DESCRIPTION
    )
    parser.add_argument("list", metavar="LIST", help="a file with one image a line; -: from stdin")
    parser.add_argument("destination", metavar="DST", help="host[:port]/prefix or oci:DIR")
    options.add_platform(parser, "copy only these platforms of each index")
    options.add_progress(parser)
    options.add_registry(parser, sides=("src", "dest"))
    parser.set_defaults(work=run)


def run(command: Command) -> int:
    """Copy them; the failures of single images are told at the end."""
    arguments = command.arguments
    platforms = options.platforms_of(arguments)
    lines = mirror_list.read(arguments.list)
    items = mirror_list.items(lines, arguments.destination, platforms)
    if not items:
        raise UsageError(
            f"no images in {cleaned(arguments.list)}", remedy="a list has one image a line"
        )
    _check_hosts("--src-creds", arguments.src_creds, [item.source for item in items])
    _check_hosts("--dest-creds", arguments.dest_creds, [item.destination for item in items])
    began = time.monotonic()
    command.display.expect(len(items))
    with command.engine() as engine:
        report = engine.mirror(items)
    command.display.close()
    order = {item: place for place, item in enumerate(items)}
    for outcome in sorted(report.failed, key=lambda outcome: order[outcome.item]):
        command.display.write(_failure(outcome), "error")
    if not arguments.quiet:
        results.put_line(summary(report, time.monotonic() - began))
    return _code(report)


def summary(report: MirrorReport, seconds: float) -> str:
    """One line that says what became of all the images."""
    blobs = [landed for result in report.copied for landed in result.blobs]
    return (
        f"{len(report.outcomes)} images: {len(report.copied)} copied, "
        f"{len(report.present)} up to date, {len(report.failed)} failed; "
        f"{told_of(blobs)}; {seconds:.1f} s"
    )


def _failure(outcome: Outcome) -> str:
    item = outcome.item
    names = f"{parse_address(item.source)} -> {parse_address(item.destination)}"
    cause = told(outcome.error) if outcome.error else ""
    return cleaned(f"concil: failed: {names}: {cause}")


def _code(report: MirrorReport) -> int:
    """Some failed, or all: then what they have in common."""
    if not report.failed:
        return DONE
    if len(report.failed) < len(report.outcomes):
        return SOME_FAILED
    codes = {exit_code(outcome.error) for outcome in report.failed if outcome.error}
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
