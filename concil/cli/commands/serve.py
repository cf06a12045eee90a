"""`concil serve`: serves a layout directory as a registry until interrupted."""

from __future__ import annotations

import argparse
import signal
import sys
import threading
from pathlib import Path
from types import FrameType

from concil.cli.options.listen_address import parse_listen_address
from concil.errors import NotFound, StoreError, safe_repr
from concil.fs.local_file import disk_error
from concil.runtime.malloc import limit_malloc_arenas
from concil.server import EmbeddedRegistry

_WAIT_TIMEOUT = 3600.0  # seconds; a wait without a limit could not be interrupted


def run(arguments: argparse.Namespace) -> int:
    """Serve until SIGINT or SIGTERM.

    Raises:
        UsageError, NotFound, StoreError: the directory cannot be served.
    """
    address = parse_listen_address(arguments.addr)
    directory = _check_directory(arguments.directory, read_only=arguments.read_only)
    limit_malloc_arenas()
    registry = EmbeddedRegistry(directory, address=address, read_only=arguments.read_only)
    registry.durable = True
    stop = threading.Event()

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        stop.set()

    previous_handlers = {
        number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        with registry:
            print(f"serving {directory} at {registry.url}", flush=True)
            while not stop.wait(_WAIT_TIMEOUT):
                pass
    finally:
        for number, handler in previous_handlers.items():
            signal.signal(number, handler)
    print("stopped; unfinished uploads can be resumed after a restart", file=sys.stderr)
    return 0


def _check_directory(text: str, *, read_only: bool) -> Path:
    """Return the directory if it is a layout, or an empty directory that may be written to."""
    directory = Path(text)
    if not directory.exists():
        _make(directory, text, read_only=read_only)
    if not directory.is_dir():
        raise StoreError(
            f"cannot serve {safe_repr(text)}: not a directory",
            remedy="give a layout directory; concil copy --all oci-archive:FILE oci:DIR creates "
            "one from an archive",
        )
    if any((directory / name).exists() for name in ("oci-layout", "index.json")):
        return directory  # opening it reports any other damage
    if read_only or any(directory.iterdir()):
        raise StoreError(
            f"cannot serve {safe_repr(text)}: not an OCI image layout",
            remedy="give a directory that contains oci-layout and index.json, or an empty one",
        )
    return directory


def _make(directory: Path, text: str, *, read_only: bool) -> None:
    """Create a missing directory, which is served as an empty layout."""
    failure = f"cannot serve {safe_repr(text)}"
    if read_only:
        raise NotFound(f"{failure}: the directory does not exist", remedy="give a layout directory")
    try:
        directory.mkdir()
    except FileNotFoundError as error:
        parent = safe_repr(str(directory.parent))
        raise NotFound(
            f"{failure}: the directory {parent} does not exist",
            remedy=f"create it first: mkdir -p {parent}",
        ) from error
    except OSError as error:
        raise disk_error(f"{failure}: cannot create", directory, error) from error
