"""Mirrors many images with several processes: hands out images, and collects the outcomes."""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial

from concil.engine.processes.child_process import ChildProcess, Request, Task
from concil.engine.processes.process_settings import ProcessSettings, check_destination
from concil.engine.processes.services import Services
from concil.errors import Cancelled, ConcilError, ConnectionLost, LimitReached
from concil.oci.address import parse_address
from concil.progress.batcher import emit_batch
from concil.progress.events import Event, ProgressSink, State, emit
from concil.runtime.cancellation import CancelScope, current_scope
from concil.runtime.redaction import without_user
from concil.transfer.mirror.mirror import MirrorOptions
from concil.transfer.mirror.report import MirrorItem, MirrorReport, Outcome

logger = logging.getLogger(__name__)

GRACE_PERIOD = 9.0  # seconds for the chunks in flight of a process, and its end
_POLL_INTERVAL = 0.1  # seconds between checks for cancellation
_END_TIMEOUT = 5.0  # seconds for a process to end that has said that it is done
_START_TIMEOUT = 10.0  # seconds for which processes that have started wait for the others
_MAX_DEATHS = 2  # processes that end while they copy an image, until the image fails


class ProcessMirror:
    """Runs the processes of one mirror. One thread calls `run`; others only listen."""

    def __init__(
        self,
        settings: Sequence[ProcessSettings],
        services: Services,
        cancel: threading.Event,
        options: MirrorOptions,
        progress: ProgressSink | None,
    ) -> None:
        """Prepare one process for each of ``settings``."""
        self._settings = settings
        self._services = services
        self._cancel = cancel
        self._options = options
        self._progress = progress
        self._scope = current_scope()
        self._events: queue.SimpleQueue[Callable[[], object]] = queue.SimpleQueue()
        self._children: dict[ChildProcess, ProcessSettings] = {}
        self._items: Iterator[MirrorItem] = iter(())
        self._has_items = True  # the iterator has not ended
        self._is_stopped = False  # no further image is started
        self._is_ending = False  # all processes are ended
        self._early: list[Request] = []  # for images, while other processes start
        self._start_deadline = 0.0  # monotonic seconds
        self._interrupted: deque[Task] = deque()  # images of processes that have died
        self._count = 0  # images that were started
        self._report = MirrorReport()

    def run(self, items: Iterator[MirrorItem]) -> MirrorReport:
        """Copy every item. As `Mirror.run`.

        Raises:
            Cancelled: the run was cancelled; finished copies are kept.
            LimitReached: no process can be started.
        """
        self._items = items
        try:
            for settings in self._settings:
                if not self._start(settings):
                    break
            self._start_deadline = time.monotonic() + _START_TIMEOUT
            self._serve()
        except BaseException:
            self._options = replace(self._options, on_outcome=None)  # it may be what failed
            raise
        finally:
            self._end()
        if self._cancel.is_set():
            raise Cancelled("cancelled; run the mirror again to resume")
        if self._interrupted or self._may_continue:
            raise LimitReached(
                "the processes of the mirror cannot be started",
                remedy="use fewer processes, or check the memory of this machine",
            )
        return self._report

    # Processes ---------------------------------------------------------------------

    def _start(self, settings: ProcessSettings) -> bool:
        """Start a process; return False, with a warning, if that is not possible but others run."""
        try:
            child = ChildProcess.start(settings)
        except OSError as error:
            if not self._children:
                raise
            logger.warning(
                "cannot start another process (%s): continuing with %d", error, len(self._children)
            )
            return False
        self._children[child] = settings
        self._services.add(child)
        child.listener = threading.Thread(
            target=self._listen, args=(child, self._scope), name=f"concil-{child.name}", daemon=True
        )
        child.listener.start()
        return True

    def _listen(self, child: ChildProcess, scope: CancelScope | None) -> None:
        with contextlib.nullcontext() if scope is None else scope.activate():
            child.listen(self._handle)
        # At once, because the main thread may be waiting for a list of tags.
        self._services.remove(child)
        self._events.put(partial(self._end_child, child))

    def _handle(self, request: Request) -> None:
        """Handle a call of a process, in its listener; what concerns images in the main thread."""
        if request.method == "progress":
            emit_batch(self._progress, *request.arguments)
        elif request.method in ("next", "outcome", "fail", "done"):
            self._events.put(partial(getattr(self, f"_on_{request.method}"), request))
        else:
            self._services.handle(request.child, request)

    def _end_child(self, child: ChildProcess) -> None:
        """Start the images of a process again that has not ended in an orderly way."""
        settings = self._children.pop(child)
        ending = child.wait(_END_TIMEOUT)
        child.channel.close()
        tasks = list(child.tasks.values())
        if child.is_done or self._cancel.is_set():
            return
        logger.warning(
            "%s has ended with %s; its images are started again: %d", child.name, ending, len(tasks)
        )
        for task in tasks:
            task.deaths += 1
            if task.deaths < _MAX_DEATHS:
                self._interrupted.append(task)
            else:
                self._fail_task(task, ending)
        if child.is_ready and (self._interrupted or self._may_continue):
            self._start(settings)

    def _fail_task(self, task: Task, ending: str) -> None:
        source, destination = map(_display_name, (task.item.source, task.item.destination))
        error = ConnectionLost(
            f"{source}: the process that copied it has ended {task.deaths} times, with {ending}",
            remedy="check the memory of this machine and the log of its kernel, or use one process",
        )
        event = Event("image", source, destination, State.FAILED, 0, None, str(error))
        emit(self._progress, event)
        self._record(Outcome(task.item, error=error))

    # Images ------------------------------------------------------------------------

    def _serve(self) -> None:
        """Handle events until all processes have ended, or the run is cancelled."""
        while self._children and not self._cancel.is_set():
            with contextlib.suppress(queue.Empty):
                self._events.get(timeout=_POLL_INTERVAL)()
            self._answer_early()

    @property
    def _may_continue(self) -> bool:
        return self._has_items and not self._is_stopped and not self._cancel.is_set()

    def _on_next(self, request: Request) -> None:
        """Answer with the next image, once all processes are ready for one.

        Otherwise the first process would take as many as it copies at a time.
        """
        request.child.is_ready = True
        self._early.append(request)
        self._answer_early()

    def _answer_early(self) -> None:
        is_late = self._is_ending or time.monotonic() > self._start_deadline
        if is_late or all(child.is_ready for child in self._children):
            while self._early:
                self._answer(self._early.pop(0))

    def _answer(self, request: Request) -> None:
        """Answer with the next image; None: there is none, or the run is stopped."""
        child, task = request.child, None
        try:
            if not (self._is_ending or self._is_stopped or self._cancel.is_set()):
                task = self._next_task()
        finally:
            if task is not None:
                child.tasks[task.number] = task
            request.reply(task and (task.number, task.item))

    def _next_task(self) -> Task | None:
        if self._interrupted:
            return self._interrupted.popleft()
        item = next(self._items, None)
        if item is None:
            self._has_items = False
            return None
        check_destination(item)
        self._count += 1
        return Task(self._count, item)

    def _on_outcome(self, request: Request) -> None:
        number, result, error = request.arguments
        # Its item is a copy: callers expect the object that they have given.
        self._record(Outcome(request.child.tasks.pop(number).item, result, error))

    def _record(self, outcome: Outcome) -> None:
        options = self._options
        self._report.add(outcome, keep_outcome=options.keep_outcomes)
        if options.fail_fast and outcome.error is not None:
            self._is_stopped = True
            self._interrupted.clear()
        if options.on_outcome is not None:
            options.on_outcome(outcome)

    def _on_fail(self, request: Request) -> None:
        raise request.arguments[0]

    def _on_done(self, request: Request) -> None:
        request.child.is_done = True
        request.child.channel.finish_sending()

    # The end -----------------------------------------------------------------------

    def _end(self) -> None:
        """Let processes that still run finish their chunks in flight, then kill them."""
        self._is_ending = True
        try:
            for child in self._children:
                child.notify("cancel")
            self._answer_early()
            deadline = time.monotonic() + GRACE_PERIOD
            while self._children and time.monotonic() < deadline:
                with contextlib.suppress(queue.Empty):
                    self._handle_at_end(self._events.get(timeout=_POLL_INTERVAL))
        finally:
            for child in list(self._children):
                child.popen.kill()
                child.wait(_END_TIMEOUT)
                if child.listener is not None:
                    child.listener.join(_END_TIMEOUT)
                child.channel.close()
            self._services.close()

    def _handle_at_end(self, handler: Callable[[], object]) -> None:
        """Handle an event; the first error of the run is the one that is raised."""
        try:
            handler()
        except Exception as error:  # noqa: BLE001 - another one is being raised
            logger.debug("after the end of the mirror: %s", error)


def _display_name(address: str) -> str:
    """Return the name of an image in progress events."""
    try:
        return str(parse_address(address))
    except ConcilError:
        return without_user(address)
