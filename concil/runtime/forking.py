"""Closes and renews resources in a forked child.

A fork copies memory and open files, but only the thread that forks. A lock held by another
thread therefore stays locked in the child for ever, both processes would read from the same
connections, and a file lock would outlive the parent. Objects with such resources register here.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import threading
import weakref
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol, TypeVar

logger = logging.getLogger(__name__)

Owner = TypeVar("Owner")


class SupportsForkHooks(Protocol):
    """An object that must not be in use during a fork."""

    def before_fork(self) -> None:
        """Release what must not be copied, and block all threads."""
        ...

    def after_fork_in_parent(self) -> None:
        """Unblock the threads; called in the parent."""
        ...

    def after_fork(self) -> None:
        """Drop the parent's resources; called in the child."""
        ...


_after_fork_callbacks: weakref.WeakKeyDictionary[Any, Callable[[Any], None]] = (
    weakref.WeakKeyDictionary()
)
_hooked_instances: weakref.WeakSet[SupportsForkHooks] = weakref.WeakSet()
_instances_before_fork: list[SupportsForkHooks] = []
_fork_lock = threading.Lock()  # held by the forking thread; another fork waits
_sockets: weakref.WeakSet[socket.socket] = weakref.WeakSet()
# Device and inode by descriptor: a descriptor that was reused for another file is skipped.
_identity_by_fd: dict[int, tuple[int, int]] = {}


def register_after_fork(instance: Owner, func: Callable[[Owner], None]) -> None:
    """Call ``func(instance)`` in each forked child while ``instance`` exists.

    Args:
        func: an unbound method: a bound one would keep the object alive.
    """
    _after_fork_callbacks[instance] = func


def register_fork_hooks(instance: SupportsForkHooks) -> None:
    """Call ``before_fork`` before each fork, then ``after_fork_in_parent`` or ``after_fork``.

    During a fork by another thread it waits for the end of that fork.
    """
    with _fork_lock:
        _hooked_instances.add(instance)


def close_socket_in_child(sock: socket.socket) -> None:
    """Close a forked child's copy of a socket; the parent's connection is not affected.

    Otherwise the peer would not notice that the parent has closed the connection.
    """
    _sockets.add(sock)


def detach_file_in_child(fd: int) -> None:
    """Replace a forked child's copy of an open file or pipe by ``/dev/null``.

    Its lock then ends with the parent, and data buffered in the child is not written to the
    file. The descriptor stays in use, so closing it later does not close another file.
    """
    with contextlib.suppress(OSError):
        status = os.fstat(fd)
        _identity_by_fd[fd] = status.st_dev, status.st_ino


def _detach_files() -> None:
    files = dict(_identity_by_fd)
    _identity_by_fd.clear()
    with contextlib.suppress(OSError):
        null_fd = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        for descriptor, identity in files.items():
            with contextlib.suppress(OSError):
                status = os.fstat(descriptor)
                if (status.st_dev, status.st_ino) == identity:
                    os.dup2(null_fd, descriptor, inheritable=False)
        os.close(null_fd)


def _close_sockets() -> None:
    sockets = list(_sockets)
    _sockets.clear()
    for sock in sockets:
        with contextlib.suppress(OSError):
            descriptor = sock.detach()  # closing the object would wait for its readers
            if descriptor >= 0:
                os.close(descriptor)


def _before_fork() -> None:
    _fork_lock.acquire()
    for instance in list(_hooked_instances):
        instance.before_fork()
        _instances_before_fork.append(instance)


def _after_fork_in_parent() -> None:
    for instance in _instances_before_fork:
        instance.after_fork_in_parent()
    _instances_before_fork.clear()
    _fork_lock.release()


def _after_fork_in_child() -> None:
    global _fork_lock  # noqa: PLW0603 - the one lock of the module
    _fork_lock = threading.Lock()
    _detach_files()
    _close_sockets()
    calls = [instance.after_fork for instance in _instances_before_fork]
    calls += [
        partial(callback, instance) for instance, callback in list(_after_fork_callbacks.items())
    ]
    _instances_before_fork.clear()
    for call in calls:
        try:
            call()
        except Exception:  # the other callbacks must still run
            logger.exception("a resource of the parent cannot be reset in a forked child")


os.register_at_fork(
    before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child
)
