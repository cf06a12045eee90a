"""What goes along with an image on the command line, and what is said of what does not."""

from __future__ import annotations

import argparse

from concil.cli.command import Command
from concil.cli.failures import cleaned
from concil.progress import State
from concil.transfer.image import ForeignLayers, ImageResult


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add ``--referrers``, ``--foreign-layers`` and ``--recheck``."""
    parser.add_argument(
        "--referrers",
        action="store_true",
        help="copy signatures, attestations and SBOMs too, those that refer to the image and "
        "the tags of cosign; they are looked for also where the image is up to date",
    )
    parser.add_argument(
        "--foreign-layers",
        choices=[str(each) for each in ForeignLayers],
        default=str(ForeignLayers.SKIP),
        help="layers that are not to be distributed: leave them out (default), copy them from "
        "the source, or fetch what the source has not from the URLs of the manifest",
    )
    parser.add_argument(
        "--recheck",
        action="store_true",
        help="ask the destination for every manifest and blob of an image that is up to date, "
        "and copy what it has lost; look at immutable tags, too",
    )


def foreign_layers(arguments: argparse.Namespace) -> ForeignLayers:
    """Return what ``--foreign-layers`` asks for."""
    return ForeignLayers(arguments.foreign_layers)


def tell(command: Command, result: ImageResult) -> None:
    """Say in a line what of an image that was copied is not as it was at the source."""
    if result.notes and result.state is State.DONE:
        command.tell(cleaned(f"concil: note: {result.target}: {'; '.join(result.notes)}"))
