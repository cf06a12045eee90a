"""The life of an engine: its creation, its end, and the forks of its process."""

from __future__ import annotations

import os
import sys
import warnings
from types import TracebackType
from typing import NoReturn, Self

from concil.config import Timeouts, TransferConfig
from concil.engine.components import EngineComponents
from concil.engine.image_resolver import Endpoints
from concil.progress.events import ProgressSink
from concil.progress.request_observer import RequestObserver
from concil.runtime import arguments
from concil.runtime.forking import register_after_fork
from concil.transfer.journal import Journal

GRACE_PERIOD = 10.0  # seconds for chunks in flight after an error
ABANDON_GRACE_PERIOD = 2.0  # seconds for threads to notice that they are abandoned


class EngineLifecycle:
    """An engine without operations. Use `Engine`, which has them."""

    def __init__(  # noqa: PLR0913 - each an option of its own
        self,
        config: TransferConfig | None = None,
        *,
        progress: ProgressSink | None = None,
        endpoints: Endpoints | None = None,
        timeouts: Timeouts | None = None,
        journal: Journal | None = None,
        observer: RequestObserver | None = None,
    ) -> None:
        """Create the engine without opening connections.

        Args:
            progress: called with an `Event` for every change, from any thread.
            endpoints: TLS settings and credentials; those in an address take precedence.
            journal: makes interrupted transfers resumable in another process; None: the
                user's default journal. ``Journal(None)`` records nothing. The caller closes
                a journal that is passed in.
            observer: receives each request, from any thread, for metrics and traces.
        """
        arguments.check_callable("progress", progress)
        arguments.check_optional(config=(config, TransferConfig), endpoints=(endpoints, Endpoints))
        arguments.check_optional(timeouts=(timeouts, Timeouts), journal=(journal, Journal))
        self.config = config or TransferConfig()
        self._closed = True  # until it is fully created
        self._progress = progress
        self._endpoints = endpoints or Endpoints()
        self._timeouts = timeouts
        self._observer = observer
        self._owns_journal = journal is None
        self._journal = journal or Journal(Journal.default_path())
        self._create_components()
        self._owner_pid = os.getpid()
        self._closed = False
        register_after_fork(self, EngineLifecycle._after_fork)

    def _create_components(self) -> None:
        """Create the objects that calls share, without threads or connections."""
        self._components = EngineComponents.create(
            self.config,
            self._journal,
            self._endpoints,
            self._timeouts,
            self._progress,
            observer=self._observer,
        )

    def _after_fork(self) -> None:
        """Create new components in a forked child, which cannot use the parent's."""
        parent = self._components
        is_cancelled = parent.transfer_context.cancel.is_set()
        parent.abandon_after_fork()
        if self._closed:
            return
        self._create_components()
        self._components.copier.deduplicator.starter = parent.copier.deduplicator.starter
        if is_cancelled:
            self.cancel()

    def __reduce__(self) -> NoReturn:
        """Raise TypeError: threads and connections cannot be pickled."""
        raise TypeError("an Engine cannot be pickled: create one in the process that uses it")

    def __del__(self) -> None:
        """Stop the workers of an unclosed engine, with a ResourceWarning."""
        if getattr(self, "_closed", True):
            return
        # Otherwise it may have been created for use in another process.
        if self._owner_pid == os.getpid():
            warnings.warn(f"unclosed {self!r}", ResourceWarning, stacklevel=2, source=self)
        if not sys.is_finalizing():  # else the threads have ended while holding locks
            self._components.stop_workers()
            self._components.close_resources(close_journal=self._owns_journal)

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the engine; after an error cancel queued jobs, and wait only briefly."""
        if error is not None:
            self.cancel()
        self.close(None if error is None else GRACE_PERIOD)

    def cancel(self) -> None:
        """Cancel all calls, which raise Cancelled; chunks in flight may finish until `close`."""
        self._components.transfer_context.cancel.set()

    def close(self, timeout: float | None = None) -> bool:
        """Stop the workers and close the connections, and the journal unless it was passed in.

        Args:
            timeout: seconds to wait for running jobs to finish; None: without limit.
        Returns:
            Whether all workers have ended.
        """
        self._closed = True
        has_ended = self._components.pool.close(timeout)
        if not has_ended:
            self._components.transfer_context.abandon.set()
            has_ended = self._components.pool.close(ABANDON_GRACE_PERIOD)
        self._components.close_resources(close_journal=self._owns_journal)
        return has_ended
