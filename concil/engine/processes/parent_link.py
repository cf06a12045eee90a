"""The connection of a child process to its parent."""

from __future__ import annotations

import contextlib
import itertools
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any

from concil.engine.processes.channel import Channel
from concil.errors import Cancelled
from concil.transfer.worker_pool import wait_for


class ParentLink:
    """Calls the parent process. Any thread may call any method but `listen`."""

    def __init__(self, channel: Channel) -> None:
        """Use ``channel``."""
        self._channel = channel
        self._numbers = itertools.count()
        self._lock = threading.Lock()  # guards the fields below
        self._calls: dict[int, Future[Any]] = {}
        self._handlers: dict[str, Callable[..., object]] = {"reply": self._reply}
        self._unhandled: defaultdict[str, list[tuple[Any, ...]]] = defaultdict(list)

    def call(self, method: str, *arguments: Any) -> Any:  # noqa: ANN401 - as the method returns
        """Call a method of the parent, and return its result or raise its exception."""
        return self._request(method, *arguments)[1].result()

    def post(self, method: str, *arguments: Any) -> None:  # noqa: ANN401 - as the method takes
        """Call a method of the parent without waiting for its result."""
        self._send(None, method, arguments)

    def subscribe(self, event: str, handler: Callable[..., object]) -> None:
        """Call ``handler`` with the arguments of each event, also of those that came before."""
        with self._lock:
            self._handlers[event] = handler
            for arguments in self._unhandled.pop(event, ()):
                handler(*arguments)

    @contextlib.contextmanager
    def slot(self, name: str, limit: int, cancel: threading.Event) -> Iterator[None]:
        """Run a block that at most ``limit`` threads of all processes are in."""
        number, acquired = self._request("acquire", name, limit)
        try:
            wait_for(acquired, cancel)
            yield
        finally:
            self.post("release_slot", name, number)

    def listen(self) -> None:
        """Handle the events of the parent until it sends no more, or has ended."""
        with contextlib.suppress(EOFError):
            while True:
                event, arguments = self._channel.receive()
                with self._lock:
                    handler = self._handlers.get(event)
                    if handler is None:
                        self._unhandled[event].append(arguments)
                if handler is not None:
                    handler(*arguments)

    def _request(self, method: str, *arguments: Any) -> tuple[int, Future[Any]]:  # noqa: ANN401
        number, future = next(self._numbers), Future[Any]()
        with self._lock:
            self._calls[number] = future
        self._send(number, method, arguments)
        return number, future

    def _send(self, number: int | None, method: str, arguments: tuple[Any, ...]) -> None:
        try:
            self._channel.send((number, method, arguments))
        except OSError as error:  # `listen` is about to end this process
            raise Cancelled("the process that has started this one has ended") from error

    def _reply(self, number: int, result: object, error: Exception | None) -> None:
        with self._lock:
            future = self._calls.pop(number)
        if error is None:
            future.set_result(result)
        else:
            future.set_exception(error)
