"""`concil copy`: copies one image to one or several stores."""

from __future__ import annotations

from concil.cli.context import CommandContext
from concil.cli.open_engine import open_engine
from concil.cli.options import settings
from concil.cli.options.signature_options import build_verifier
from concil.cli.output import results
from concil.cli.output.addresses import address_by_digest
from concil.cli.output.errors import DONE, FAILED, PARTIAL_FAILURE, exit_code
from concil.cli.output.failed_images import group_lines
from concil.cli.output.notes import print_notes
from concil.cli.output.summaries import describe_blobs
from concil.cli.traces import open_traces
from concil.oci.address import parse_address
from concil.progress.events import State
from concil.runtime.quantities import count_of
from concil.transfer.image.result import ImageResult
from concil.transfer.mirror.report import BlobTotals, MirrorItem, Outcome


def run(command: CommandContext) -> int:
    """Copy the image and print the address of each copy by digest."""
    arguments = command.arguments
    platforms = settings.parse_platforms(arguments)
    overwrite = settings.may_overwrite(arguments)
    verifier = build_verifier(arguments)
    if len(arguments.destinations) == 1:
        settings.refuse_spool(arguments)
    with (
        open_traces(command) as traces,
        open_engine(command, observer=traces, request_observer=traces) as engine,
    ):
        if len(arguments.destinations) == 1:
            [destination] = arguments.destinations
            result = engine.copy(
                arguments.source,
                destination,
                platforms=platforms,
                referrers=arguments.referrers,
                foreign_layers=arguments.foreign_layers,
                recheck=arguments.recheck,
                overwrite=overwrite,
                verifier=verifier,
            )
            outcomes: tuple[Outcome, ...] = (
                Outcome(MirrorItem(arguments.source, destination), result),
            )
        else:
            outcomes = engine.copy_to(
                arguments.source,
                arguments.destinations,
                platforms=platforms,
                referrers=arguments.referrers,
                foreign_layers=arguments.foreign_layers,
                recheck=arguments.recheck,
                overwrite=overwrite,
                verifier=verifier,
            )
    command.display.close()
    for outcome in outcomes:
        if outcome.result is not None:
            _print_result(command, outcome.item, outcome.result)
    failures = [(outcome.item, outcome.error) for outcome in outcomes if outcome.error is not None]
    for line in group_lines(failures):
        command.display.write(line, "error")
    codes = {exit_code(error) for _, error in failures}
    if len(failures) < len(outcomes):
        return PARTIAL_FAILURE if failures else DONE
    return codes.pop() if len(codes) == 1 else FAILED


def _print_result(command: CommandContext, item: MirrorItem, result: ImageResult) -> None:
    print_notes(command, result)
    if result.state is not State.PRESENT:
        count = f"{count_of(result.referrers, 'referrer')}, " if result.referrers else ""
        blobs = describe_blobs(BlobTotals(result.blobs))
        command.print_message(
            f"copied {result.destination}: {count}{blobs}, {result.seconds:.1f} s"
        )
    elif command.arguments.no_clobber:
        command.print_message(f"{result.destination} exists, and was not changed")
    else:
        command.print_message(f"{result.destination} is up to date")
    results.print_line(address_by_digest(parse_address(item.destination), result.digest))
