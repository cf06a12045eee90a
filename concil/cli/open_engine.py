"""Opens an engine with the options of a command."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Iterator

from concil.cli.context import GRACE_PERIOD, CommandContext
from concil.cli.options import settings
from concil.engine.engine import Engine
from concil.engine.image_resolver import Endpoints
from concil.progress.events import ProgressSink, tee
from concil.progress.request_observer import RequestObserver
from concil.transfer.journal import Journal

_CLOSE_TIMEOUT = 7.0  # seconds for chunks in flight after a failure; well below GRACE_PERIOD


@contextlib.contextmanager
def open_engine(
    command: CommandContext,
    endpoints: Endpoints | None = None,
    journal: Journal | None = None,
    observer: ProgressSink | None = None,
    request_observer: RequestObserver | None = None,
) -> Iterator[Engine]:
    """Open an engine with the options of the command; a shutdown cancels it.

    Args:
        endpoints: options of source and destination; None: from the command's options.
        journal: None: the user's journal.
        observer: receives the progress events in addition to the display.
        request_observer: receives each request.
    """
    engine = Engine(
        settings.build_config(command.arguments),
        progress=command.display if observer is None else tee(command.display, observer),
        endpoints=endpoints or build_endpoints(command.arguments),
        journal=journal,
        observer=request_observer,
    )
    command.shutdown.grace_period = GRACE_PERIOD
    command.shutdown.add_callback(engine.cancel)
    try:
        yield engine
    except BaseException:  # re-raised: no worker may delay a failed command
        engine.cancel()
        engine.close(_CLOSE_TIMEOUT)
        raise
    engine.close()


def build_endpoints(arguments: argparse.Namespace) -> Endpoints:
    """Return the options of both sides; they are equal for a verb with one side."""
    if hasattr(arguments, "src_creds"):
        return Endpoints(
            settings.build_endpoint_options(arguments, "src"),
            settings.build_endpoint_options(arguments, "dest"),
        )
    options = settings.build_endpoint_options(arguments)
    return Endpoints(options, options)
