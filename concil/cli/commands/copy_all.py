"""`concil copy --all`: copies every image of a layout, archive or repository."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from concil.cli.open_engine import open_engine
from concil.cli.options import settings
from concil.cli.options.signature_options import build_verifier
from concil.cli.output import results
from concil.cli.output.errors import DONE, PARTIAL_FAILURE, describe_error, exit_code, single_line
from concil.cli.output.failed_images import group_lines
from concil.cli.output.notes import print_notes
from concil.cli.output.summaries import summary
from concil.errors import ConcilError, NotFound, UsageError
from concil.oci.address import DOCKER_ARCHIVE, LayoutAddress, parse_address
from concil.plan.copy_all import AllImages
from concil.transfer.image.job import ForeignLayers
from concil.transfer.mirror.report import Outcome

if TYPE_CHECKING:
    from concil.cli.context import CommandContext


def run(command: CommandContext) -> int:
    """Copy all images; print the address of each copy, and why others failed."""
    arguments = command.arguments
    began = time.monotonic()
    if len(arguments.destinations) > 1:
        raise UsageError(
            "--all copies to one destination, and several are given",
            remedy="run it once for each destination",
        )
    settings.refuse_spool(arguments)
    outcomes: list[Outcome] = []
    with open_engine(command) as engine:
        all_images = AllImages(
            arguments.source,
            arguments.destinations[0],
            engine.list_images,
            settings.parse_platforms(arguments),
            arguments.referrers,
            ForeignLayers(arguments.foreign_layers),
            arguments.recheck,
            settings.may_overwrite(arguments),
            build_verifier(arguments),
        )
        all_images.check()
        report = engine.mirror(all_images, on_image=outcomes.append)
    command.display.close()
    for address in sorted(
        _copy_address(outcome) for outcome in outcomes if outcome.result is not None
    ):
        results.print_line(address)
    failed_images = [(o.item, o.error) for o in outcomes if o.error is not None]
    errors = [error for _, error in (*failed_images, *all_images.failures)]
    for outcome in outcomes:
        if outcome.result is not None:
            print_notes(command, outcome.result)
    listing_lines = (
        single_line(f"concil: failed: {parse_address(source)}: {describe_error(error)}")
        for source, error in all_images.failures
    )
    for line in (*group_lines(failed_images), *listing_lines):
        command.display.write(line, "error")
    if not report.image_count and not errors:
        raise NotFound(
            f"{parse_address(arguments.source)} has no named image",
            remedy="copy an image by its digest, without --all",
        )
    command.print_message(summary(report, time.monotonic() - began))
    return _exit_code(errors, len(report.outcomes) + len(all_images.failures))


def _copy_address(outcome: Outcome) -> str:
    """Return the address of the copy, by name and digest."""
    address, result = parse_address(outcome.item.destination), outcome.result
    if result is None or (isinstance(address, LayoutAddress) and address.scheme == DOCKER_ARCHIVE):
        return str(address)  # such an archive stores no digests
    name = str(address).partition("@")[0]
    return f"{name}@{result.digest}"


def _exit_code(errors: list[ConcilError], images: int) -> int:
    """Return DONE, PARTIAL_FAILURE, or the code that all errors share if every image failed."""
    if not errors:
        return DONE
    codes = {exit_code(error) for error in errors}
    return codes.pop() if len(errors) == images and len(codes) == 1 else PARTIAL_FAILURE
