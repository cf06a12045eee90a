"""The connection of a child process to its parent."""

from __future__ import annotations

import contextlib
import itertools
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any, TypeAlias

from concil.engine.processes.channel import Channel
from concil.errors import Cancelled
from concil.transfer.worker_pool import wait_for

# Number of the request, None if no answer is expected; method; arguments.
Message: TypeAlias = tuple[int | None, str, tuple[Any, ...]]

_POST_DELAY = 0.01  # seconds for which a message waits for others


class ParentLink:
    """Calls the parent process. Any thread may call any method but `listen`.

    Messages that expect no answer are sent together with others: each time that a thread sends
    something, it waits for the interpreter lock again.
    """

    def __init__(self, channel: Channel) -> None:
        """Use ``channel``."""
        self._channel = channel
        self._numbers = itertools.count()
        self._lock = threading.Lock()  # guards the fields below
        self._calls: dict[int, Future[Any]] = {}
        self._handlers: dict[str, Callable[..., object]] = {"reply": self._reply}
        self._unhandled: defaultdict[str, list[tuple[Any, ...]]] = defaultdict(list)
        self._posted: deque[Message] = deque()
        self._send_lock = threading.Lock()  # keeps the order of messages
        self._has_posted = threading.Event()
        threading.Thread(target=self._send_posted, name="concil-posts", daemon=True).start()

    def call(self, method: str, *arguments: Any) -> Any:  # noqa: ANN401 - as the method returns
        """Call a method of the parent, and return its result or raise its exception."""
        return self._request(method, *arguments)[1].result()

    def post(self, method: str, *arguments: Any) -> None:  # noqa: ANN401 - as the method takes
        """Call a method of the parent without waiting for its result."""
        self._posted.append((None, method, arguments))
        if not self._has_posted.is_set():
            self._has_posted.set()

    def flush(self) -> None:
        """Send everything that was posted."""
        self._send()

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
        self._send((number, method, arguments))
        return number, future

    def _send(self, *messages: Message) -> None:
        """Send what was posted, and then ``messages``."""
        with self._send_lock:
            batch: list[Message] = []
            with contextlib.suppress(IndexError):
                while True:
                    batch.append(self._posted.popleft())
            batch += messages
            if not batch:
                return
            try:
                self._channel.send(batch)
            except OSError as error:  # `listen` is about to end this process
                raise Cancelled("the process that has started this one has ended") from error

    def _send_posted(self) -> None:
        with contextlib.suppress(Cancelled):
            while True:
                self._has_posted.wait()
                time.sleep(_POST_DELAY)
                self._has_posted.clear()
                self._send()

    def _reply(self, number: int, result: object, error: Exception | None) -> None:
        with self._lock:
            future = self._calls.pop(number)
        if error is None:
            future.set_result(result)
        else:
            future.set_exception(error)
