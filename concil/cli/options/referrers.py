"""Options for referrers and foreign layers, and the notes about skipped ones."""

from __future__ import annotations

import argparse

from concil.cli.context import CommandContext
from concil.cli.output.errors import single_line
from concil.progress.events import State
from concil.transfer.image.copier import ForeignLayers
from concil.transfer.image.result import ImageResult


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add ``--referrers``, ``--foreign-layers`` and ``--recheck``."""
    parser.add_argument(
        "--referrers",
        action="store_true",
        help="also copy signatures, attestations and SBOMs: the referrers of the image and the "
        "tags of cosign; checks images that are up to date for new ones, too",
    )
    parser.add_argument(
        "--foreign-layers",
        choices=[str(mode) for mode in ForeignLayers],
        default=str(ForeignLayers.SKIP),
        help="what to do with foreign (non-distributable) layers: skip them (default), copy them "
        "from the source, or fetch those that the source lacks from the URLs in the manifest",
    )
    parser.add_argument(
        "--recheck",
        action="store_true",
        help="check that the destination still has every manifest and blob of images that are up "
        "to date, and copy what is missing; also checks immutable tags",
    )


def foreign_layers(arguments: argparse.Namespace) -> ForeignLayers:
    """Return the mode that ``--foreign-layers`` selects."""
    return ForeignLayers(arguments.foreign_layers)


def print_notes(context: CommandContext, result: ImageResult) -> None:
    """Print in one line how a copied image differs from its source."""
    if result.notes and result.state is State.DONE:
        context.print_message(
            single_line(f"concil: note: {result.destination}: {'; '.join(result.notes)}")
        )
