"""Bytes come at the rate that was set: smoothly, shared fairly, and not a byte is counted twice."""

from __future__ import annotations

import itertools
import random
import threading

import pytest

from concil.config import KIB, MIB, HostLimits, TransferConfig
from concil.errors import Cancelled, ConnectionLost
from concil.oci.blob_reader import BlobReader
from concil.ratelimit.bandwidth import BURST_TIME, BandwidthLimiter, BandwidthLimits
from tests.support.clock import Clock

RATE = 100 * KIB
HOSTS = {"slow": HostLimits(bandwidth=10 * KIB), "free": HostLimits(jobs=1)}


class Zeros:
    """A blob that gives at most so many bytes at once."""

    start = 7

    def __init__(self, most: int = MIB) -> None:
        self.most = most
        self.closed = False

    def readinto(self, buffer: memoryview, /) -> int:
        return min(len(buffer), self.most)

    def close(self) -> None:
        self.closed = True


class Broken(Zeros):
    """A blob that cannot be read."""

    def readinto(self, buffer: memoryview, /) -> int:
        raise ConnectionLost("gone")


@pytest.fixture
def stop() -> threading.Event:
    return threading.Event()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch, stop: threading.Event) -> Clock:
    return Clock(monkeypatch, stop)


def seconds(clock: Clock, reader: BlobReader, size: int, buffer: int = MIB) -> float:
    """Read so many bytes; return how long it took."""
    began, block = clock.now, memoryview(bytearray(buffer))
    while size > 0:
        size -= reader.readinto(block[:size])
    return clock.now - began


def throttled(
    bandwidth: BandwidthLimits, reader: BlobReader, hosts: tuple[str, ...], stop: threading.Event
) -> BlobReader:
    """Open a blob, whose reader this is, within the limits."""
    return bandwidth.throttled(lambda _start, _stop=None, /: reader, hosts, stop)(0)


def test_without_limits_nothing_stands_between(stop: threading.Event) -> None:
    zeros = Zeros()

    for config in (TransferConfig(), TransferConfig(host_limits=HOSTS)):
        assert throttled(BandwidthLimits(config), zeros, ("free", "other", ""), stop) is zeros


@pytest.mark.parametrize("rate", [2 * KIB, RATE, 50 * MIB])
@pytest.mark.parametrize("most", [777, MIB])
def test_bytes_come_at_the_rate(clock: Clock, stop: threading.Event, rate: int, most: int) -> None:
    reader = throttled(
        BandwidthLimits(TransferConfig(bandwidth=rate)), Zeros(most), ("a", "b"), stop
    )

    # The last piece is handed out at the begin of its time.
    assert seconds(clock, reader, 20 * rate) == pytest.approx(20, rel=0.03)


def test_no_piece_is_a_burst(clock: Clock, stop: threading.Event) -> None:
    reader = throttled(BandwidthLimits(TransferConfig(bandwidth=RATE)), Zeros(), ("a",), stop)
    block = memoryview(bytearray(MIB))

    arrived = [(reader.readinto(block), clock.now) for _ in range(200)]

    halves = [sum(c for c, when in arrived if int(when * 2) == n) for n in range(2000, 2019)]
    assert min(halves) >= RATE * 0.4
    assert max(halves) <= RATE * 0.6
    assert max(count for count, _ in arrived) == RATE * BURST_TIME


def test_readers_share_it_in_turn(clock: Clock) -> None:
    throttle = BandwidthLimiter(RATE)

    turns = sorted((throttle.reserve(KIB, clock.now), n % 4) for n in range(40))

    assert [who for _, who in turns] == [n % 4 for n in range(40)]
    gaps = {round(b - a, 9) for (a, _), (b, _) in itertools.pairwise(turns)}
    assert gaps == {round(KIB / RATE, 9)}


def test_a_host_of_its_own_is_slower_than_the_run(clock: Clock, stop: threading.Event) -> None:
    bandwidth = BandwidthLimits(TransferConfig(bandwidth=RATE, host_limits=HOSTS))

    for hosts, rate in ((("slow", ""), 10 * KIB), (("a", "slow"), 10 * KIB), (("a", "b"), RATE)):
        took = seconds(clock, throttled(bandwidth, Zeros(), hosts, stop), 30 * KIB)
        assert took == pytest.approx(30 * KIB / rate, abs=0.2)
    assert (bandwidth.limit_for("slow"), bandwidth.limit_for("free")) == (10 * KIB, RATE)
    assert BandwidthLimits(TransferConfig(host_limits=HOSTS)).limit_for("free") is None


def test_a_copy_within_one_host_counts_once(clock: Clock, stop: threading.Event) -> None:
    reader = throttled(
        BandwidthLimits(TransferConfig(host_limits=HOSTS)), Zeros(), ("slow", "slow"), stop
    )

    assert seconds(clock, reader, 30 * KIB) == pytest.approx(3, abs=0.2)


def test_time_that_nobody_used_is_not_made_up_for(clock: Clock, stop: threading.Event) -> None:
    reader = throttled(BandwidthLimits(TransferConfig(bandwidth=RATE)), Zeros(), ("a",), stop)
    seconds(clock, reader, RATE)
    clock.now += 3600

    assert seconds(clock, reader, 2 * RATE) == pytest.approx(2, rel=0.1)


def test_what_does_not_come_is_not_counted(clock: Clock, stop: threading.Event) -> None:
    bandwidth = BandwidthLimits(TransferConfig(bandwidth=RATE))
    broken = throttled(bandwidth, Broken(), ("a",), stop)
    for _ in range(100):
        with pytest.raises(ConnectionLost):
            broken.readinto(memoryview(bytearray(MIB)))

    assert seconds(clock, throttled(bandwidth, Zeros(), ("a",), stop), RATE) < 1.1


def test_a_wait_ends_at_once(stop: threading.Event) -> None:
    reader = throttled(BandwidthLimits(TransferConfig(bandwidth=KIB)), Zeros(), ("a",), stop)
    threading.Timer(0.05, stop.set).start()

    reader.readinto(memoryview(bytearray(MIB)))

    with pytest.raises(Cancelled, match="bandwidth"):
        reader.readinto(memoryview(bytearray(MIB)))


def test_it_begins_where_the_other_does_and_closes_it(stop: threading.Event) -> None:
    zeros = Zeros()
    reader = throttled(BandwidthLimits(TransferConfig(bandwidth=KIB)), zeros, ("a",), stop)

    reader.close()

    assert reader.start == 7
    assert zeros.closed


def test_any_mixture_of_reads_keeps_the_rate(clock: Clock, stop: threading.Event) -> None:
    dice, throttle = random.Random(5), BandwidthLimiter(RATE)
    began, moved, last = clock.now, 0, clock.now

    for _ in range(2000):
        want = dice.randint(1, 20 * KIB)
        last = throttle.reserve(want, clock.now)
        got = dice.randint(0, want)
        throttle.release(want - got)
        moved += got
        clock.now = max(clock.now, last)

    assert moved / (last - began) == pytest.approx(RATE, rel=0.02)
