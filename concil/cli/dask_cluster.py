"""Connects `concil mirror --dask` to a Dask cluster."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from concil.cli.context import CommandContext
from concil.cli.options import settings
from concil.engine.image_resolver import Endpoints
from concil.errors import UsageError
from concil.progress.events import ProgressSink, tee

if TYPE_CHECKING:
    from concil.cluster.driver import DaskCluster


def connect_cluster(
    command: CommandContext, endpoints: Endpoints, observer: ProgressSink | None = None
) -> DaskCluster:
    """Connect to the scheduler of the command's options; a shutdown cancels the mirror.

    Args:
        endpoints: options of source and destination, for the workers.
        observer: receives the progress events in addition to the display.
    Raises:
        UsageError: Dask is not installed, or the address is invalid.
        Unreachable: no scheduler answers at the address.
    """
    try:
        driver = importlib.import_module("concil.cluster.driver")
    except ModuleNotFoundError as error:
        if error.name not in ("dask", "distributed"):
            raise
        raise UsageError(
            "--dask needs Dask, which is not installed", remedy="pip install 'concil[dask]'"
        ) from error
    engine_settings = importlib.import_module("concil.cluster.worker").EngineSettings(
        settings.build_config(command.arguments), endpoints
    )
    progress = command.display if observer is None else tee(command.display, observer)
    cluster: DaskCluster = driver.DaskCluster(
        command.arguments.dask, engine_settings, progress=progress
    )
    command.shutdown.add_callback(cluster.cancel)
    return cluster
