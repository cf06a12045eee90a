"""Hooks of a fork, where other threads register at the same moment."""

from __future__ import annotations

import os
import threading

from concil.runtime.forking import register_fork_hooks


class Hooked:
    """Records which of its hooks run."""

    def __init__(self) -> None:
        self.hooks: list[str] = []

    def before_fork(self) -> None:
        self.hooks.append("before")

    def after_fork_in_parent(self) -> None:
        self.hooks.append("parent")

    def after_fork(self) -> None:
        self.hooks.append("child")


class Registering(Hooked):
    """Has another thread register an object while the process forks."""

    def __init__(self, other: Hooked) -> None:
        super().__init__()
        self.during_fork = False
        self.registered_during_fork: list[bool] = []
        self.thread = threading.Thread(target=self._register, args=(other,))

    def _register(self, other: Hooked) -> None:
        register_fork_hooks(other)
        self.registered_during_fork.append(self.during_fork)

    def before_fork(self) -> None:
        self.during_fork = True
        if self.thread.ident is None:  # the first fork
            self.thread.start()
            self.thread.join(0.1)  # long enough for a thread that does not wait for the fork

    def after_fork_in_parent(self) -> None:
        self.during_fork = False


def fork() -> None:
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)


def test_object_registered_during_a_fork_is_in_use_only_after_it() -> None:
    """It has missed the hook that closes what a child must not have."""
    other = Hooked()
    registering = Registering(other)
    register_fork_hooks(registering)

    fork()
    registering.thread.join()

    assert registering.registered_during_fork == [False]
    assert other.hooks == []
    fork()
    assert other.hooks == ["before", "parent"]
