"""Memory never used before and compiled modules: what else the first program would pay for."""

from __future__ import annotations

import compileall
import shutil
from pathlib import Path

import concil
from benchmarks.measure import MIB

_BLOCK = bytes(8 * MIB)
_MAX_PART = 2  # of the free memory, at most one half


def warm_up(directory: Path, size: int) -> None:
    """Write ``size`` bytes to ``directory`` and delete them; compile the modules of concil.

    A virtual machine gets a page of memory from its host when it uses the page first: the first
    copy of 1 GiB took 4.1 s, the next ones 2.4 s. pip compiles the modules of a package.
    """
    compileall.compile_dir(Path(concil.__file__).parent, quiet=2)
    path = directory / "warm-up"
    left = min(size, shutil.disk_usage(directory).free // _MAX_PART)
    with path.open("wb") as file:
        while left > 0:
            left -= file.write(_BLOCK)
    path.unlink()
