"""`python -m benchmarks.soak`: a service that mirrors a plan hundreds of times, with faults.

Two real registries; before each run one of these by chance: a registry is restarted, answers 429,
loses connections, a tag moves, is deleted or added. Meanwhile random tags of the destination are
pulled: each must be an image that its tag had at the source. In the end the mirror must be exact,
and memory, threads and descriptors of the service those of the beginning.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import requests

from benchmarks.soak.content import SourceImages
from benchmarks.soak.faults import Faults, Side
from benchmarks.soak.watcher import Watcher
from benchmarks.table import markdown
from tests.support.docker_registry import DockerRegistry
from tests.support.images import MANIFEST_ACCEPT

_RUN_ENDED = re.compile(r"next run at|longer than the schedule")
_MAX_LAST_RUNS = 20  # to become exact after the last fault
_FIGURES = ("rss", "threads", "descriptors")
_NEIGHBOURS = 3  # runs before and after one
_MAX_GROWTH = 0.05  # of a figure, from run 10 to the last one


@dataclass(frozen=True, slots=True)
class Sample:
    """The service between two runs."""

    run: int
    rss: int  # KiB
    threads: int
    descriptors: int


def take_sample(run: int, process: int) -> Sample:
    """Read the figures of a process. Source: proc(5)."""
    status = Path(f"/proc/{process}/status").read_text(encoding="ascii")
    fields = dict(re.findall(r"^(\w+):\s+(\d+)", status, re.MULTILINE))
    descriptors = len(list(Path(f"/proc/{process}/fd").iterdir()))
    return Sample(run, int(fields["VmRSS"]), int(fields["Threads"]), descriptors)


class Soak:
    """The registries, the faults, the watcher and the service."""

    def __init__(self, directory: Path, images: int, seed: int, stack: ExitStack) -> None:
        """Start the registries and push the images."""
        chance = random.Random(seed)
        self.sides = []
        for name in ("source", "destination"):
            registry = stack.enter_context(DockerRegistry(directory / name, in_memory=True))
            self.sides.append(stack.enter_context(closing(Side(registry))))
        source, self.destination = self.sides
        self.images = SourceImages(source.registry.url, images, chance)
        self.faults = Faults(source, self.destination, self.images, chance)
        self.watcher = Watcher(self.destination.registry.url, self.images, random.Random(seed))
        self._directory = directory
        self._plan = directory / "plan.toml"
        repositories = sorted({repository for repository, _ in self.images.current()})
        self._plan.write_text(
            "\n".join(
                f'[[mirror]]\nsource = "http://{source.host}/{name}"\nmatch = ".*"\nprune = true\n'
                for name in repositories
            )
        )
        self.service: subprocess.Popen[str] | None = None
        self.log: list[str] = []  # lines of the service

    def run(self, runs: int, every: str) -> list[Sample]:
        """Let the service run so often with faults; return a sample of each run."""
        samples: list[Sample] = []
        self.watcher.start()
        self.service = self._start("mirror", "--every", every, "--jitter", "0s")
        try:
            for run in range(1, runs + _MAX_LAST_RUNS):
                self._wait_for_run(self.service)
                samples.append(take_sample(run, self.service.pid))
                if run >= runs:
                    self.faults.clear()
                    if self.is_exact():
                        break
                else:
                    self.faults.inject()
        finally:
            self.watcher.stop()
            self.service.send_signal(signal.SIGTERM)
            self.log.append(self.service.communicate(timeout=60)[0])
        return samples

    def is_exact(self) -> bool:
        """Return whether the destination has the tags of the source, and no others."""
        current = self.images.current()
        found = {}
        for repository in {repository for repository, _ in current}:
            base = f"{self.destination.registry.url}/v2/m/{repository}"
            for tag in requests.get(f"{base}/tags/list", timeout=30).json()["tags"] or ():
                accept = {"Accept": MANIFEST_ACCEPT}
                head = requests.head(f"{base}/manifests/{tag}", headers=accept, timeout=30)
                found[repository, tag] = head.headers.get("Docker-Content-Digest")
        return found == current

    def check(self) -> str:
        """Run `concil check --deep`; return its last line.

        Raises:
            AssertionError: an image is not in order.
        """
        process = self._start("check", "--deep")
        output, _ = process.communicate(timeout=600)
        assert process.returncode == 0, output
        return output.strip().splitlines()[-1]

    def _wait_for_run(self, service: subprocess.Popen[str]) -> None:
        assert service.stdout is not None
        for line in service.stdout:
            self.log.append(line)
            if _RUN_ENDED.search(line):
                return
        raise AssertionError(f"the service ended: {''.join(self.log[-20:])}")

    def _start(self, verb: str, *options: str) -> subprocess.Popen[str]:
        destination = f"http://{self.destination.host}/m"
        environment = {
            "PATH": os.environ.get("PATH", ""),
            "PYTHONPATH": os.environ.get("PYTHONPATH", ""),
            "HOME": str(self._directory / "home"),
        }
        return subprocess.Popen(
            [sys.executable, "-m", "concil", verb, str(self._plan), destination, *options],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )


def typical(samples: Sequence[Sample], run: int) -> Sample:
    """The medians of a run and its neighbours: a sample may be taken when the next run begins."""
    near = [each for each in samples if abs(each.run - run) <= _NEIGHBOURS]
    rss, threads, descriptors = (
        int(median(getattr(each, name) for each in near)) for name in _FIGURES
    )
    return Sample(run, rss, threads, descriptors)


def growth(samples: Sequence[Sample]) -> dict[str, float]:
    """By how much each figure of the last run is above that of run 10, as a part of it."""
    first, last = typical(samples, min(10, samples[-1].run)), typical(samples, samples[-1].run)
    return {name: getattr(last, name) / getattr(first, name) - 1 for name in _FIGURES}


def text(samples: Sequence[Sample]) -> str:
    """A table of a few of the samples."""
    last = samples[-1].run
    rows = [
        typical(samples, each.run)
        for each in samples
        if each.run in {1, 10, last} or each.run % 50 == 0
    ]
    return markdown(
        ("run", "RSS MiB", "threads", "descriptors"),
        [
            (str(each.run), f"{each.rss / 1024:.1f}", str(each.threads), str(each.descriptors))
            for each in rows
        ],
        left=0,
    )


def main(arguments: list[str] | None = None) -> int:
    """Run the service, and print what happened."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=__doc__)
    parser.add_argument("--runs", type=int, default=300)
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--every", default="2s", help="the interval of the service")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--log", type=Path, help="write the output of the service to this file")
    options = parser.parse_args(arguments)
    with TemporaryDirectory() as directory, ExitStack() as stack:
        soak = Soak(Path(directory), options.images, options.seed, stack)
        began = time.monotonic()
        try:
            samples = soak.run(options.runs, options.every)
        finally:
            if options.log:
                options.log.write_text("".join(soak.log))
        seconds = time.monotonic() - began
        is_exact, checked = soak.is_exact(), soak.check()
    print(text(samples))
    rise = growth(samples)
    print("last run against run 10:", ", ".join(f"{key} {part:+.1%}" for key, part in rise.items()))
    print(f"{len(samples)} runs in {seconds:.0f} s; faults: {dict(soak.faults.count)}")
    print(f"looks at the destination: {soak.watcher.looks}; problems: {len(soak.watcher.problems)}")
    for problem in soak.watcher.problems[:20]:
        print(f"  {problem}")
    print(f"tags and digests as at the source: {is_exact}; concil check --deep: {checked}")
    has_grown = max(rise.values()) > _MAX_GROWTH
    return 0 if is_exact and not soak.watcher.problems and not has_grown else 1


if __name__ == "__main__":
    sys.exit(main())
