"""`concil mirror --dask`: the cluster that copies, where the extra is installed."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from concil.cli import options
from concil.cli.command import Command
from concil.errors import UsageError
from concil.opening import Sides
from concil.progress import ProgressSink, tee

if TYPE_CHECKING:
    from concil.cluster.driver import Cluster


def cluster_of(command: Command, sides: Sides, watch: ProgressSink | None = None) -> Cluster:
    """Connect to the scheduler of the command's options; a stop cancels the mirror.

    Args:
        sides: how the workers reach them.
        watch: gets the progress events beside the display.
    Raises:
        UsageError: Dask is not installed, or the address is none.
        Unreachable: nobody answers there.
    """
    try:
        driver = importlib.import_module("concil.cluster.driver")
    except ModuleNotFoundError as error:
        if error.name not in ("dask", "distributed"):
            raise
        raise UsageError(
            "--dask needs Dask, which is not installed", remedy="pip install 'concil[dask]'"
        ) from error
    settings = importlib.import_module("concil.cluster.worker").Settings(
        options.config_of(command.arguments), sides
    )
    progress = command.display if watch is None else tee(command.display, watch)
    cluster: Cluster = driver.Cluster(command.arguments.dask, settings, progress=progress)
    command.stop.also(cluster.cancel)
    return cluster
