"""The parent process of a run that is split over several processes, as its children see it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Protocol


class ParentProcess(Protocol):
    """What all processes of a run share is kept by the parent. Any thread may call any method.

    Arguments and results are pickled.
    """

    def call(self, method: str, *arguments: Any) -> Any:  # noqa: ANN401 - as the method returns
        """Call a method of the parent, and return its result or raise its exception."""
        ...

    def post(self, method: str, *arguments: Any) -> None:  # noqa: ANN401 - as the method takes
        """Call a method of the parent without waiting for its result."""
        ...

    def subscribe(self, event: str, handler: Callable[..., object]) -> None:
        """Call ``handler`` with the arguments of each event of the parent; it must not block."""
        ...

    def slot(
        self, name: str, limit: int, cancel: threading.Event
    ) -> AbstractContextManager[object]:
        """Return a context manager that at most ``limit`` threads of all processes are in.

        Raises, on entry:
            Cancelled: ``cancel`` was set.
        """
        ...
