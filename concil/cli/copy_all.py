"""`concil copy --all`: every image of a layout, an archive or a repository."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from concil.cli import along, copy, options, results
from concil.cli.failures import DONE, SOME_FAILED, cleaned, exit_code, told
from concil.cli.mirror import summary
from concil.errors import ConcilError, NotFound
from concil.plan.everything import Everything
from concil.reference import DOCKER_ARCHIVE, LayoutAddress, parse_address
from concil.transfer.mirror import Outcome

if TYPE_CHECKING:
    from concil.cli.command import Command
    from concil.cli.options import Subparsers


def add_parser(subparsers: Subparsers) -> None:
    """Add the verb `copy`, with what it does for all images of a place."""
    copy.add_parser(subparsers)
    parser = subparsers.choices["copy"]
    parser.add_argument(
        "--all",
        action="store_true",
        help="copy every name of a layout or archive below DST, the prefix of a registry, or "
        "every tag of a repository to another one; prints the address of each copy",
    )
    parser.set_defaults(work=run)


def run(command: Command) -> int:
    """Copy one image, or all; prints the address of each copy, and why others failed."""
    arguments = command.arguments
    if not arguments.all:
        return copy.run(command)
    began = time.monotonic()
    outcomes: list[Outcome] = []
    with command.engine() as engine:
        wanted = Everything(
            arguments.source,
            arguments.destination,
            engine.listing,
            options.platforms_of(arguments),
            arguments.referrers,
            along.foreign_layers(arguments),
        )
        wanted.check()
        report = engine.mirror(wanted, on_image=outcomes.append)
    command.display.close()
    for address in sorted(_address(one) for one in outcomes if one.result is not None):
        results.put_line(address)
    failed = [(o.item.source, o.error) for o in outcomes if o.error is not None] + wanted.failed
    for one in outcomes:
        if one.result is not None:
            along.tell(command, one.result)
    for source, error in failed:
        line = f"concil: failed: {parse_address(source)}: {told(error)}"
        command.display.write(cleaned(line), "error")
    if not report.images and not failed:
        raise NotFound(
            f"{parse_address(arguments.source)} has no image with a name",
            remedy="copy one by its digest, without --all",
        )
    command.tell(summary(report, time.monotonic() - began))
    return _code([error for _, error in failed], len(report.outcomes) + len(wanted.failed))


def _address(outcome: Outcome) -> str:
    """The copy's address, by its name and by its digest."""
    address, result = parse_address(outcome.item.destination), outcome.result
    if result is None or (isinstance(address, LayoutAddress) and address.kind == DOCKER_ARCHIVE):
        return str(address)  # such an archive keeps no digests
    bare = str(address).partition("@")[0]
    return f"{bare}@{result.digest}"


def _code(errors: list[ConcilError], images: int) -> int:
    """Some failed, or all: then what they have in common."""
    if not errors:
        return DONE
    codes = {exit_code(error) for error in errors}
    return codes.pop() if len(errors) == images and len(codes) == 1 else SOME_FAILED
