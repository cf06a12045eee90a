"""Copies one image to several destinations at the same time, reading its source once."""

from __future__ import annotations

from collections.abc import Sequence

from concil.engine.components import EngineComponents
from concil.engine.copies.lane_mirror import LaneMirror
from concil.errors import Cancelled, ConcilError
from concil.runtime.cancellation import CancelScope
from concil.transfer.mirror.mirror import MirrorOptions
from concil.transfer.mirror.report import MirrorItem, Outcome, combine


def copy_to_several(
    components: EngineComponents, items: Sequence[MirrorItem], scope: CancelScope
) -> tuple[Outcome, ...]:
    """Copy items with one source, all different, in the scope of a call.

    Returns:
        An outcome for each item, in their order.
    Raises:
        UsageError: the directory of the spool does not exist.
        Cancelled: the call was cancelled.
    """
    outcomes: dict[MirrorItem, Outcome] = {}

    def record(outcome: Outcome) -> None:
        outcomes[outcome.item] = outcome

    mirror = LaneMirror(components, MirrorOptions(record, keep_outcomes=False), scope)
    try:
        mirror.run([combine(items)])
    except Cancelled:
        raise
    except ConcilError:  # an archive could not be completed
        if not all(item in outcomes for item in items):
            raise
    return tuple(outcomes[item] for item in items)
