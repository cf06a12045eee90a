"""Declares options for referrers and foreign layers."""

from __future__ import annotations

TYPE_CHECKING = False  # as that of typing, which takes longer to import than this module
if TYPE_CHECKING:
    import argparse

FOREIGN_LAYERS = ("skip", "source", "urls")  # the values of `ForeignLayers`; the default first


def add_no_clobber(parser: argparse.ArgumentParser) -> None:
    """Add ``--no-clobber``."""
    parser.add_argument(
        "-n",
        "--no-clobber",
        action="store_true",
        help="leave images that exist at the destination as they are, whatever they are",
    )


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add ``--referrers``, ``--foreign-layers`` and ``--recheck``."""
    add_content_options(parser)
    parser.add_argument(
        "--recheck",
        action="store_true",
        help="check that the destination still has every manifest and blob of images that are up "
        "to date, and copy what is missing; also checks immutable tags",
    )


def add_content_options(parser: argparse.ArgumentParser) -> None:
    """Add ``--referrers`` and ``--foreign-layers``: what an image consists of."""
    parser.add_argument(
        "--referrers",
        action="store_true",
        help="also copy signatures, attestations and SBOMs: the referrers of the image and the "
        "tags of cosign; checks images that are up to date for new ones, too",
    )
    parser.add_argument(
        "--foreign-layers",
        choices=FOREIGN_LAYERS,
        default=FOREIGN_LAYERS[0],
        help="what to do with foreign (non-distributable) layers: skip them (default), copy them "
        "from the source, or fetch those that the source lacks from the URLs in the manifest",
    )
