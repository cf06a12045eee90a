"""`python -m benchmarks.layouts`: very many names in one image layout, and the same layout served.

One small image is mirrored from a layout under so many names into another, twice. Then the layout
is served, and one client lists its tags, asks for each, and pushes as many new ones.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import urljoin

import requests

from benchmarks.bench import concil
from benchmarks.measure import MIB, measure
from benchmarks.table import markdown
from tests.support.images import Image, make_image, write_layout
from tests.support.process import ServerProcess

COUNTS = (200, 2_000, 20_000)
PAGE = 100  # tags
REPOSITORY = "team/app"


@dataclass(frozen=True, slots=True)
class Ran:
    """One run over so many names."""

    name: str
    names: int
    seconds: float
    cpu: float  # seconds, of the process that is measured
    rss: int  # bytes, its peak

    def row(self) -> tuple[str, ...]:
        """Its line of the table."""
        each = self.seconds / self.names * 1000
        seconds = f"{self.seconds:.1f}", f"{each:.2f}", f"{self.cpu:.1f}"
        return (self.name, f"{self.names}", *seconds, f"{self.rss / MIB:.1f}")


class Client:
    """Asks a registry for one repository, one request after the other."""

    def __init__(self, url: str, image: Image) -> None:
        self._url = f"{url}/v2/{REPOSITORY}/"
        self._image = image
        self._session = requests.Session()
        self._session.trust_env = False

    def read(self, names: int) -> None:
        """List all tags page by page, and ask for each."""
        found: list[str] = []
        url: str | None = f"{self._url}tags/list?n={PAGE}"
        while url:
            answer = self._session.get(url, timeout=60)
            answer.raise_for_status()
            found += answer.json()["tags"]
            following = answer.links.get("next", {}).get("url")
            url = following and urljoin(url, following)
        assert len(found) == names, f"{len(found)} tags are listed instead of {names}"
        for tag in found:
            answer = self._session.head(f"{self._url}manifests/{tag}", timeout=60)
            answer.raise_for_status()

    def push(self, names: int) -> None:
        """Push the image under so many new tags."""
        headers = {"Content-Type": self._image.media_type}
        for number in range(names):
            answer = self._session.put(
                f"{self._url}manifests/new{number}",
                data=self._image.manifest,
                headers=headers,
                timeout=60,
            )
            answer.raise_for_status()


def environment(directory: Path) -> dict[str, str]:
    """A home without credentials and settings of the user's."""
    return {
        "PATH": os.environ.get("PATH", ""),
        "PYTHONPATH": os.environ.get("PYTHONPATH", ""),
        "HOME": str(directory),
    }


@contextmanager
def served(directory: Path, layout: Path) -> Iterator[tuple[str, Callable[[], tuple[float, int]]]]:
    """Serve a layout; yield the address, and what tells CPU seconds and the peak of memory.

    Source: proc(5), /proc/pid/stat, fields 14 and 15.
    """
    process = ServerProcess(
        concil("serve", str(layout), "--addr", "127.0.0.1:0"),
        r"serving .* at (\S+)",
        directory / "server.log",
        environment(directory),
    )
    url = process.start()[1]

    def used() -> tuple[float, int]:
        home = Path(f"/proc/{process.pid}")
        user, system = (home / "stat").read_text(encoding="ascii").rpartition(")")[2].split()[11:13]
        peak = (home / "status").read_text(encoding="ascii").partition("VmHWM:")[2].split()[0]
        return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK"), int(peak) * 1024

    try:
        yield url, used
    finally:
        process.stop()


def names_in(layout: Path) -> int:
    """How many entries index.json has."""
    return len(json.loads((layout / "index.json").read_bytes())["manifests"])


def run(directory: Path, names: int) -> Iterator[Ran]:
    """Mirror, mirror again, serve."""
    image = make_image(1, (20_000,))
    write_layout(directory / "source", {"a": image})
    plan, layout = directory / "list.txt", directory / "layout"
    lines = (f"oci:{directory}/source:a -> {REPOSITORY}:v{number}\n" for number in range(names))
    plan.write_text("".join(lines))
    for name in ("mirror, first", "mirror, again"):
        command = concil("mirror", str(plan), f"oci:{layout}")
        measured, _ = measure(command, environment(directory), timeout=3600)
        assert names_in(layout) == names
        yield Ran(name, names, measured.seconds, measured.cpu, measured.rss)
    with served(directory, layout) as (url, used):
        client = Client(url, image)
        for name, call in (("served, read", client.read), ("served, pushed", client.push)):
            began, before = time.monotonic(), used()[0]
            call(names)
            seconds, (cpu, rss) = time.monotonic() - began, used()
            yield Ran(name, names, seconds, cpu - before, rss)
    assert names_in(layout) == 2 * names


def text(runs: list[Ran]) -> str:
    """The table."""
    headings = ("run", "names", "seconds", "ms a name", "CPU s", "RSS MiB")
    order = {run.name: place for place, run in reversed(list(enumerate(runs)))}
    runs = sorted(runs, key=lambda run: (order[run.name], run.names))
    return markdown(headings, [run.row() for run in runs], left=1)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.layouts", description=__doc__)
    parser.add_argument("--names", type=int, action="append", help="may be repeated")
    parser.add_argument("--memory", type=Path, default=Path("/dev/shm"), help="where all is kept")  # noqa: S108
    options = parser.parse_args(arguments)
    runs: list[Ran] = []
    for names in options.names or COUNTS:
        with TemporaryDirectory(dir=options.memory) as directory:
            for ran in run(Path(directory), names):
                print(f"{ran.name}, {names}: {ran.seconds:.1f} s", file=sys.stderr)
                runs.append(ran)
    print(text(runs))
    return 0


if __name__ == "__main__":
    sys.exit(main())
