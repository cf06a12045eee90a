"""`concil demo`: a mirror between two registries, one connection cut, everything verified."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from concil.bars import sized
from concil.cli import options, results
from concil.cli.command import Command
from concil.cli.demo_images import Made, Maker
from concil.cli.demo_link import Link
from concil.cli.demo_registry import Served
from concil.cli.failures import DONE
from concil.config import MIB
from concil.content import Descriptor, Digest, Verifier
from concil.engine import Sides
from concil.errors import DigestMismatch
from concil.progress import State
from concil.reference import parse_address
from concil.store.layout import Layout
from concil.stores import Store, Stores
from concil.transfer.journal import Journal
from concil.transfer.mirror import MirrorItem, MirrorReport
from concil.transfer.push import ResumingReader
from concil.transfer.run import Run

if TYPE_CHECKING:
    from concil.cli.options import Subparsers

_LARGE = 96 * MIB  # bytes of the large layer
_RATE = 24 * MIB  # bytes a second of the link
_CUT = 45 * MIB  # bytes: in the middle of a chunk, about half of the large layer


def add_parser(subparsers: Subparsers) -> None:
    """Add the verb to the command line."""
    parser = subparsers.add_parser(
        "demo",
        help="watch a mirror between two registries of this machine",
        description="Start two registries, fill one with generated images, mirror them to the "
        "other over a slow line of which one connection is cut, and verify everything. "
        "Needs no network and leaves nothing behind.",
    )
    options.add_progress(parser)
    parser.set_defaults(work=run, retry=5)


@dataclass(frozen=True, slots=True)
class _Seen:
    """What happened."""

    made: Made
    first: MirrorReport
    again: MirrorReport
    link: Link
    seconds: float  # of the first mirror
    verified: Counter[str]  # manifests, blobs and bytes


def run(command: Command) -> int:
    """Run the demo.

    Raises:
        DigestMismatch: something at the destination is not what was made.
    """
    began = time.monotonic()
    with _place(command) as place, _direct(), contextlib.ExitStack() as opened:
        command.tell("making five images with shared layers, one layer of 96 MiB ...")
        source, destination = place / "source", place / "destination"
        destination.mkdir()
        made = Maker(Layout(source, create=True)).make(_LARGE)
        command.tell("starting two registries in processes of their own ...")
        registries = [_served(command, opened, each) for each in (source, destination)]
        near, far = registries[0].host, registries[1].host
        link = opened.enter_context(Link(registries[1].address, rate=_RATE, cut_after=_CUT))
        command.tell(f"mirroring {near} to {far} over a line of {sized(_RATE)}/s that will break")
        items = [
            MirrorItem(f"http://{near}/{name}", f"http://127.0.0.1:{link.port}/mirror/{name}")
            for name in made.images
        ]
        first, seconds = _mirror(command, items)
        again, _ = _mirror(command, items)
        command.tell("reading everything back from the destination ...")
        verified = _verify(command, f"http://{far}/mirror", made)
        command.display.close()
        seen = _Seen(made, first, again, link, seconds, verified)
        for line in _summary(seen, time.monotonic() - began):
            results.put_line(line)
    return DONE


def _mirror(command: Command, items: list[MirrorItem]) -> tuple[MirrorReport, float]:
    """Mirror the items; the first failure of an image is the demo's."""
    began = time.monotonic()
    command.display.expect(len(items))
    with command.engine(Sides(), Journal(None)) as engine:
        report = engine.mirror(items)
    for outcome in report.failed:
        if outcome.error is not None:
            raise outcome.error
    return report, time.monotonic() - began


def _verify(command: Command, base: str, made: Made) -> Counter[str]:
    """Read every manifest and blob of every image, and hash it; count them."""
    count: Counter[str] = Counter()
    run = Run(options.config_of(command.arguments), command.stop.event)
    with Stores(run.config, timeouts=None, cancel=run.cancel) as stores:
        for name, digest in made.images.items():
            store = stores.source(parse_address(f"{base}/{name}"))
            found = store.find_manifest(name.rpartition(":")[2])
            if found is None or found.digest != digest:
                raise DigestMismatch(f"{base}/{name} is not {digest}")
            waiting, seen = [digest], set[Digest]()
            while waiting:
                manifest = store.get_manifest(str(waiting.pop()))
                count["manifests"] += 1
                waiting += [child.digest for child in manifest.children()]
                for blob in manifest.blobs():
                    if blob.digest not in seen:
                        seen.add(blob.digest)
                        _check(store, blob, run)
                        count["blobs"] += 1
                        count["bytes"] += blob.size
    return count


def _check(store: Store, blob: Descriptor, run: Run) -> None:
    name = f"{store.name}@{blob.digest}"
    reader = ResumingReader(lambda start: store.open_blob(blob, start), blob.size, run, name)
    verifier, buffer = Verifier(blob.digest.algorithm), memoryview(bytearray(MIB))
    try:
        while size := reader.readinto(buffer):
            verifier.update(buffer[:size])
    finally:
        reader.close()
    verifier.check(blob.digest, blob.size, name)


def _summary(seen: _Seen, seconds: float) -> Iterator[str]:
    """What a person who has just watched wants to know."""
    made, first = seen.made, seen.first
    landed = [each for result in first.copied for each in result.blobs]
    sent = [each for each in landed if each.state is State.DONE]
    shared = [each for each in landed if each.state is not State.DONE]
    yield (
        f"copied    {len(first.copied)} images with {made.manifests} manifests for "
        f"{made.platforms} platforms: {len(sent)} blobs, {sized(first.sent)}, "
        f"in {seen.seconds:.1f} s"
    )
    yield (
        f"shared    layers were needed again {len(shared)} times and not sent again: "
        f"{sized(sum(each.blob.size for each in shared))} saved"
    )
    if seen.link.was_cut:
        lost = max(0, seen.link.carried - first.sent)
        yield (
            f"cut       one connection, after {sized(_CUT)}; the upload of "
            f"{sized(made.large.size)} went on where it was"
        )
        yield (f"          sent beside the blobs, bytes sent again among it: {sized(lost)}")
    else:
        yield "cut       no connection: none carried enough"
    yield f"again     the same mirror once more: {len(seen.again.present)} images up to date"
    yield (
        f"verified  {seen.verified['manifests']} manifests and {seen.verified['blobs']} blobs "
        f"({sized(seen.verified['bytes'])}) read back and hashed: all as they were made"
    )
    yield f"time      {seconds:.1f} s with everything; nothing is left behind"


def _served(command: Command, opened: contextlib.ExitStack, directory: Path) -> Served:
    served = opened.enter_context(Served(directory))
    command.stop.before_exit(served.kill)
    return served


@contextlib.contextmanager
def _place(command: Command) -> Iterator[Path]:
    """A temporary directory that is gone afterwards, also if the program ends at once."""
    place = Path(tempfile.mkdtemp(prefix="concil-demo-"))

    def remove() -> None:
        shutil.rmtree(place, ignore_errors=True)

    command.stop.before_exit(remove)
    try:
        yield place
    finally:
        remove()


@contextlib.contextmanager
def _direct() -> Iterator[None]:
    """Keep the demo's requests off any proxy: they are for this machine."""
    before = os.environ.get("no_proxy")
    os.environ["no_proxy"] = "127.0.0.1"
    try:
        yield
    finally:
        if before is None:
            del os.environ["no_proxy"]
        else:
            os.environ["no_proxy"] = before
