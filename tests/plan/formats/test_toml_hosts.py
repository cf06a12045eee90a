"""The limits of hosts in a plan: read with units, and wrong ones told with file and line."""

from __future__ import annotations

import pytest

from concil.config import HostLimits, TransferConfig
from concil.errors import UsageError
from concil.plan.formats.toml_plan import parse_plan
from concil.transfer.context import TransferContext
from concil.transfer.worker_pool import WorkerPool
from tests.transfer.transfer_setup import WAIT, ClosableGate

TEXT = """\
[hosts."docker.io"]
jobs = 2
rate = "20/s"
bandwidth = "50M"

[hosts."h.example:5000"]
rate = "90/m"

[hosts."q.example"]
bandwidth = 10000

[[mirror]]
source = "alpine"
"""


def test_limits_are_read_with_their_units() -> None:
    assert parse_plan(TEXT, "p").host_limits == {
        "docker.io": HostLimits(2, 20.0, 50 * 1024 * 1024),
        "h.example:5000": HostLimits(requests=1.5),
        "q.example": HostLimits(bandwidth=10000),
    }
    assert parse_plan('[[mirror]]\nsource = "alpine"\n', "p").host_limits == {}


@pytest.mark.parametrize(
    ("lines", "line", "words"),
    [
        ('[hosts."docker.io"]\njob = 1', 2, "'job': unknown field"),
        ('[hosts."docker.io"]\njobs = 0', 2, "'jobs': not a number"),
        ('[hosts."docker.io"]\njobs = true', 2, "'jobs': not a number"),
        ('[hosts."a.b"]\njobs = 1\n[hosts."c.d"]\njobs = "2"', 4, "'jobs': not a number"),
        ('[hosts."docker.io"]\nrate = 20', 2, "'rate': not a rate"),
        ('[hosts."docker.io"]\nrate = "0/s"', 2, "'rate': not a rate"),
        ('[hosts."docker.io"]\nrate = "20/d"', 2, "'rate': not a rate"),
        ('[hosts."docker.io"]\nbandwidth = "50X"', 2, "'bandwidth': not a bandwidth"),
        ('[hosts."docker.io"]\nbandwidth = 0', 2, "'bandwidth': not a bandwidth"),
        ('[hosts."docker.io"]\nbandwidth = 1.5', 2, "'bandwidth': not a bandwidth"),
        ("[hosts.docker.io]\njobs = 1", 1, "'docker' is not a host"),
        ('[hosts."bad host"]\njobs = 1', 1, "'bad host' is not a host"),
        ('[hosts]\n"docker.io" = 3', 2, "'docker.io' is not a host"),
    ],
)
def test_invalid_limit_is_an_error_with_its_line(lines: str, line: int, words: str) -> None:
    with pytest.raises(UsageError) as excinfo:
        parse_plan(f"{lines}\n", "plan.toml")

    assert f"plan.toml:{line}: {words}" in str(excinfo.value)
    assert excinfo.value.remedy


def test_hosts_must_be_tables() -> None:
    with pytest.raises(UsageError, match="p: hosts is not a table"):
        parse_plan("hosts = 3\n", "p")


def test_a_host_has_no_more_jobs_at_once_than_its_limit() -> None:
    config = TransferConfig(
        workers=4, jobs_per_host=8, host_limits={"docker.io": HostLimits(jobs=1)}
    )
    pool = WorkerPool(TransferContext(config))
    first, second, other = ClosableGate(), ClosableGate(), ClosableGate()
    try:
        for gate, host in (
            (first, "registry-1.docker.io"),
            (second, "registry-1.docker.io"),
            (other, "other.example"),
        ):
            pool.submit(gate, hosts=(host,))

        assert first.entered.wait(WAIT)
        assert other.entered.wait(WAIT)
        assert not second.entered.is_set()
        first.opened.set()
        assert second.entered.wait(WAIT)
    finally:
        for gate in (first, second, other):
            gate.opened.set()
        assert pool.close(WAIT)
