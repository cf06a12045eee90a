"""Declares `concil serve`."""

from __future__ import annotations

TYPE_CHECKING = False  # as that of typing, which takes longer to import than this module
if TYPE_CHECKING:
    import argparse

DEFAULT_ADDRESS = "127.0.0.1:5000"


def declare(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the verb."""
    parser.description = "Serve an OCI image layout directory as a registry until interrupted."
    parser.add_argument(
        "directory",
        metavar="DIR",
        help="a layout directory, an empty directory, or a directory to create",
    )
    parser.add_argument(
        "--addr",
        metavar="HOST:PORT",
        default=DEFAULT_ADDRESS,
        help="address to listen on (default: %(default)s); port 0 chooses a free port",
    )
    parser.add_argument("--read-only", action="store_true", help="refuse all writes")
    parser.set_defaults(command="concil.cli.commands.serve:run", handles_signals=True)
