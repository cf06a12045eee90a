"""Runs a mirror: in this process, in several ones, or as a dry run."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from concil.engine.components import EngineComponents
from concil.engine.copies.lane_mirror import LaneMirror
from concil.engine.processes.process_settings import (
    ProcessSettings,
    check_destination,
    divide_config,
)
from concil.runtime.cancellation import SupportsIsSet, call_scope
from concil.transfer.image.dry_run import DryRun
from concil.transfer.mirror.mirror import Mirror, MirrorOptions
from concil.transfer.mirror.report import MirrorItem, MirrorReport

if TYPE_CHECKING:
    from concil.engine.processes.process_mirror import ProcessMirror


def run_mirror(
    components: EngineComponents,
    items: Iterable[MirrorItem],
    options: MirrorOptions,
    cancel: SupportsIsSet | None,
    processes: int,
) -> MirrorReport:
    """Copy images.

    Args:
        processes: their number, unless there are fewer images.
    """
    with call_scope(cancel) as scope:
        if processes > 1:
            iterator = iter(items)
            first_items = list(itertools.islice(iterator, processes))
            items = itertools.chain(first_items, iterator)
            for item in first_items:
                check_destination(item)
            if len(first_items) > 1:
                mirror = _create_process_mirror(components, len(first_items), options)
                return mirror.run(iter(items))
        return LaneMirror(components, options, scope).run(items)


def plan_mirror(
    components: EngineComponents,
    items: Iterable[MirrorItem],
    options: MirrorOptions,
    cancel: SupportsIsSet | None,
) -> MirrorReport:
    """Plan the copies of images, for a dry run."""
    context = components.transfer_context
    with components.archive_call(cancel) as archives:
        mirror = Mirror(
            DryRun(components.pool),
            components.image_resolver.resolve_dry_run,
            context.cancel,
            replace(options, pending_destinations=archives),
        )
        coordinators = context.config.concurrent_images if context.config.workers else 1
        return mirror.run(_split(items), coordinators)


def _split(items: Iterable[MirrorItem]) -> Iterator[MirrorItem]:
    for item in items:
        yield from item.split()


def _create_process_mirror(
    components: EngineComponents, count: int, options: MirrorOptions
) -> ProcessMirror:
    from concil.engine.processes.process_mirror import ProcessMirror  # noqa: PLC0415  # rare
    from concil.engine.processes.services import Services  # noqa: PLC0415

    context, factory = components.transfer_context, components.store_factory
    settings = [
        ProcessSettings(
            f"process {index + 1}",
            divide_config(context.config, count, index),
            components.endpoints,
            components.timeouts,
            context.journal.path if context.journal.is_usable else None,
            logging.getLogger("concil").getEffectiveLevel(),
            components.progress is not None,
        )
        for index in range(count)
    ]
    services = Services(
        factory.host_limiters, context.bandwidth, components.denied_hosts, factory.warnings
    )
    return ProcessMirror(settings, services, context.cancel, options, components.progress)
