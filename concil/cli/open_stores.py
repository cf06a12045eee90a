"""Opens single stores with the options of a command."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from concil.cli.context import CommandContext
from concil.cli.options import settings
from concil.engine.store_factory import StoreFactory


@contextlib.contextmanager
def open_store_factory(command: CommandContext) -> Iterator[StoreFactory]:
    """Open a store factory with the options of the command."""
    config = settings.build_config(command.arguments)
    with StoreFactory(config, timeouts=None, cancel=command.shutdown.event) as stores:
        yield stores
