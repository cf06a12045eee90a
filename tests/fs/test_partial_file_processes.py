"""Partial files of two processes, and of one whose disk is full."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.fs.test_partial_file import BLOB, begin, fill
from tests.transfer.transfer_setup import WAIT

pytestmark = pytest.mark.process

PROCESS = """
import sys
from pathlib import Path
from tests.fs.test_partial_file import BLOB, begin, fill

file = begin(Path(sys.argv[1]))
print(file.path.name, flush=True)
sys.stdin.read(1)
fill(file, BLOB.content)
file.commit()
"""


def test_two_processes_fill_files_of_their_own(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PROCESS, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "x.partial\n"

        file = begin(tmp_path)
        assert file.path.name != "x.partial"
        fill(file, BLOB.content)
        file.commit()
        other.communicate("x", timeout=WAIT)

    assert other.returncode == 0
    assert (tmp_path / "final").read_bytes() == BLOB.content
    assert [path.name for path in tmp_path.iterdir()] == ["final"]


FULL_DISK = """
import resource, sys
from pathlib import Path
import pytest

from concil.errors import StoreError
from tests.fs.test_partial_file import BLOB, begin

# A rare fault is what these tests look for: one failure is enough.
pytestmark = pytest.mark.flaky(reruns=0)

file = begin(Path(sys.argv[1]))
hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
resource.setrlimit(resource.RLIMIT_FSIZE, (600, hard))
try:
    file.write_at(0, memoryview(BLOB.content))
except StoreError as error:
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    assert "x.partial" in str(error), error
    assert "ulimit -f" in error.remedy, error.remedy
    file.close()
    sys.exit(7)
"""


def test_disk_that_takes_no_more_is_an_error_and_nothing_appears(tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(tmp_path)],
        timeout=WAIT,
        check=False,
        capture_output=True,
        text=True,
    )

    assert (result.returncode, result.stderr) == (7, "")
    assert [path.name for path in tmp_path.iterdir()] == ["x.partial"]
