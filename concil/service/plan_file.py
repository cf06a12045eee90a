"""The plan of a service: read again when its file has changed; a broken one is not used."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

from concil.errors import ConcilError, safe_repr
from concil.plan.loader import load_plan
from concil.plan.rule import ParsedPlan

logger = logging.getLogger(__name__)

_Signature = tuple[int, ...] | None  # None: the file is gone


class PlanFile:
    """A plan in a file. One thread at a time."""

    def __init__(self, path: str, check: Callable[[ParsedPlan], object]) -> None:
        """Read the plan.

        Args:
            check: raises if the plan cannot be used.
        Raises:
            ConcilError: it is missing or invalid.
        """
        self._path = path
        self._check = check
        self._signature = self._stat()
        self.problem = ""  # why the file cannot be used as it is now
        self.plan = self._load()

    def reload(self, *, is_forced: bool = False) -> bool:
        """Read the file again if it has changed; return whether there is a new plan.

        A missing or invalid plan is logged once for each change, and the last good one stays.
        """
        signature = self._stat()
        if signature == self._signature and not is_forced:
            return False
        self._signature = signature
        try:
            plan = self._load()
        except ConcilError as error:
            self.problem = str(error)
            logger.error(  # noqa: TRY400 - one line
                "the plan cannot be used, and the last good one goes on: %s", error
            )
            return False
        self.problem = ""
        if plan == self.plan:
            return False
        self.plan = plan
        logger.warning("%s has changed and was read again", safe_repr(self._path))
        return True

    def _load(self) -> ParsedPlan:
        plan = load_plan(self._path)
        self._check(plan)
        return plan

    def _stat(self) -> _Signature:
        try:
            status = Path(self._path).stat()
        except OSError:
            return None
        return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns
