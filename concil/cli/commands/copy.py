"""`concil copy`: copies one image between stores."""

from __future__ import annotations

from concil.cli.context import CommandContext
from concil.cli.open_engine import open_engine
from concil.cli.options import settings
from concil.cli.output import results
from concil.cli.output.addresses import address_by_digest
from concil.cli.output.errors import DONE
from concil.cli.output.notes import print_notes
from concil.cli.output.summaries import describe_blobs
from concil.oci.address import parse_address
from concil.progress.events import State
from concil.runtime.quantities import count_of
from concil.transfer.mirror.report import BlobTotals


def run(command: CommandContext) -> int:
    """Copy the image and print its address by digest."""
    arguments = command.arguments
    platforms = settings.parse_platforms(arguments)
    with open_engine(command) as engine:
        result = engine.copy(
            arguments.source,
            arguments.destination,
            platforms=platforms,
            referrers=arguments.referrers,
            foreign_layers=arguments.foreign_layers,
            recheck=arguments.recheck,
        )
    command.display.close()
    print_notes(command, result)
    if result.state is State.PRESENT:
        command.print_message(f"{result.destination} is up to date")
    else:
        count = f"{count_of(result.referrers, 'referrer')}, " if result.referrers else ""
        blobs = describe_blobs(BlobTotals(result.blobs))
        command.print_message(
            f"copied {result.destination}: {count}{blobs}, {result.seconds:.1f} s"
        )
    results.print_line(address_by_digest(parse_address(arguments.destination), result.digest))
    return DONE
