"""`concil copy`: one image from one store to another."""

from __future__ import annotations

from typing import TYPE_CHECKING

from concil.bars import sized
from concil.cli import along, options, results
from concil.cli.command import Command
from concil.cli.failures import DONE
from concil.content import Digest
from concil.progress import State
from concil.reference import DOCKER_ARCHIVE, Address, LayoutAddress, parse_address
from concil.transfer.mirror import Arrivals

if TYPE_CHECKING:
    from concil.cli.options import Subparsers


def add_parser(subparsers: Subparsers) -> None:
    """Add the verb to the command line."""
    parser = subparsers.add_parser(
        "copy",
        help="copy one image",
        description="Copy one image, with all its platforms and its digests as they are. "
        "Prints the address of the copy by digest.",
    )
    parser.add_argument("source", metavar="SRC", help=options.REF_HELP)
    parser.add_argument("destination", metavar="DST", help="the same")
    options.add_platform(parser, "copy only these platforms of an index")
    along.add_options(parser)
    options.add_progress(parser)
    options.add_registry(parser, sides=("src", "dest"))
    parser.set_defaults(work=run)


def run(command: Command) -> int:
    """Copy it."""
    arguments = command.arguments
    platforms = options.platforms_of(arguments)
    with command.engine() as engine:
        result = engine.copy(
            arguments.source,
            arguments.destination,
            platforms=platforms,
            referrers=arguments.referrers,
            foreign_layers=arguments.foreign_layers,
            recheck=arguments.recheck,
        )
    command.display.close()
    along.tell(command, result)
    if result.state is State.PRESENT:
        command.tell(f"{result.target} is up to date")
    else:
        count = f"{result.referrers} referrers, " if result.referrers else ""
        blobs = told_of(Arrivals(result.blobs))
        command.tell(f"copied {result.target}: {count}{blobs}, {result.seconds:.1f} s")
    results.put_line(pinned(parse_address(arguments.destination), result.digest))
    return DONE


def pinned(address: Address, digest: Digest) -> str:
    """The address of what has just been written, by its digest where that is kept."""
    if isinstance(address, LayoutAddress):
        if address.kind == DOCKER_ARCHIVE:  # it keeps no digests
            return str(address)
        return str(LayoutAddress(address.path, None, digest, address.kind))
    return str(address.at(digest=digest))


def told_of(arrivals: Arrivals) -> str:
    """How blobs arrived, in words."""
    count = arrivals.count()
    parts = [f"{count[State.DONE]} blobs sent ({sized(arrivals.sent)})"]
    if count[State.MOUNTED]:
        parts.append(f"{count[State.MOUNTED]} mounted")
    if count[State.PRESENT]:
        parts.append(f"{count[State.PRESENT]} there already")
    return ", ".join(parts)
