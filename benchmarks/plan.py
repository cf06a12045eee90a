"""`python -m benchmarks.plan`: what a plan costs in requests, first, again, changed, killed.

Between two real registries; relays in front of them count requests and bytes.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

import requests

from benchmarks.bench import concil
from benchmarks.measure import MIB
from benchmarks.servers.registry import MemoryRegistry, two_registries
from benchmarks.table import markdown
from tests.support.images import Layer, make_image, make_layer, put_blob
from tests.support.relay import Relay
from tests.support.request_log import Request, RequestLog

BASE, MIDDLE, OWN = 256 * 1024, 64 * 1024, 16 * 1024  # bytes of the layer of all, of a repository
JOBS = 16
KINDS = {
    "tags": "GET tags",
    "HEAD manifest": "HEAD man.",
    "GET manifest": "GET man.",
    "GET blob": "GET blob",
    "HEAD blob": "HEAD blob",
    "mount": "mount",
    "upload": "POST PATCH PUT blob",
    "PUT manifest": "PUT man.",
    "other": "other",
}


def kind_of(request: Request) -> str:
    """What a request is for."""
    method, path = request.method, request.path
    if "/tags/list" in path:
        return "tags"
    if "/manifests/" in path:
        return f"{method} manifest"
    if "/blobs/uploads/" in path:
        # A mount from the repository itself looks the blob up and opens its upload session.
        repository = path.removeprefix("/v2/").partition("/blobs/")[0]
        from_other = "mount=" in path and f"from={repository}" not in unquote(path).split("&")
        return "mount" if from_other else "upload"
    return f"{method} blob" if "/blobs/" in path else "other"


@dataclass(frozen=True, slots=True)
class Counted:
    """One run, as the relays have seen it."""

    name: str
    seconds: float
    kinds: Mapping[str, int]
    down: int  # bytes from the source, with the heads of answers
    up: int  # bytes to the destination, with the heads of requests

    @property
    def requests(self) -> int:
        """All requests, on both sides."""
        return sum(self.kinds.values())

    def row(self, tags: int) -> tuple[str, ...]:
        """Its line of the table."""
        counts = (str(self.kinds.get(kind, 0)) for kind in KINDS)
        # A list is one request, however many tags are in it.
        per_tag = (self.requests - self.kinds.get("tags", 0)) / tags
        rest = (f"{per_tag:.2f}", f"{self.down / MIB:.1f}", f"{self.up / MIB:.1f}")
        return (self.name, *counts, str(self.requests), *rest, f"{self.seconds:.1f}")


class Lab:
    """Repositories with tags in a source, a plan for them, and a destination."""

    def __init__(
        self, directory: Path, registries: Sequence[MemoryRegistry], repositories: int, tags: int
    ) -> None:
        self.directory = directory
        self.source, self.destination = registries
        self.repositories = repositories
        self.tags = tags
        self._base = make_layer(1, BASE)
        self._session = requests.Session()
        self._session.trust_env = False

    @property
    def images(self) -> int:
        """How many tags there are."""
        return self.repositories * self.tags

    def fill(self) -> None:
        """Put the images into the source."""
        for number in range(self.repositories):
            middle = make_layer(10 + number, MIDDLE)
            for layer in (self._base, middle):
                put_blob(self.source.url, f"plan/r{number}", layer.blob, self._session)
            for tag in range(self.tags):
                self._put(number, tag, middle)

    def change(self) -> int:
        """Push another image under one tag in a hundred; return how many these are."""
        changed = range(0, self.images, 100)
        for one in changed:
            number, tag = divmod(one, self.tags)
            self._put(number, tag, make_layer(10 + number, MIDDLE), version=1)
        return len(changed)

    def _put(self, number: int, tag: int, middle: Layer, version: int = 0) -> None:
        name, seed = f"plan/r{number}", 1_000_000 * version + 1_000 * (number + 1) + tag
        image = make_image(seed, (self._base, middle, make_layer(seed, OWN)))
        known = {self._base.blob, middle.blob}
        for blob in image.blobs.values():
            if blob not in known:
                put_blob(self.source.url, name, blob, self._session)
        answer = self._session.put(
            f"{self.source.url}/v2/{name}/manifests/v{tag}",
            data=image.manifest,
            headers={"Content-Type": image.media_type},
            timeout=60,
        )
        answer.raise_for_status()

    @contextmanager
    def counting(self) -> Iterator[tuple[Relay, Relay, tuple[RequestLog, RequestLog]]]:
        """Put relays in front of both registries."""
        logs = RequestLog(), RequestLog()
        with (
            Relay(self.source.host, observer=logs[0]) as source,
            Relay(self.destination.host, observer=logs[1]) as destination,
        ):
            yield source, destination, logs

    def run(self, name: str, home: str, kill_after: int = 0) -> Counted:
        """Mirror the plan in a process of its own.

        Args:
            home: whose journal it has.
            kill_after: manifests that have come when the process is killed; 0: never.
        """
        with self.counting() as (source, destination, logs):
            plan = self.directory / "plan.toml"
            plan.write_text(
                "".join(
                    f'[[mirror]]\nsource = "{source.url}/plan/r{n}"\n'
                    for n in range(self.repositories)
                )
            )
            command = concil("mirror", str(plan), f"{destination.url}/m", f"--jobs={JOBS}", "-q")
            began = time.monotonic()

            def enough() -> bool:
                return logs[1].count("PUT", "/manifests/") >= kill_after

            code = _run(command, self._environment(home), enough if kill_after else None)
            seconds = time.monotonic() - began
            assert code == (-9 if kill_after else 0), f"{name}: exit code {code}"
            kinds = Counter(kind_of(one) for log in logs for one in log.requests)
            return Counted(name, seconds, kinds, source.bytes_down, destination.bytes_up)

    def arrived(self) -> int:
        """How many tags the destination has."""
        return sum(1 for _ in self.destination.repositories().glob("m/plan/*/_manifests/tags/*"))

    def _environment(self, home: str) -> dict[str, str]:
        directory = self.directory / home
        directory.mkdir(exist_ok=True)
        return {
            "PATH": os.environ.get("PATH", ""),
            "PYTHONPATH": os.environ.get("PYTHONPATH", ""),
            "HOME": str(directory),
            "XDG_RUNTIME_DIR": str(directory),
        }


def _run(
    command: Sequence[str], environment: Mapping[str, str], enough: Callable[[], bool] | None
) -> int:
    """Run a command to its end, or kill it when it has done enough."""
    process = subprocess.Popen(command, env=dict(environment), stdin=subprocess.DEVNULL)
    try:
        while enough is not None and process.poll() is None and not enough():
            time.sleep(0.01)  # how often it is looked at; nothing depends on it
        if enough is not None:
            process.kill()
        return process.wait(timeout=3600)
    finally:
        process.kill()
        process.wait()


def measure(lab: Lab) -> Iterator[Counted]:
    """Run the plan as it is run in a life: first, again, changed, killed and again."""
    lab.fill()
    yield lab.run("first", "one")
    assert lab.arrived() == lab.images
    yield lab.run("again", "one")
    changed = lab.change()
    yield lab.run(f"{changed} tags changed", "one")
    lab.destination.empty()
    yield lab.run("killed at half", "two", kill_after=lab.images // 2)
    yield lab.run("and again", "two")
    assert lab.arrived() == lab.images


def text(runs: Sequence[Counted], tags: int) -> str:
    """The table."""
    headings = ("run", *KINDS.values(), "requests", "a tag", "MiB down", "MiB up", "seconds")
    return markdown(headings, [run.row(tags) for run in runs], left=1)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.plan", description=__doc__)
    parser.add_argument("--repositories", type=int, default=200)
    parser.add_argument("--tags", type=int, default=10, help="of each repository")
    parser.add_argument("--memory", type=Path, default=Path("/dev/shm"), help="where all is kept")  # noqa: S108
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    options = parser.parse_args(arguments)
    runs: list[Counted] = []
    with two_registries(options.memory) as (directory, source, destination):
        lab = Lab(directory, (source, destination), options.repositories, options.tags)
        for run in measure(lab):
            print(f"{run.name}: {run.requests} requests, {run.seconds:.1f} s", file=sys.stderr)
            runs.append(run)
    if options.json:
        print(json.dumps([{"run": run.name, **run.kinds} for run in runs], indent=2))
    else:
        print(text(runs, lab.images))
    return 0


if __name__ == "__main__":
    sys.exit(main())
