"""`concil du`: prints the sizes of images, alone and in common with each other."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from concil.cli.context import CommandContext
from concil.cli.open_engine import build_endpoints, open_engine
from concil.cli.options import settings
from concil.cli.output import results
from concil.cli.output.errors import (
    DONE,
    FAILED,
    PARTIAL_FAILURE,
    describe_error,
    exit_code,
    single_line,
)
from concil.cli.output.tables import print_table
from concil.engine.engine import Engine
from concil.engine.images.usage import DiskUsage
from concil.errors import UsageError
from concil.oci.address import LOCAL_SCHEMES, parse_address
from concil.oci.foreign_address import translate_address
from concil.plan import loader
from concil.plan.expand import PlanExpansion
from concil.plan.rule import ParsedPlan
from concil.plan.target_names import DestinationPrefix
from concil.runtime.quantities import format_size
from concil.transfer.journal import Journal
from concil.transfer.mirror.report import MirrorItem

_PLAN_SUFFIXES = (".toml", ".yaml", ".yml", ".txt", ".list")
_NO_DESTINATION = "destination.invalid/du"  # of the images of a plan, which are not copied


def run(command: CommandContext) -> int:
    """Print a line for each image, and one for all of them."""
    arguments = command.arguments
    plan = loader.load_plan(arguments.addresses[0]) if _is_plan(arguments.addresses) else None
    endpoints = build_endpoints(arguments)
    if plan is not None:
        settings.add_host_limits(arguments, plan.host_limits)
        endpoints = replace(endpoints, tls_by_host=plan.tls_by_host)
    with open_engine(command, endpoints, journal=Journal(None)) as engine:
        usage = engine.disk_usage(_images(arguments, engine, plan))
    if arguments.format == "json":
        results.print_json(_to_json(usage))
    else:
        _print_usage(usage)
    for image in usage.images:
        if image.error is not None:
            command.display.write(f"concil: {describe_error(image.error)}", "error")
    codes = {exit_code(error) for error in usage.errors}
    if len(usage.errors) < len(usage.images):
        return PARTIAL_FAILURE if codes else DONE
    return codes.pop() if len(codes) == 1 else FAILED


def _is_plan(addresses: list[str]) -> bool:
    """Return whether the only argument is a plan or list.

    Raises:
        UsageError: a plan is given with other arguments.
    """
    plans = [text for text in addresses if _is_plan_file(text)]
    if plans and len(addresses) > 1:
        raise UsageError(
            f"{single_line(plans[0])} is a plan or list, and there are other arguments",
            remedy="give one plan, or images only",
        )
    return bool(plans)


def _is_plan_file(text: str) -> bool:
    if translate_address(text).startswith(LOCAL_SCHEMES):
        return False
    return text.lower().endswith(_PLAN_SUFFIXES) or text == "-" or Path(text).is_file()


def _images(
    arguments: argparse.Namespace, engine: Engine, plan: ParsedPlan | None
) -> Iterator[MirrorItem]:
    """Yield the images of the arguments or the plan."""
    platforms = settings.parse_platforms(arguments)
    if plan is None:
        for text in arguments.addresses:
            parse_address(text)
            yield MirrorItem(text, text, platforms)
        return
    yield from PlanExpansion(
        plan.rules,
        engine.list_tags,
        (DestinationPrefix(_NO_DESTINATION),),
        platforms,
        list_repositories=engine.list_repositories,
    )


def _print_usage(usage: DiskUsage) -> None:
    rows = [
        (format_size(image.total), format_size(image.shared), format_size(image.unique), image.name)
        for image in usage.images
        if image.error is None
    ]
    print_table(("TOTAL", "SHARED", "UNIQUE", "IMAGE"), rows)
    saved = usage.total - usage.distinct
    results.print_line(
        f"{format_size(usage.distinct)} in all: {format_size(usage.distinct - usage.shared)} "
        f"unique, {format_size(usage.shared)} shared; {format_size(saved)} saved by sharing"
    )


def _to_json(usage: DiskUsage) -> dict[str, object]:
    return {
        "images": [
            {"name": image.name, "error": describe_error(image.error)}
            if image.error is not None
            else {
                "name": image.name,
                "total": image.total,
                "shared": image.shared,
                "unique": image.unique,
            }
            for image in usage.images
        ],
        "total": usage.total,
        "distinct": usage.distinct,
        "shared": usage.shared,
    }
