"""What the parent keeps for its processes: claims, slots and shares of limits."""

from __future__ import annotations

import socket
from dataclasses import dataclass, field
from functools import partial

import pytest

from concil.config import HostLimits, TransferConfig
from concil.engine.processes.channel import Channel
from concil.engine.processes.process_settings import count_cores, count_processes, divide_config
from concil.engine.processes.shared_claims import SharedClaims
from concil.engine.processes.shared_slots import SharedSlots
from concil.transfer.shared_single_flight import IS_COMPLETE, IS_IN_FLIGHT, IS_OWNER


@dataclass(eq=False)
class Child:
    """Remembers what it was told."""

    events: list[tuple[object, ...]] = field(default_factory=list)

    def notify(self, event: str, *arguments: object) -> None:
        self.events.append((event, *arguments))


# Claims ----------------------------------------------------------------------------------------


def test_a_key_has_one_owner_and_the_others_get_its_result() -> None:
    claims, a, b, c = SharedClaims(), Child(), Child(), Child()

    assert claims.claim(a, ["x", "y"]) == [(IS_OWNER, None), (IS_OWNER, None)]
    assert claims.claim(b, ["x"]) == [(IS_IN_FLIGHT, None)]
    claims.complete(a, "x", 7)

    assert b.events == [("settled", "x", 7)]
    assert claims.claim(c, ["x"]) == [(IS_COMPLETE, 7)]
    assert a.events == c.events == []


def test_what_fails_has_a_new_owner() -> None:
    claims, a, b = SharedClaims(), Child(), Child()
    claims.claim(a, ["x"])
    claims.claim(b, ["x"])

    claims.release(a, "x")

    assert b.events == [("settled", "x", None)]
    assert claims.claim(b, ["x"]) == [(IS_OWNER, None)]


def test_a_process_that_has_ended_owns_nothing() -> None:
    claims, a, b = SharedClaims(), Child(), Child()
    claims.claim(a, ["x", "y", "z"])
    claims.complete(a, "z", 1)
    claims.claim(b, ["x"])

    claims.release_all(a)
    claims.complete(a, "y", 2)  # too late

    assert b.events == [("settled", "x", None)]
    assert claims.claim(b, ["x", "y", "z"]) == [(IS_OWNER, None)] * 2 + [(IS_COMPLETE, 1)]


def test_what_is_forgotten_has_a_new_owner() -> None:
    claims, a = SharedClaims(), Child()
    keys = [("one", "x"), ("one", "y"), ("two", "x")]
    claims.claim(a, keys)
    for key in keys:
        claims.complete(a, key, 1)

    claims.forget(("two", "x"))
    claims.forget_scope("one")

    assert claims.claim(a, keys) == [(IS_OWNER, None)] * 3


# Slots -----------------------------------------------------------------------------------------


def test_slots_are_given_in_the_order_in_which_they_are_asked_for() -> None:
    slots, a, b = SharedSlots(), Child(), Child()
    acquired: list[int] = []

    for number in range(5):
        child = (a, b)[number % 2]
        slots.acquire("s", 2, (child, number), partial(acquired.append, number))
    slots.acquire("other", 1, (a, 5), partial(acquired.append, 5))
    assert acquired == [0, 1, 5]

    slots.release("s", (b, 3))  # that only waits
    slots.release("s", (b, 1))
    assert acquired == [0, 1, 5, 2]

    slots.release_all(a)
    assert acquired == [0, 1, 5, 2]
    slots.acquire("s", 1, (b, 6), partial(acquired.append, 6))
    assert acquired[-1] == 6


# Limits ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [2, 3, 8])
def test_the_shares_of_all_processes_make_up_the_limits(count: int) -> None:
    config = TransferConfig(
        workers=8, host_limits={"a": HostLimits(jobs=9, requests=3.0), "b": HostLimits()}
    )
    shares = [divide_config(config, count, index) for index in range(count)]

    assert sum(share.workers for share in shares) == 8
    assert sum(share.concurrent_images for share in shares) == 16
    assert sum(share.host_limits["a"].jobs or 0 for share in shares) == 9
    assert {share.host_limits["a"].requests for share in shares} == {3.0}
    assert {share.host_limits["b"] for share in shares} == {HostLimits()}


@pytest.mark.parametrize(
    ("processes", "workers", "jobs", "count"),
    [(1, 8, None, 1), (4, 8, None, 4), (9, 8, None, 8), (4, 0, None, 1), (4, 8, 2, 2)],
)
def test_each_process_needs_a_job(
    processes: int, workers: int, jobs: int | None, count: int
) -> None:
    config = TransferConfig(workers=workers, host_limits={"a": HostLimits(jobs=jobs)})

    assert count_processes(processes, config) == count


def test_auto_is_the_number_of_cores() -> None:
    assert count_processes("auto", TransferConfig(workers=256)) == count_cores() >= 1


# Messages --------------------------------------------------------------------------------------


def test_messages_arrive_in_order_until_the_other_end_is_closed() -> None:
    ends = socket.socketpair()
    one, other = map(Channel, ends)
    one.send({"a": [1, b"x" * 100_000]})
    one.send(None)
    one.finish_sending()

    assert other.receive() == {"a": [1, b"x" * 100_000]}
    assert other.receive() is None
    with pytest.raises(EOFError):
        other.receive()
    other.close()
    with pytest.raises(OSError, match=r".+"):
        one.send(1)
    one.close()


def test_a_message_that_was_cut_is_none() -> None:
    sender, receiver = socket.socketpair()
    channel = Channel(receiver)
    sender.sendall(b"\0\0\0\0\0\0\0\7abc")
    sender.close()

    with pytest.raises(EOFError):
        channel.receive()
    channel.close()
