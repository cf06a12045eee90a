"""One child process of a mirror, as its parent sees it."""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import field
from typing import Any

from concil.engine.processes.channel import Channel
from concil.engine.processes.process_settings import ProcessSettings
from concil.errors import UsageError
from concil.runtime.dataclass import dataclass
from concil.runtime.forking import close_socket_in_child
from concil.transfer.mirror.report import MirrorItem

# What a terminal or a service manager sends to all processes of a group: the parent decides.
SIGNALS = frozenset({signal.SIGINT, signal.SIGTERM, signal.SIGHUP})


@dataclass(slots=True)
class Task:
    """One image that is to be copied."""

    number: int
    item: MirrorItem
    deaths: int = 0  # processes that have ended while they copied it


@dataclass(frozen=True, slots=True)
class Request:
    """A call of a child process."""

    child: ChildProcess
    number: int | None  # None if no answer is expected
    method: str
    arguments: tuple[Any, ...]

    def reply(self, result: object = None) -> None:
        """Answer with a result."""
        if self.number is not None:
            self.child.notify("reply", self.number, result, None)

    def fail(self, error: Exception) -> None:
        """Answer with an exception."""
        if self.number is not None:
            self.child.notify("reply", self.number, None, error)


@dataclass(eq=False)
class ChildProcess:
    """A process that copies images. Any thread may send; `listen` runs in a thread of its own."""

    name: str
    popen: subprocess.Popen[bytes]
    channel: Channel
    tasks: dict[int, Task] = field(default_factory=dict)  # images that it copies
    is_ready: bool = False  # it has asked for an image
    is_done: bool = False  # it has ended in an orderly way
    listener: threading.Thread | None = None

    @classmethod
    def start(cls, settings: ProcessSettings) -> ChildProcess:
        """Start a process.

        It is a new interpreter: a fork would copy the locks of other threads. The settings are
        sent to it, because other users can read its arguments.

        Raises:
            OSError: the system has no room for another process.
        """
        if not sys.executable:
            raise UsageError(
                "this program does not know the Python interpreter that runs it",
                remedy="use one process",
            )
        parent_end, child_end = socket.socketpair()
        close_socket_in_child(parent_end)
        try:
            with child_end, _blocked_signals():
                popen = subprocess.Popen(  # noqa: S603 - this interpreter
                    _command(child_end.fileno()),
                    pass_fds=(child_end.fileno(),),
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                )
        except BaseException:
            parent_end.close()
            raise
        child = cls(settings.name, popen, Channel(parent_end))
        child.notify("start", settings)
        return child

    def notify(self, event: str, *arguments: Any) -> None:  # noqa: ANN401 - as the event has
        """Send an event; nothing happens if the process has ended."""
        with contextlib.suppress(OSError):
            self.channel.send((event, arguments))

    def listen(self, handle: Callable[[Request], object]) -> None:
        """Call ``handle`` with each call of the process until it ends."""
        with contextlib.suppress(EOFError):
            while True:
                for number, method, arguments in self.channel.receive():
                    handle(Request(self, number, method, arguments))

    def wait(self, timeout: float) -> str:
        """Wait for the end of the process, which is killed after ``timeout`` seconds.

        Returns:
            How it ended, for a message.
        """
        try:
            code = self.popen.wait(timeout)
        except subprocess.TimeoutExpired:
            self.popen.kill()
            code = self.popen.wait()
        return f"signal {-code}" if code < 0 else f"exit code {code}"


def _command(descriptor: int) -> list[str]:
    """Return the command of a process that finds the same modules as this one."""
    code = (
        f"import sys; sys.path[:] = {sys.path!r}\n"
        "from concil.runtime.charset_detection import defer_charset_detection\n"
        "with defer_charset_detection():\n"
        "    from concil.engine.processes.process_worker import main\n"
        f"main({descriptor})"
    )
    flags = {"isolated": "-I", "ignore_environment": "-E", "no_user_site": "-s", "optimize": "-O"}
    options = [option for name, option in flags.items() if getattr(sys.flags, name)]
    for name, value in sys._xoptions.items():  # noqa: SLF001 - documented
        options += ["-X", name if value is True else f"{name}={value}"]
    options += [f"-W{warning}" for warning in sys.warnoptions]
    return [sys.executable, *options, "-c", code]


@contextlib.contextmanager
def _blocked_signals() -> Iterator[None]:
    """Let a new process begin with blocked signals; it unblocks them when it handles them."""
    previous = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, previous)
