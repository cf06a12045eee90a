"""The simulated cluster, and the service that is run again and again while things fail."""

from __future__ import annotations

import pytest

from benchmarks.scale.__main__ import simulate, text
from benchmarks.scale.costs import FIRST, Cluster
from benchmarks.soak.__main__ import main as soak


def test_a_simulated_mirror_takes_what_its_images_cost() -> None:
    one, four = (simulate("first", workers, 10, 30) for workers in (1, 4))

    assert one.images == four.images == 300
    assert one.requests == pytest.approx(300 * FIRST.requests + 11)  # lists of one page each
    assert one.seconds >= 300 * FIRST.cpu
    assert four.seconds >= 300 * Cluster().scheduler_cpu
    assert four.seconds < one.seconds
    assert one.largest_queues["tasks"] <= 2 * Cluster().threads
    assert "| first |" in text([one, four])


@pytest.mark.real
@pytest.mark.slow
@pytest.mark.timeout(240)
def test_a_service_keeps_a_mirror_right_while_things_fail(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert soak(["--runs", "4", "--images", "12", "--every", "1s", "--seed", "3"]) == 0

    printed = capsys.readouterr().out
    assert "problems: 0" in printed
    assert "as at the source: True" in printed
