"""Clients that connect, send no whole header, and come back when they are cut off."""

from __future__ import annotations

import contextlib
import resource
import selectors
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self

TIMEOUT = 30  # seconds


class Crowd:
    """Keeps so many half-open connections; `seen` counts all that there were."""

    def __init__(self, host: str, size: int, sent: bytes = b"") -> None:
        name, _, port = host.rpartition(":")
        self._address = (name, int(port))
        self._size = size
        self._sent = sent
        self.seen = 0
        self.complete = threading.Event()  # all of them were connected once
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._keep)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._over.set()
        self._thread.join()

    def _keep(self) -> None:
        with selectors.DefaultSelector() as selector, contextlib.ExitStack() as stack:
            stack.callback(lambda: [key.data.close() for key in _keys(selector)])
            for _ in range(self._size):
                self._connect(selector)
            self.complete.set()
            while not self._over.is_set():
                for key, _ in selector.select(0.05):
                    selector.unregister(key.fileobj)
                    key.data.close()
                    self._connect(selector)

    def _connect(self, selector: selectors.BaseSelector) -> None:
        with contextlib.suppress(OSError):  # the registry may have been closed
            connection = socket.create_connection(self._address, TIMEOUT)
            selector.register(connection, selectors.EVENT_READ, connection)
            self.seen += 1
            connection.sendall(self._sent)


def _keys(selector: selectors.BaseSelector) -> list[selectors.SelectorKey]:
    return list((selector.get_map() or {}).values())


@contextmanager
def many_descriptors(count: int) -> Iterator[None]:
    """Let this process open so many files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, count), max(hard, count)))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
