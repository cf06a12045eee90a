"""`python -m benchmarks.tags`: memory and time of a plan over very many tags of one repository.

The registry is made up: it lists as many tags as it is asked to have, by pages of a thousand,
and every tag names the same image. What is measured is concil, in a process of its own.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import parse_qs, urlsplit

from benchmarks.bench import concil
from benchmarks.measure import MIB, Measured, measure
from benchmarks.table import markdown

COUNTS = (1_000, 10_000, 100_000)
JOBS = 16
PAGE = 1_000  # tags
_HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/vnd.oci.image.manifest.v1+json\r\n"
    b"Docker-Content-Digest: sha256:" + b"a" * 64 + b"\r\nContent-Length: 500\r\n\r\n"
)


class MadeUp(asyncio.Protocol):
    """One connection to a registry whose repositories have ``count`` tags each."""

    count = 0  # tags; of all connections
    began = 0.0  # monotonic seconds, as the next two
    first = 0.0  # when a manifest was asked for
    asked = 0  # requests

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._head = b""

    def data_received(self, data: bytes) -> None:
        self._head += data
        while b"\r\n\r\n" in self._head:
            head, _, self._head = self._head.partition(b"\r\n\r\n")
            self._transport.write(self._answer(head.split(b" ", 2)[1].decode()))

    def _answer(self, target: str) -> bytes:
        MadeUp.asked += 1
        if "/manifests/" in target:
            MadeUp.first = MadeUp.first or time.monotonic()
            return _HEAD
        url = urlsplit(target)
        start = int(parse_qs(url.query).get("last", ["v0"])[0].removeprefix("v"))
        stop = min(start + PAGE, self.count)
        body = json.dumps({"tags": [f"v{n}" for n in range(start + 1, stop + 1)]}).encode()
        following = f'Link: <{url.path}?n={PAGE}&last=v{stop}>; rel="next"\r\n'
        head = (
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
            f"{following if stop < self.count else ''}Content-Length: {len(body)}\r\n\r\n"
        )
        return head.encode() + body


@contextmanager
def made_up_registry() -> Iterator[str]:
    """Run it in a thread; yield its host and port."""
    loop = asyncio.new_event_loop()
    server = loop.run_until_complete(loop.create_server(MadeUp, "127.0.0.1", 0))
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        server.close()
        loop.close()


@dataclass(frozen=True, slots=True)
class Ran:
    """One run over so many tags."""

    tags: int
    name: str
    measured: Measured
    asked: int  # requests
    first: float  # seconds until a manifest was asked for; 0: never

    def row(self) -> tuple[str, ...]:
        """Its line of the table."""
        return (
            self.name,
            f"{self.tags}",
            f"{self.asked}",
            f"{self.first:.1f}" if self.first else "",
            f"{self.measured.seconds:.1f}",
            f"{self.measured.seconds / self.tags * 1000:.2f}",
            f"{self.measured.rss / MIB:.1f}",
        )


def run(host: str, directory: Path, tags: int, name: str, fields: str) -> Ran:
    """Mirror every tag of a repository to another, where all is up to date."""
    plan = directory / "plan.toml"
    plan.write_text(f'[[mirror]]\nsource = "http://{host}/many/tags"\n{fields}\n')
    MadeUp.count, MadeUp.asked, MadeUp.first = tags, 0, 0.0
    began = time.monotonic()
    environment = {
        "PATH": os.environ.get("PATH", ""),
        "PYTHONPATH": os.environ.get("PYTHONPATH", ""),
        "HOME": str(directory),
    }
    command = concil("mirror", str(plan), f"http://{host}/m", f"--jobs={JOBS}")
    measured, said = measure(command, environment, timeout=3600)
    assert said.startswith(f"{tags} images: 0 copied, {tags} up to date, 0 failed"), said
    return Ran(tags, name, measured, MadeUp.asked, MadeUp.first - began if MadeUp.first else 0.0)


def text(runs: Sequence[Ran]) -> str:
    """The table."""
    headings = ("run", "tags", "requests", "first image s", "seconds", "ms a tag", "RSS MiB")
    return markdown(headings, [one.row() for one in runs], left=1)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tags", description=__doc__)
    parser.add_argument("--tags", type=int, action="append", help="may be repeated")
    options = parser.parse_args(arguments)
    runs = []
    with made_up_registry() as host, TemporaryDirectory() as directory:
        for tags in options.tags or COUNTS:
            for name, fields in (
                ("two HEADs a tag", ""),
                ("immutable, first", 'immutable = "v.*"'),
                ("immutable, again", 'immutable = "v.*"'),
            ):
                runs.append(run(host, Path(directory), tags, name, fields))
                print(f"{name}, {tags}: {runs[-1].measured.seconds:.1f} s", file=sys.stderr)
    print(text(sorted(runs, key=lambda one: one.name)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
