"""A TCP relay that counts what passes and breaks connections on purpose."""

from __future__ import annotations

import selectors
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Protocol, Self

from tests.support.faults import Action, Direction, Fault, FaultPlan
from tests.support.relay_link import RelayLink

CONNECT_TIMEOUT = 10  # seconds


class Observer(Protocol):
    """Sees the bytes that pass; called by the relay's thread."""

    def upstream(self, connection: int, passed: bytes) -> bool:
        """Take bytes from the client; return true to reset before the next answer."""


class Relay:
    """Forwards connections from a port of its own to a server.

    One thread does all the work. Every method may be called from any thread.

    Args:
        target: Host and port of the server, "127.0.0.1:5000".
        faults: What goes wrong from the start.
        latency: Milliseconds that every byte is held in each direction.
        rate: Bytes a second that each connection carries in each direction.
        observer: Sees the bytes of the clients.
    """

    def __init__(
        self,
        server: str,
        *,
        faults: Iterable[Fault] = (),
        latency: float = 0,
        rate: int | None = None,
        observer: Observer | None = None,
    ) -> None:
        host, _, port = server.rpartition(":")
        self._server_address = (host.strip("[]"), int(port))
        self.latency = latency / 1000  # seconds
        self.rate = rate
        self.selector: selectors.BaseSelector = selectors.DefaultSelector()
        self._observer = observer
        self._changed = threading.Condition()  # guards all below, and is notified by the thread
        self._fault_plan = FaultPlan(faults)
        self._links: dict[int, RelayLink] = {}
        self._lost_responses: set[int] = set()  # connections whose next answer gets lost
        self._last_number = 0  # connections since the start
        self._connections = 0
        self._bytes: dict[Direction, int] = {"up": 0, "down": 0}
        self._commands: list[Callable[[], None]] = []
        self._closing = False
        # Bound and never listening: it keeps the port while connections are refused.
        self._port_holder = self._bind(0)
        self.port: int = self._port_holder.getsockname()[1]
        self._listener: socket.socket | None = None
        self._wakeup_writer, self._wakeup_reader = socket.socketpair()
        self._wakeup_reader.setblocking(False)
        self.selector.register(self._wakeup_reader, selectors.EVENT_READ)
        self._listen()
        self._thread = threading.Thread(target=self._run, name=f"relay-{self.port}")
        self._thread.start()

    @property
    def host(self) -> str:
        """Host and port, as in an image reference."""
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        """The address for plain http."""
        return f"http://{self.host}"

    @property
    def connections(self) -> int:
        """How many connections were accepted."""
        with self._changed:
            return self._connections

    @property
    def open_connections(self) -> int:
        """How many are open."""
        with self._changed:
            return len(self._links)

    @property
    def bytes_up(self) -> int:
        """Bytes handed to the server."""
        with self._changed:
            return self._bytes["up"]

    @property
    def bytes_down(self) -> int:
        """Bytes handed to the clients."""
        with self._changed:
            return self._bytes["down"]

    @property
    def fired_count(self) -> int:
        """How many faults of the plan have happened."""
        with self._changed:
            return self._fault_plan.fired_count

    def add_fault(self, fault: Fault) -> None:
        """Arm one more fault."""
        with self._changed:
            self._fault_plan.add(fault)

    def clear_faults(self) -> None:
        """Forget all faults and let stalled connections go on."""
        self._run_in_thread(self._clear_faults)

    def stop_accepting(self) -> None:
        """Refuse new connections, on the same port; those that are open go on."""
        self._run_in_thread(self._stop_listening)

    def resume_accepting(self) -> None:
        """Take new connections again."""
        self._run_in_thread(self._listen)

    def break_connections(self, action: Action = "rst") -> None:
        """Break every connection that is open."""
        self._run_in_thread(lambda: self._break_off(action))

    def reset_counters(self) -> None:
        """Count connections and bytes from 0; the plan's counters go on."""
        with self._changed:
            self._connections = 0
            self._bytes = {"up": 0, "down": 0}

    def wait_for(self, condition: Callable[[Relay], bool], timeout: float = 30) -> None:
        """Wait until something about this relay is true; asked after every event.

        Raises:
            TimeoutError: it was not in `timeout` seconds.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: condition(self), timeout):
                raise TimeoutError(f"relay {self.host}: not reached in {timeout} s")

    def close(self) -> None:
        """Reset all connections and end the thread."""
        with self._changed:
            if self._closing:
                return
            self._closing = True
            self._wakeup_writer.send(b"x")
        self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    @staticmethod
    def _bind(port: int) -> socket.socket:
        bound = socket.socket()
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(("127.0.0.1", port))
        bound.setblocking(False)
        return bound

    def _run_in_thread(self, command: Callable[[], None]) -> None:
        """Run a command in the relay's thread and wait for it."""
        done = threading.Event()

        def run() -> None:
            command()
            done.set()

        with self._changed:
            if self._closing:
                raise RuntimeError(f"relay {self.host} is closed")
            self._commands.append(run)
            self._wakeup_writer.send(b"x")
        done.wait(CONNECT_TIMEOUT * 2)

    # From here on everything runs in the relay's thread, under the lock.

    def admit(
        self, number: int, direction: Direction, passed: int, arrived: bytes
    ) -> tuple[int, Action | None]:
        """See `RelayHooks`."""
        if direction == "down" and number in self._lost_responses:
            return 0, "rst"
        allowed, action = self._fault_plan.admit(number, direction, passed, len(arrived))
        if (
            direction == "up"
            and self._observer
            and allowed
            and self._observer.upstream(number, arrived[:allowed])
        ):
            self._lost_responses.add(number)
        return allowed, action

    def sent(self, direction: Direction, size: int) -> None:
        """See `RelayHooks`."""
        self._bytes[direction] += size

    def _listen(self) -> None:
        if self._listener is None:
            self._listener = self._bind(self.port)
            self._listener.listen(128)
            self.selector.register(self._listener, selectors.EVENT_READ)

    def _stop_listening(self) -> None:
        if self._listener is not None:
            self.selector.unregister(self._listener)
            self._listener.close()
            self._listener = None

    def _clear_faults(self) -> None:
        self._fault_plan.clear()
        self._lost_responses.clear()
        for link in self._links.values():
            link.resume()

    def _break_off(self, action: Action) -> None:
        for link in self._links.values():
            link.break_off(action)

    def _run(self) -> None:
        try:
            while True:
                events = self.selector.select(self._until_due())
                with self._changed:
                    if self._closing:
                        break
                    self._process_events(events)
                    self._changed.notify_all()
        finally:
            self._break_off("rst")
            self._stop_listening()
            self.selector.close()
            for opened in (self._port_holder, self._wakeup_writer, self._wakeup_reader):
                opened.close()

    def _process_events(self, events: list[tuple[selectors.SelectorKey, int]]) -> None:
        for key, mask in events:
            if key.fileobj is self._wakeup_reader:
                self._wakeup_reader.recv(4096)
            elif self._listener is not None and key.fileobj is self._listener:
                self._connect(self._listener)
            elif key.data in self._links:
                self._links[key.data].ready(key.fileobj, mask)
        commands, self._commands = self._commands, []
        for command in commands:
            command()
        now = time.monotonic()
        for number, link in list(self._links.items()):
            link.advance(now)
            if link.closed:
                del self._links[number]

    def _connect(self, listener: socket.socket) -> None:
        try:
            client, _ = listener.accept()
        except OSError:  # the client has gone
            return
        self._connections += 1
        self._last_number += 1
        try:
            server = socket.create_connection(self._server_address, timeout=CONNECT_TIMEOUT)
        except OSError:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.close()
            return
        self._links[self._last_number] = RelayLink(self._last_number, client, server, self)

    def _until_due(self) -> float | None:
        """Return the seconds until a link wants to move without an event."""
        due = [link.due for link in self._links.values() if link.due is not None]
        return max(min(due) - time.monotonic(), 0) if due else None
