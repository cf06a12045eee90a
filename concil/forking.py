"""What a child process that was forked must not share with its parent.

A fork copies memory and open files, but only the thread that forks. So a lock that another
thread held stays locked in the child for ever, a connection would be read by both processes,
and a file lock would outlive the parent. Objects that hold such things register here.
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


class Pausable(Protocol):
    """An object that must not be in use while the process forks."""

    def pause(self) -> None:
        """Let go of what a fork must not copy, and keep every thread out."""
        ...

    def resume(self) -> None:
        """Let threads in again: called in the parent."""
        ...

    def after_fork(self) -> None:
        """Forget what belongs to the parent: called in the child instead."""
        ...


_objects: weakref.WeakKeyDictionary[Any, Callable[[Any], None]] = weakref.WeakKeyDictionary()
_pausable: weakref.WeakSet[Pausable] = weakref.WeakSet()
_paused: list[Pausable] = []
_forking = threading.Lock()  # held by a thread that forks: another one waits
_sockets: weakref.WeakSet[socket.socket] = weakref.WeakSet()
# By descriptor the device and inode: a number that means another file by now is left alone.
_files: dict[int, tuple[int, int]] = {}


def renew_in_child(one: Owner, renew: Callable[[Owner], None]) -> None:
    """Call ``renew(one)`` in each forked child, which has one thread then, while ``one`` exists.

    Args:
        renew: a method, not bound: it would keep the object alive.
    """
    _objects[one] = renew


def pause_around_forks(one: Pausable) -> None:
    """Call ``one.pause()`` before each fork, then ``resume`` or, in the child, ``after_fork``."""
    _pausable.add(one)


def keep_socket_from_children(sock: socket.socket) -> None:
    """Close a forked child's copy of a socket; the connection of the parent is not touched.

    Without this the other side would not see that the parent has closed it.
    """
    _sockets.add(sock)


def keep_file_from_children(descriptor: int) -> None:
    """Replace a forked child's copy of an open file or pipe by ``/dev/null``.

    Its lock then ends with the parent, and nothing that the child still has in a buffer is
    written into the file. The number stays taken, so that whoever closes it closes nothing else.
    """
    with contextlib.suppress(OSError):
        found = os.fstat(descriptor)
        _files[descriptor] = found.st_dev, found.st_ino


def _replace_files() -> None:
    files = dict(_files)
    _files.clear()
    with contextlib.suppress(OSError):
        nowhere = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        for descriptor, identity in files.items():
            with contextlib.suppress(OSError):
                found = os.fstat(descriptor)
                if (found.st_dev, found.st_ino) == identity:
                    os.dup2(nowhere, descriptor, inheritable=False)
        os.close(nowhere)


def _close_sockets() -> None:
    sockets = list(_sockets)
    _sockets.clear()
    for sock in sockets:
        with contextlib.suppress(OSError):
            descriptor = sock.detach()  # closing the object would wait for its readers
            if descriptor >= 0:
                os.close(descriptor)


def _before() -> None:
    _forking.acquire()
    for one in list(_pausable):
        one.pause()
        _paused.append(one)


def _in_parent() -> None:
    for one in _paused:
        one.resume()
    _paused.clear()
    _forking.release()


def _in_child() -> None:
    global _forking  # noqa: PLW0603 - the one lock of the module
    _forking = threading.Lock()
    _replace_files()
    _close_sockets()
    calls = [one.after_fork for one in _paused]
    calls += [partial(renew, one) for one, renew in list(_objects.items())]
    _paused.clear()
    for call in calls:
        try:
            call()
        except Exception:  # the others are put right all the same
            logger.exception("something of the parent cannot be used in a forked child")


os.register_at_fork(before=_before, after_in_parent=_in_parent, after_in_child=_in_child)
