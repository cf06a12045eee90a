"""Delivers notifications one after the other, in a thread that nobody has to wait for."""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from functools import partial

from concil import retry
from concil.config import RetryPolicy
from concil.errors import Cancelled, ConcilError
from concil.notify.channels import kill_command, load_secret, post_webhook, run_command
from concil.notify.notification import Notification
from concil.plan.notify_settings import NotifySettings
from concil.runtime.dataclass import dataclass
from concil.runtime.limits import start_thread

logger = logging.getLogger(__name__)

MAX_WAITING = 100  # notifications; of further ones a line is logged
_POLICY = RetryPolicy(max_attempts=4, backoff_base=1.0, max_backoff=8.0)


@dataclass(frozen=True, slots=True)
class _Task:
    notification: Notification
    settings: NotifySettings
    on_end: Callable[[bool], object]  # called with whether it was delivered


class Delivery:
    """A queue of notifications, and the thread that delivers them. Any thread may call it.

    Each attempt has the timeout of its settings. After the last one a line is logged.
    """

    def __init__(
        self, environment: Mapping[str, str] | None = None, policy: RetryPolicy = _POLICY
    ) -> None:
        """Start no thread before there is a notification.

        Args:
            environment: has the secrets; None: that of the process.
        """
        self._environment = os.environ if environment is None else environment
        self._policy = policy
        self._queue: queue.Queue[_Task | None] = queue.Queue(MAX_WAITING)
        self._cancel = threading.Event()
        self._thread: threading.Thread | None = None
        self._process: subprocess.Popen[bytes] | None = None  # the command that was run last
        self._lock = threading.Lock()  # guards _thread

    def submit(
        self,
        notification: Notification,
        settings: NotifySettings,
        on_end: Callable[[bool], object],
    ) -> None:
        """Deliver a notification soon; call ``on_end`` with whether it was delivered."""
        if not self._start():
            on_end(False)  # noqa: FBT003 - the one argument of the callback
            return
        try:
            self._queue.put_nowait(_Task(notification, settings, on_end))
        except queue.Full:
            logger.warning(
                "too many notifications wait: this one is left out: %s", notification.text
            )
            on_end(False)  # noqa: FBT003 - the one argument of the callback

    def _start(self) -> bool:
        """Start the thread, unless it runs; return False if the system has none to spare."""
        with self._lock:
            if self._thread is None:
                thread = threading.Thread(target=self._run, name="concil-notify", daemon=True)
                if start_thread(thread, "a notification is left out"):
                    self._thread = thread
            return self._thread is not None

    def close(self, timeout: float) -> None:
        """Deliver what waits, for at most ``timeout`` seconds; a line says what is left."""
        if self._thread is None:
            return
        deadline = time.monotonic() + timeout
        with contextlib.suppress(queue.Full):
            self._queue.put(None, timeout=timeout)
        self._thread.join(max(0.0, deadline - time.monotonic()))
        self._cancel.set()
        if self._thread.is_alive():
            logger.warning("notifications were not delivered before the end")
            if self._process is not None:
                kill_command(self._process)

    def _run(self) -> None:
        while not self._cancel.is_set():
            task = self._queue.get()
            if task is None:
                return
            task.on_end(self._deliver(task.notification, task.settings))

    def _deliver(self, notification: Notification, settings: NotifySettings) -> bool:
        """Deliver a notification to the webhook and the command; return whether one has it."""
        body = notification.to_json()
        channels: list[Callable[[], None]] = []
        try:
            if settings.webhook is not None:
                secret = load_secret(settings, self._environment)
                channels.append(partial(post_webhook, settings, notification, body, secret))
        except ConcilError as error:
            logger.warning("%s", error)
        if settings.command:
            channels.append(partial(run_command, settings, body, self._set_process))
        accepted = [self._attempt(channel, notification) for channel in channels]
        return any(accepted)

    def _set_process(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process

    def _attempt(self, send: Callable[[], None], notification: Notification) -> bool:
        """Send a notification, several times if need be; return whether it was accepted."""
        try:
            for attempt in retry.attempts(self._policy, self._cancel, lambda: notification.event):
                with attempt:
                    send()
                    return True
        except Cancelled:
            pass  # `close` says so
        except ConcilError as error:
            logger.warning("%s; not notified: %s", error, notification.text)
        except Exception:  # an error here must neither end the thread nor the mirror
            logger.exception("a notification was not delivered")
        return False
