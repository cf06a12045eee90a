"""Runs one command line and measures it: wall clock, CPU seconds, peak memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

MIB = 1024 * 1024


class ProgramFailedError(RuntimeError):
    """A measured program did not end well; the message holds what it said."""


@dataclass(frozen=True, slots=True)
class Measured:
    """What one run took."""

    seconds: float  # wall clock, from the start of the process to its end
    cpu: float  # seconds, user and system, with the children it waited for
    rss: int  # bytes, the largest process's peak
    served: float = 0.0  # CPU seconds of the registries meanwhile


def measure(
    argv: Sequence[str], environment: Mapping[str, str], *, timeout: float = 600
) -> tuple[Measured, str]:
    """Run a command and return what it took, and its standard output.

    A small process of its own starts it: the kernel counts the memory of whoever
    called exec as the program's, and a test run is larger than what it measures.

    Raises:
        ProgramFailedError: it ended with another code than 0.
    """
    here, result = os.pipe()
    with os.fdopen(here) as reader:
        try:
            done = subprocess.run(
                [sys.executable, "-I", "-S", str(Path(__file__)), str(result), *argv],
                env=dict(environment),
                pass_fds=(result,),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=timeout,
                check=False,
            )
        finally:
            os.close(result)
        report = reader.read()
    if done.returncode != 0 or not report:
        said = (done.stderr or done.stdout).strip()
        raise ProgramFailedError(f"{' '.join(argv)}: exit code {done.returncode}: {said}")
    taken = json.loads(report)
    return Measured(taken["seconds"], taken["cpu"], taken["rss"]), done.stdout


def main(result: int, argv: list[str]) -> int:
    """Start the command, wait for it, and write what it took to the file descriptor."""
    began = time.perf_counter()
    child = os.posix_spawnp(argv[0], argv, os.environ)
    _, status, usage = os.wait4(child, 0)
    seconds = time.perf_counter() - began
    report = {
        "seconds": seconds,
        "cpu": usage.ru_utime + usage.ru_stime,
        "rss": usage.ru_maxrss * 1024,
    }
    os.write(result, json.dumps(report).encode())
    return os.waitstatus_to_exitcode(status)


if __name__ == "__main__":
    os.set_inheritable(int(sys.argv[1]), False)  # noqa: FBT003 - the system's own call
    sys.exit(main(int(sys.argv[1]), sys.argv[2:]))
