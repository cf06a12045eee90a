"""`concil mirror`: many images to one destination."""

from __future__ import annotations

import argparse
import contextlib
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from concil.cli import along, options, results
from concil.cli.cluster import cluster_of
from concil.cli.command import Command
from concil.cli.copy import told_of
from concil.cli.failures import DONE, FAILED, SOME_FAILED, cleaned, exit_code, told
from concil.cli.outlook import Tally, outlook, prune, put_outlook
from concil.cli.reports import Reports, is_page, title_of
from concil.engine import Engine
from concil.errors import ConcilError, NotTried, UsageError
from concil.plan import reading
from concil.plan.again import Failures
from concil.plan.expand import Expansion
from concil.plan.prune import Ledger
from concil.plan.rules import Rule
from concil.plan.targets import Below
from concil.reference import DOCKER_ARCHIVE, LayoutAddress, Reference, parse_address
from concil.since import held_by
from concil.timeline import Timeline
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
        "--report",
        metavar="FILE",
        type=Path,
        action="append",
        default=[],
        help="write what became of each image, as JSON; FILE.html: a page with the timeline; "
        "may be repeated",
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
    parser.add_argument(
        "--dask", metavar="ADDRESS", help="copy on the workers of the Dask scheduler at tcp://..."
    )
    parser.add_argument(
        "--retry-failed",
        metavar="REPORT",
        type=Path,
        help="copy only what failed, or was not tried, in the run of this report",
    )
    _add_pruning(parser)
    options.add_platform(parser, "copy only these platforms of each index")
    along.add_options(parser)
    options.add_progress(parser)
    options.add_registry(parser, sides=("src", "dest"))
    parser.set_defaults(work=run)


def _add_pruning(parser: argparse.ArgumentParser) -> None:
    """Add what is looked at only, deleted, or not looked at."""
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="only say what would be copied and pruned, and how many bytes that is",
    )
    parser.add_argument(
        "--prune",
        action="store_true",
        help="delete the tags at the destination that are gone at the source, as with prune = "
        "true in every entry of a plan that chooses tags",
    )
    parser.add_argument(
        "--prune-all",
        action="store_true",
        help="the same, even if more than a quarter of a repository's tags, or all of them, go",
    )


def lacks_destination(arguments: argparse.Namespace) -> bool:
    """Whether it is a mirror without the argument that says where to."""
    return arguments.verb == "mirror" and arguments.destination is None


def run(command: Command) -> int:
    """Copy them; the failures of single images are told at the end."""
    arguments = command.arguments
    began = time.monotonic()
    with contextlib.ExitStack() as stack:
        below = _below(arguments)
        plan = reading.read(arguments.plan)
        arguments.hosts = plan.hosts
        timeline = Timeline() if any(map(is_page, arguments.report)) else None
        if timeline is not None:
            command.stop.also(timeline.interrupt)  # before the engine, which fails by it
        sides = replace(options.sides_of(arguments), tls=plan.tls)
        if arguments.since:
            sides = replace(sides, held=held_by(arguments.since))
        engine = stack.enter_context(command.engine(sides, watch=timeline))
        wanted = _expansion(arguments, engine, plan.rules, below)
        if not wanted.rules and arguments.retry_failed is not None:
            results.put_line(f"nothing failed in {cleaned(str(arguments.retry_failed))}")
            return DONE
        probes = _checked(arguments, wanted)
        if wanted.known and not arguments.dry_run:
            command.display.expect(len(probes))
            if timeline is not None:
                timeline.expect(len(probes))
        reports = Reports(arguments.report, timeline, title_of(arguments))
        command.stop.before_exit(reports.abandon)
        stack.enter_context(reports)
        mirror: Callable[..., MirrorReport] = engine.mirror
        if arguments.dry_run:
            mirror = partial(engine.mirror, dry_run=True)
        elif arguments.dask is not None:
            mirror = stack.enter_context(cluster_of(command, sides, timeline)).mirror
        report = _mirror(command, mirror, wanted, reports)
        pruned = _prune(command, engine, wanted, reports)
    command.display.close()
    unwritten = [f"concil: {told(error)}" for error in reports.errors]
    for line in [*_failures(report, probes), *_unlisted(wanted), *pruned.lines(), *unwritten]:
        command.display.write(line, "error")
    if not arguments.quiet:
        line = summary(report, time.monotonic() - began, pruned.removed)
        line += "; ended early by --fail-fast" * reports.cut_short
        results.put_line(outlook(report, pruned.removed) if arguments.dry_run else line)
    code = _code(report, [error for _, error in wanted.failed])
    if code == DONE and pruned.errors:
        return SOME_FAILED
    return FAILED if code == DONE and unwritten else code


def _checked(arguments: argparse.Namespace, wanted: Expansion) -> list[MirrorItem]:
    """Check the plan; return what it comes to as far as that is known."""
    probes = wanted.check()
    if not probes:
        raise UsageError(
            f"no images in {cleaned(arguments.plan)}", remedy="a list has one image a line"
        )
    if arguments.since:
        _check_since(arguments.since, probes)
    _check_hosts("--src-creds", arguments.src_creds, [item.source for item in probes])
    _check_hosts("--dest-creds", arguments.dest_creds, [item.destination for item in probes])
    return probes


def _mirror(
    command: Command, mirror: Callable[..., MirrorReport], wanted: Expansion, reports: Reports
) -> MirrorReport:
    """Copy the images, or look at them, and write down what became of each."""
    arguments = command.arguments

    def note(outcome: Outcome) -> None:
        reports.add(outcome)
        if arguments.dry_run:
            put_outlook(outcome)
        if outcome.result is not None:
            along.tell(command, outcome.result)

    report = mirror(wanted, on_image=note, keep=False, fail_fast=arguments.fail_fast)
    reports.cut_short = arguments.fail_fast and bool(report.failed)
    for rule, error in wanted.failed:
        reports.add_unlisted(rule.source, error)
    return report


def _prune(command: Command, engine: Engine, wanted: Expansion, reports: Reports) -> Tally:
    """Delete what is gone, if anything is to be deleted and all is known of it."""
    if wanted.ledger is None:
        return Tally()
    if reports.cut_short:
        command.tell("nothing was pruned: the run ended early")
        return Tally()
    return prune(command, engine, wanted.ledger, reports)


def _failures(report: MirrorReport, probes: Sequence[MirrorItem]) -> Iterator[str]:
    """The images that failed, in the order of the plan as far as that is known."""
    order = {item: place for place, item in enumerate(probes)}
    for outcome in sorted(report.failed, key=lambda o: order.get(o.item, len(order))):
        if not isinstance(outcome.error, NotTried):
            yield _failure(outcome)
    for error, count in Counter(o.error for o in report.untried if o.error).items():
        yield cleaned(f"concil: failed: {count} more images were not tried: {told(error)}")


def _unlisted(wanted: Expansion) -> Iterator[str]:
    for rule, error in wanted.failed:
        if not isinstance(error, NotTried):
            yield cleaned(f"concil: failed: {rule.place}: {told(error)}")
    untried = Counter(error for _, error in wanted.failed if isinstance(error, NotTried))
    for error, count in untried.items():
        yield cleaned(f"concil: failed: {count} more repositories were not tried: {told(error)}")


def _below(arguments: argparse.Namespace) -> Below | None:
    """The destination, said by ``--dest`` or the argument; None: the plan says where all goes."""
    if arguments.dest is not None and arguments.destination is not None:
        raise UsageError("two destinations are given", remedy="leave one of them away")
    destination = arguments.dest if arguments.dest is not None else arguments.destination
    return Below(destination) if destination is not None else None


def _expansion(
    arguments: argparse.Namespace, engine: Engine, rules: tuple[Rule, ...], below: Below | None
) -> Expansion:
    """The plan as images, cut down or with all that prune has to know, as the options say."""
    if arguments.prune or arguments.prune_all:
        rules = tuple(replace(rule, prune=True) for rule in rules)
    platforms = options.platforms_of(arguments)
    expansion = Expansion(
        rules,
        engine.tags,
        below,
        platforms,
        arguments.referrers,
        along.foreign_layers(arguments),
        arguments.recheck,
        list_repositories=engine.repositories,
    )
    if arguments.retry_failed is not None:
        if arguments.prune or arguments.prune_all:
            raise UsageError(
                "--retry-failed does not look at all of the plan, and cannot prune",
                remedy="leave --prune away, or mirror all of it",
            )
        _cut_down(expansion, arguments.retry_failed)
    elif any(rule.prune for rule in rules):
        expansion.check()
        expansion.ledger = Ledger(rules, expansion.destination, empty=arguments.prune_all)
    return expansion


def _cut_down(expansion: Expansion, report: Path) -> None:
    """Leave what failed in the run of a report."""
    expansion.check()  # all of it, not only what failed
    failures = Failures.read(report)
    expansion.rules = tuple(failures.of(expansion.rules))
    expansion.wanted = failures.has
    if failures and not expansion.rules:
        raise UsageError(
            f"nothing that failed in {cleaned(str(report))} is in the plan",
            remedy="name the report of a run of this plan",
        )


def summary(report: MirrorReport, seconds: float, pruned: int = 0) -> str:
    """One line that says what became of all the images."""
    untried = f", {len(report.untried)} not tried" if report.untried else ""
    return (
        f"{report.images} images: {report.brought} copied, {report.up_to_date} up to date, "
        f"{len(report.failed) - len(report.untried)} failed{untried}; "
        f"{told_of(report.arrivals)}; {f'{pruned} pruned; ' if pruned else ''}{seconds:.1f} s"
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
