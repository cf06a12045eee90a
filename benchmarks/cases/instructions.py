"""How many instructions a small exchange takes: a number that a busy machine does not change."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace

from benchmarks.bench import Bench, Command
from benchmarks.cases.replay import start_replay, write_content
from benchmarks.content import TAG, make_image
from benchmarks.measure import ProgramFailedError, measure
from benchmarks.results import Result
from tests.support.system import find_program

COUNT = 100  # exchanges
WARM_UP = 10  # exchanges that are not counted, with the start of the interpreter
TIMED = 2000  # exchanges of the run that is timed
NAME = "exchange/image"
REQUESTS = "python requests.Session.head"
EXCHANGES = (sys.executable, "-m", "benchmarks.cases.exchanges")
# What the program is called in a table: what it is called by benchmarks.cases.exchanges.
PROGRAMS = {
    "concil": "concil-head",
    "concil get_manifest": "concil-get",
    REQUESTS: "requests",
    "python http.client": "http.client",
}


def instructions(bench: Bench) -> Result:
    """Count the instructions of each client, and time it once."""
    image = make_image(bench.directory / "layout", [(0, 1024)])
    (layer,) = image.layers
    directory = write_content(bench, [((NAME, TAG), image)])
    hosts = start_replay(bench, directory)
    base = f"http://{hosts.source}/v2/{NAME}"
    urls = {"concil-get": f"{base}/manifests/{TAG}"}
    count = counter()
    runs, counted = {}, {}
    try:
        for program, client in PROGRAMS.items():
            url = urls.get(client, f"{base}/blobs/{layer.digest}")

            def command(exchanges: int, client: str = client, url: str = url) -> Command:
                return (
                    sys.executable,
                    "-m",
                    "benchmarks.cases.exchanges",
                    client,
                    str(exchanges),
                    url,
                )

            before = bench.served()
            measured, _ = measure(command(TIMED), bench.environment())
            runs[program] = (replace(measured, served=bench.served() - before),)
            if count:
                environment = bench.environment() | {"PYTHONHASHSEED": "0"}
                more, fewer = (
                    count(command(exchanges), environment)
                    for exchanges in (WARM_UP + COUNT, WARM_UP)
                )
                counted[program] = (more - fewer) // COUNT
            print(f"instructions {program}: {counted.get(program)}", file=sys.stderr)
    finally:
        bench.stop_servers()
        shutil.rmtree(directory)
    return Result("instructions", 0, runs, dict.fromkeys(runs, TIMED), counted)


Counter = Callable[[Command, Mapping[str, str]], int]


def counter() -> Counter | None:
    """Return what counts the instructions of a command: perf, else valgrind, else None."""
    if find_program("perf") and _perf_works():
        return _count_with_perf
    return _count_with_valgrind if find_program("valgrind") else None


def _perf_works() -> bool:
    """Whether this machine lets perf count: many virtual ones have no counters."""
    try:
        return _count_with_perf(("true",), {}) > 0
    except (ProgramFailedError, ValueError):
        return False


def _count_with_perf(command: Command, environment: Mapping[str, str]) -> int:
    said = _stderr(("perf", "stat", "-x,", "-e", "instructions:u", *command), environment)
    return int(said.strip().splitlines()[-1].partition(",")[0])


def _count_with_valgrind(command: Command, environment: Mapping[str, str]) -> int:
    tool = ("valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null")
    said = _stderr((*tool, *command), environment)
    found = re.search(r"Collected : (\d+)", said)
    if found is None:
        raise ProgramFailedError(f"valgrind counted nothing: {said}")
    return int(found[1])


def _stderr(command: Command, environment: Mapping[str, str]) -> str:
    path = find_program(command[0])
    assert path
    done = subprocess.run(
        [path, *command[1:]],
        env=dict(environment),
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    if done.returncode:
        raise ProgramFailedError(f"{' '.join(command)}: {done.stderr}")
    return done.stderr
