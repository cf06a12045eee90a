"""`concil mirror`: copies many images to one destination."""

from __future__ import annotations

import argparse
import contextlib
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from concil.cli.context import CommandContext
from concil.cli.dask_cluster import connect_cluster
from concil.cli.monitoring import Monitoring, open_monitoring
from concil.cli.open_engine import build_endpoints, open_engine
from concil.cli.options import settings
from concil.cli.options.signature_options import build_verifier
from concil.cli.output import results
from concil.cli.output.errors import (
    DONE,
    FAILED,
    PARTIAL_FAILURE,
    describe_error,
    single_line,
)
from concil.cli.output.failed_images import failure_lines, listing_failure_lines, retry_hint
from concil.cli.output.mirror_page import observe_single_run
from concil.cli.output.notes import print_notes
from concil.cli.output.preview import (
    PruneTotals,
    preview_summary,
    print_preview,
    prune_destinations,
)
from concil.cli.output.reports import Reports, is_html, report_title
from concil.cli.output.summaries import destination_lines, mirror_exit_code, summary
from concil.cli.plan_arguments import check_plan, parse_destinations
from concil.engine.engine import Engine
from concil.engine.processes.process_settings import check_destination, count_processes
from concil.errors import UsageError
from concil.oci.address import DOCKER_ARCHIVE, LayoutAddress, parse_address
from concil.plan import loader
from concil.plan.expand import ListTags, PlanExpansion
from concil.plan.load_baseline import load_baseline
from concil.plan.prune_ledger import PruneLedger
from concil.plan.retry_failed import FailedImages
from concil.plan.rule import ParsedPlan, Rule
from concil.report.timeline import Timeline
from concil.transfer.image.job import ForeignLayers
from concil.transfer.mirror.report import MirrorItem, MirrorReport, Outcome


def run(command: CommandContext) -> int:
    """Mirror the images of a plan once. See `mirror_service` for a schedule."""
    arguments = command.arguments
    if arguments.jitter is not None:
        raise UsageError(
            "--jitter delays the runs of a schedule, and there is none",
            remedy="add --every or --cron, or omit --jitter",
        )
    settings.may_overwrite(arguments)  # refuses contradictions before anything is read
    parse_destinations(arguments)
    plan = loader.load_plan(arguments.plan)
    with (
        open_monitoring(command, plan) as monitoring,
        observe_single_run(command, monitoring.render_metrics) as (observed, monitoring.page),
    ):
        run_plan = partial(run_once, observed, plan, monitoring)
        return monitoring.watch(plan, run_plan, is_complete=arguments.retry_failed is None)


def run_once(
    command: CommandContext,
    plan: ParsedPlan,
    monitoring: Monitoring,
    failed: FailedImages | None = None,
    on_outcome: Callable[[Outcome], object] | None = None,
) -> int:
    """Mirror the images of a plan; failures are printed at the end.

    Args:
        failed: only these images of the plan; None: all, or those of ``--retry-failed``.
        on_outcome: called with each outcome.
    """
    arguments, began = command.arguments, time.monotonic()
    report_paths = [Path(name) for name in arguments.report]
    with contextlib.ExitStack() as stack:
        settings.add_host_limits(arguments, plan.host_limits)
        timeline = _create_timeline(command, report_paths)
        endpoints = replace(build_endpoints(arguments), tls_by_host=plan.tls_by_host)
        if arguments.since:
            endpoints = replace(endpoints, baseline=load_baseline(arguments.since))
        observer = monitoring.progress_observer(timeline)
        engine = stack.enter_context(
            open_engine(command, endpoints, None, observer, monitoring.request_observer)
        )
        expansion = create_expansion(
            arguments, plan.rules, engine.list_tags, engine.list_repositories
        )
        expansion.find_creation_times = engine.find_creation_times
        if failed is not None:
            _restrict_to_failed(expansion, failed)
            if not expansion.rules:
                return DONE  # the plan no longer has them
        if not expansion.rules and arguments.retry_failed is not None:
            results.print_line(f"no image failed in {single_line(arguments.retry_failed)}")
            return DONE
        probes = _check_plan(arguments, expansion)
        if not arguments.dry_run:
            command.display.set_expected_images(len(probes) if expansion.is_static else None)
            if timeline is not None and expansion.is_static:
                timeline.set_expected_images(len(probes))
        reports = Reports(report_paths, timeline, report_title(arguments))
        command.shutdown.add_exit_callback(reports.close_incomplete)
        stack.enter_context(reports)
        mirror: Callable[..., MirrorReport] = partial(
            engine.mirror, processes=arguments.processes, dry_run=arguments.dry_run
        )
        if arguments.dask is not None and not arguments.dry_run:
            mirror = stack.enter_context(connect_cluster(command, endpoints, observer)).mirror
        note = _both(monitoring.record_outcome, on_outcome)
        report = _mirror(command, mirror, expansion, reports, note)
        monitoring.record_listing_failures(expansion.failures)
        pruned = _prune(command, engine, expansion, reports)
    command.display.close()
    _print_end(command, report, expansion, probes, reports, pruned, time.monotonic() - began)
    code = mirror_exit_code(report, [error for _, error in expansion.failures])
    if code == DONE and pruned.errors:
        return PARTIAL_FAILURE
    return FAILED if code == DONE and reports.errors else code


def _create_timeline(command: CommandContext, report_paths: Iterable[Path]) -> Timeline | None:
    """Return the source of the HTML pages; None if there are none."""
    timeline = Timeline() if any(map(is_html, report_paths)) else None
    if timeline is not None:
        # Before the engine: what fails after the interrupt must not be recorded as failed.
        command.shutdown.add_callback(timeline.interrupt)
    return timeline


def _print_end(  # noqa: PLR0913, PLR0917 - what a run leaves
    command: CommandContext,
    report: MirrorReport,
    expansion: PlanExpansion,
    probes: list[MirrorItem],
    reports: Reports,
    pruned: PruneTotals,
    seconds: float,
) -> None:
    """Print the failures, and the summary."""
    arguments = command.arguments
    json_reports = [name for name in arguments.report if not is_html(Path(name))]
    hint = "" if arguments.dry_run else retry_hint(json_reports)
    for line in [
        *failure_lines(report, probes, hint, are_listed=command.display.lists_images),
        *listing_failure_lines(expansion),
        *pruned.failure_lines(),
        *(f"concil: {describe_error(error)}" for error in reports.errors),
    ]:
        command.display.write(line, "error")
    if arguments.quiet:
        return
    line = summary(report, seconds, pruned.removed_count)
    line += "; ended early by --fail-fast" * reports.has_ended_early
    results.print_line(preview_summary(report, pruned.removed_count) if arguments.dry_run else line)
    for destination_line in destination_lines(report) if expansion.is_fan_out else ():
        results.print_line(single_line(destination_line))


def _check_plan(arguments: argparse.Namespace, expansion: PlanExpansion) -> list[MirrorItem]:
    """Check the plan; return its images, with placeholders for unlisted tags."""
    probes = check_plan(arguments, expansion)
    if arguments.since:
        _check_since(arguments.since, probes)
    if arguments.processes != 1:
        _check_processes(arguments, probes)
    if not expansion.is_fan_out:
        settings.refuse_spool(arguments)
    elif arguments.processes != 1:
        raise UsageError(
            "--processes splits the mirror, and several destinations need one read of the source",
            remedy="omit --processes, or mirror to each destination by itself",
        )
    return probes


def _mirror(
    command: CommandContext,
    mirror: Callable[..., MirrorReport],
    expansion: PlanExpansion,
    reports: Reports,
    on_outcome: Callable[[Outcome], object],
) -> MirrorReport:
    """Copy the images, or preview them, and report each outcome."""
    arguments = command.arguments

    def note(outcome: Outcome) -> None:
        reports.add(outcome)
        on_outcome(outcome)
        if arguments.dry_run:
            print_preview(outcome)
        if outcome.result is not None:
            print_notes(command, outcome.result)

    items = expansion if arguments.dry_run else _counted(expansion, command)
    report = mirror(items, on_image=note, keep_outcomes=False, fail_fast=arguments.fail_fast)
    reports.has_ended_early = arguments.fail_fast and bool(report.failed)
    for rule, error in expansion.failures:
        reports.add_listing_failure(rule.source, error)
    return report


def _both(
    first: Callable[[Outcome], object], second: Callable[[Outcome], object] | None
) -> Callable[[Outcome], object]:
    def call(outcome: Outcome) -> None:
        first(outcome)
        if second is not None:
            second(outcome)

    return call


def _counted(items: Iterable[MirrorItem], command: CommandContext) -> Iterator[MirrorItem]:
    """Yield the items; their number, which the display needs, is known after the last one."""
    count = 0
    for item in items:
        count += 1 + len(item.more_destinations)
        yield item
    command.display.set_expected_images(count)


def _prune(
    command: CommandContext, engine: Engine, expansion: PlanExpansion, reports: Reports
) -> PruneTotals:
    """Delete tags that are gone at the source; skipped after a run that ended early."""
    if expansion.ledger is None:
        return PruneTotals()
    if reports.has_ended_early:
        command.print_message("no tags were pruned, because the run ended early")
        return PruneTotals()
    return prune_destinations(command, engine, expansion.ledger, reports)


def create_expansion(
    arguments: argparse.Namespace,
    rules: tuple[Rule, ...],
    list_tags: ListTags,
    list_repositories: ListTags,
) -> PlanExpansion:
    """Return the images of the plan: restricted to failed ones, or with a ledger for pruning."""
    if arguments.prune or arguments.prune_all:
        rules = tuple(replace(rule, prune=True) for rule in rules)
    platforms = settings.parse_platforms(arguments)
    expansion = PlanExpansion(
        rules,
        list_tags,
        parse_destinations(arguments),
        platforms,
        arguments.referrers,
        ForeignLayers(arguments.foreign_layers),
        arguments.recheck,
        list_repositories=list_repositories,
        overwrite=settings.may_overwrite(arguments),
        verifier=build_verifier(arguments),
    )
    if arguments.retry_failed is not None:
        if arguments.prune or arguments.prune_all:
            raise UsageError(
                "--retry-failed skips parts of the plan, and therefore cannot prune",
                remedy="omit --prune, or mirror the whole plan",
            )
        expansion.check()  # checks all rules, not only those that failed
        failures = FailedImages.from_report(Path(arguments.retry_failed))
        _restrict_to_failed(expansion, failures)
        if failures and not expansion.rules:
            raise UsageError(
                "the plan contains none of the images that failed in "
                f"{single_line(arguments.retry_failed)}",
                remedy="give the report of a run of this plan",
            )
    elif any(rule.prune for rule in rules):
        expansion.check()
        expansion.ledger = PruneLedger(
            rules, expansion.destinations, allow_empty=arguments.prune_all
        )
    return expansion


def _restrict_to_failed(expansion: PlanExpansion, failures: FailedImages) -> None:
    """Restrict the plan to images that failed; nothing is pruned."""
    expansion.rules = tuple(failures.filter_rules(expansion.rules))
    expansion.image_filter = failures.is_failed
    expansion.ledger = None


def _check_processes(arguments: argparse.Namespace, items: Iterable[MirrorItem]) -> None:
    """Check that the mirror can be split over several processes."""
    if arguments.dask is not None:
        raise UsageError(
            "--processes splits the mirror on this machine, and --dask on other ones",
            remedy="omit one of them",
        )
    if count_processes(arguments.processes, settings.build_config(arguments)) > 1:
        for item in items:
            check_destination(item)


def _check_since(runs: Sequence[str], items: Iterable[MirrorItem]) -> None:
    """Check that the targets of ``--since`` are layouts, and none of them is a baseline."""
    for target in (parse_address(item.destination) for item in items):
        if not isinstance(target, LayoutAddress) or target.scheme == DOCKER_ARCHIVE:
            raise UsageError(
                f"--since omits blobs, and {target} must have all of them",
                remedy="mirror to oci:DIR or oci-archive:FILE",
            )
        if {target.store_address, target.path} & set(runs):
            raise UsageError(
                f"{target.store_address} is both the baseline of --since and the destination",
                remedy="mirror to a new layout or archive",
            )
