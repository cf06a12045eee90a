"""`concil check`: checks that copies of images are complete and whole."""

from __future__ import annotations

import argparse
import contextlib
import json
import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from concil.cli.context import SHORT_GRACE_PERIOD, CommandContext
from concil.cli.open_engine import build_endpoints, open_engine
from concil.cli.options import settings
from concil.cli.options.signature_options import build_verifier
from concil.cli.output import results
from concil.cli.output.errors import DONE, DRIFT, FAILED, describe_error, single_line
from concil.cli.output.failed_images import failure_lines, listing_failure_lines
from concil.cli.output.findings import check_summary, finding_lines
from concil.cli.output.reports import Reports, is_html, report_title
from concil.cli.output.summaries import mirror_exit_code
from concil.cli.plan_arguments import check_plan, parse_destinations
from concil.engine.engine import Engine
from concil.errors import ConcilError, UsageError
from concil.oci.address import LOCAL_SCHEMES, parse_address
from concil.plan import loader
from concil.plan.expand import PlanExpansion
from concil.plan.report_schema import CHECK_VERB
from concil.plan.rule import ParsedPlan
from concil.report.json_report import image_entry
from concil.report.timeline import Timeline
from concil.runtime.dataclass import dataclass
from concil.transfer.image.job import ForeignLayers
from concil.transfer.mirror.report import MirrorItem, MirrorReport, Outcome

_PLAN_SUFFIXES = (".toml", ".yaml", ".yml", ".txt", ".list")


def run(command: CommandContext) -> int:
    """Check the images, and print what is not in order."""
    arguments, began = command.arguments, time.monotonic()
    with contextlib.ExitStack() as stack:
        plan = loader.load_plan(arguments.plan) if _is_plan(arguments) else None
        if plan is None:
            _check_single(arguments)
        report_paths = [Path(name) for name in arguments.report]
        timeline = Timeline() if any(map(is_html, report_paths)) else None
        if timeline is not None:
            command.shutdown.add_callback(timeline.interrupt)
        endpoints = build_endpoints(arguments)
        if plan is not None:
            settings.add_host_limits(arguments, plan.host_limits)
            endpoints = replace(endpoints, tls_by_host=plan.tls_by_host)
        engine = stack.enter_context(open_engine(command, endpoints, observer=timeline))
        if not arguments.repair:  # no chunk of an upload has to be finished
            command.shutdown.grace_period = SHORT_GRACE_PERIOD
        images = _list_images(arguments, engine, plan)
        if images.is_static:
            # The results of a check are on standard output.
            command.display.set_expected_images(len(images.probes), lists_images=False)
            if timeline is not None:
                timeline.set_expected_images(len(images.probes))
        reports = Reports(report_paths, timeline, report_title(arguments), CHECK_VERB)
        command.shutdown.add_exit_callback(reports.close_incomplete)
        stack.enter_context(reports)
        report = _check(command, engine, images, reports)
    command.display.close()
    lines = [*failure_lines(report, images.probes)]
    if images.expansion is not None:
        lines += listing_failure_lines(images.expansion)
    for line in [*lines, *(f"concil: {describe_error(error)}" for error in reports.errors)]:
        command.display.write(line, "error")
    if not arguments.quiet and arguments.format == "table":
        results.print_line(check_summary(report, time.monotonic() - began))
    if report.drift_count:
        return DRIFT
    code = mirror_exit_code(report, [error for _, error in images.failures])
    return FAILED if code == DONE and reports.errors else code


@dataclass(frozen=True, slots=True)
class _Images:
    """The images to check."""

    items: Iterable[MirrorItem | str]
    probes: list[MirrorItem]  # with placeholders for tags that are not listed yet
    expansion: PlanExpansion | None = None

    @property
    def is_static(self) -> bool:
        """Whether their number is known."""
        return self.expansion is not None and self.expansion.is_static

    @property
    def failures(self) -> list[tuple[object, ConcilError]]:
        """Repositories that could not be listed."""
        return [*self.expansion.failures] if self.expansion is not None else []


def _is_plan(arguments: argparse.Namespace) -> bool:
    """Whether the first argument is a plan rather than an address."""
    text: str = arguments.plan
    if arguments.destination is not None or arguments.dest is not None or text == "-":
        return True
    if text.startswith(LOCAL_SCHEMES):
        return False
    return text.lower().endswith(_PLAN_SUFFIXES) or Path(text).is_file()


def _check_single(arguments: argparse.Namespace) -> None:
    """Check the options of a check without a plan."""
    address = parse_address(arguments.plan)
    if arguments.repair:
        raise UsageError(
            f"--repair needs the sources of the images, and {address} has none",
            remedy="give a plan or list, and the destination of its images",
        )
    if arguments.platform:
        raise UsageError(
            "--platform says which platforms a mirror has copied, and there is no plan",
            remedy="omit --platform",
        )
    if build_verifier(arguments) is not None:
        raise UsageError(
            "signatures are verified before --repair copies images, and there is no plan",
            remedy="omit the options for signatures",
        )


def _list_images(arguments: argparse.Namespace, engine: Engine, plan: ParsedPlan | None) -> _Images:
    """Return the images of the plan, or the one of the address."""
    if plan is None:
        item = MirrorItem(
            arguments.plan,
            arguments.plan,
            referrers=arguments.referrers,
            foreign_layers=ForeignLayers(arguments.foreign_layers),
        )
        return _Images([item], [item])
    expansion = PlanExpansion(
        plan.rules,
        engine.list_tags,
        parse_destinations(arguments),
        settings.parse_platforms(arguments),
        arguments.referrers,
        ForeignLayers(arguments.foreign_layers),
        recheck=True,
        list_repositories=engine.list_repositories,
        find_creation_times=engine.find_creation_times,
        verifier=build_verifier(arguments),
    )
    return _Images(expansion, check_plan(arguments, expansion), expansion)


def _check(
    command: CommandContext, engine: Engine, images: _Images, reports: Reports
) -> MirrorReport:
    """Check the images, and print and report each outcome."""
    arguments = command.arguments

    def note(outcome: Outcome) -> None:
        reports.add(outcome)
        for line in _lines(outcome, arguments):
            results.print_line(line)

    report = engine.check(
        images.items,
        deep=arguments.deep,
        repair=arguments.repair,
        resume=not arguments.no_resume,
        on_image=note,
        keep_outcomes=False,
    )
    if images.expansion is not None:
        for rule, error in images.expansion.failures:
            reports.add_listing_failure(rule.source, error)
    return report


def _lines(outcome: Outcome, arguments: argparse.Namespace) -> Iterator[str]:
    """Yield what is printed of an image: failures are printed at the end."""
    if arguments.format == "json":
        yield json.dumps(image_entry(outcome))
    elif outcome.result is not None:
        name = str(parse_address(outcome.item.destination))
        if not outcome.result.findings and arguments.verbose:
            yield single_line(f"ok {name}")
        yield from finding_lines(name, outcome.result.findings)
