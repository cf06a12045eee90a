"""`concil demo`: mirrors between two local registries, breaks a connection, verifies the result."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from concil.cli.context import CommandContext
from concil.cli.demo.image_maker import DemoImages, DemoImageWriter
from concil.cli.demo.registry_process import RegistryProcess
from concil.cli.demo.relay import Relay
from concil.cli.open_engine import open_engine
from concil.cli.options import settings
from concil.cli.output import results
from concil.cli.output.errors import DONE
from concil.config import MIB
from concil.engine.image_resolver import Endpoints
from concil.engine.store_factory import SourceStore, StoreFactory
from concil.errors import DigestMismatch
from concil.oci.address import parse_address
from concil.oci.descriptor import Descriptor
from concil.oci.manifest import Digest, Verifier
from concil.progress.events import State
from concil.runtime.dataclass import dataclass
from concil.runtime.quantities import format_size
from concil.store.layout.store import LayoutDirectory
from concil.transfer.blob.resuming_reader import ResumingReader
from concil.transfer.context import TransferContext
from concil.transfer.journal import Journal
from concil.transfer.mirror.report import MirrorItem, MirrorReport

_LARGE_LAYER_SIZE = 96 * MIB  # bytes
_RATE = 24 * MIB  # bytes per second of the relay
_CUT_AFTER = 45 * MIB  # bytes; in the middle of a chunk, about half of the large layer


@dataclass(frozen=True, slots=True)
class _DemoResult:
    """The measured results of the demo."""

    images: DemoImages
    first_run: MirrorReport
    second_run: MirrorReport
    relay: Relay
    seconds: float  # of the first mirror
    verified: Counter[str]  # manifests, blobs and bytes


def run(command: CommandContext) -> int:
    """Run the demo.

    Raises:
        DigestMismatch: content at the destination differs from what was generated.
    """
    began = time.monotonic()
    with (
        _temporary_directory(command) as directory,
        _bypass_proxies(),
        contextlib.ExitStack() as stack,
    ):
        command.print_message("creating five images with shared layers; one layer has 96 MiB ...")
        source, destination = directory / "source", directory / "destination"
        destination.mkdir()
        images = DemoImageWriter(LayoutDirectory(source, create=True)).write_images(
            _LARGE_LAYER_SIZE
        )
        command.print_message("starting two registries in separate processes ...")
        registries = [
            _start_registry(command, stack, layout_path) for layout_path in (source, destination)
        ]
        src_host, dest_host = registries[0].host, registries[1].host
        relay = stack.enter_context(Relay(registries[1].address, rate=_RATE, cut_after=_CUT_AFTER))
        command.print_message(
            f"mirroring {src_host} to {dest_host} over a link of {format_size(_RATE)}/s that "
            "will break"
        )
        items = [
            MirrorItem(f"http://{src_host}/{name}", f"http://127.0.0.1:{relay.port}/mirror/{name}")
            for name in images.digests
        ]
        first, seconds = _mirror(command, items)
        second, _ = _mirror(command, items)
        command.print_message("reading everything back from the destination ...")
        verified = _verify(command, f"http://{dest_host}/mirror", images)
        command.display.close()
        result = _DemoResult(images, first, second, relay, seconds, verified)
        for line in _summary(result, time.monotonic() - began):
            results.print_line(line)
    return DONE


def _mirror(command: CommandContext, items: list[MirrorItem]) -> tuple[MirrorReport, float]:
    """Mirror the items; raises the error of the first image that failed."""
    began = time.monotonic()
    command.display.set_expected_images(len(items))
    with open_engine(command, Endpoints(), Journal(None)) as engine:
        report = engine.mirror(items)
    for outcome in report.failed:
        if outcome.error is not None:
            raise outcome.error
    return report, time.monotonic() - began


def _verify(command: CommandContext, base: str, images: DemoImages) -> Counter[str]:
    """Read and hash every manifest and blob of every image; return the counts."""
    count: Counter[str] = Counter()
    context = TransferContext(settings.build_config(command.arguments), command.shutdown.event)
    with StoreFactory(context.config, timeouts=None, cancel=context.cancel) as stores:
        for name, digest in images.digests.items():
            store = stores.open_source(parse_address(f"{base}/{name}"))
            manifest_descriptor = store.find_manifest(name.rpartition(":")[2])
            if manifest_descriptor is None or manifest_descriptor.digest != digest:
                raise DigestMismatch(f"{base}/{name} is not {digest}")
            pending, seen = [digest], set[Digest]()
            while pending:
                manifest = store.get_manifest(str(pending.pop()))
                count["manifests"] += 1
                pending += [child.digest for child in manifest.children()]
                for blob in manifest.blobs():
                    if blob.digest not in seen:
                        seen.add(blob.digest)
                        _verify_blob(store, blob, context)
                        count["blobs"] += 1
                        count["bytes"] += blob.size
    return count


def _verify_blob(store: SourceStore, blob: Descriptor, context: TransferContext) -> None:
    name = f"{store.name}@{blob.digest}"
    reader = ResumingReader(lambda start: store.open_blob(blob, start), blob.size, context, name)
    verifier, buffer = Verifier(blob.digest.algorithm), memoryview(bytearray(MIB))
    try:
        while size := reader.readinto(buffer):
            verifier.update(buffer[:size])
    finally:
        reader.close()
    verifier.verify(blob.digest, blob.size, name)


def _summary(outcome: _DemoResult, seconds: float) -> Iterator[str]:
    """Yield the lines that summarize the demo."""
    images, first = outcome.images, outcome.first_run
    blob_results = [blob_result for result in first.copied for blob_result in result.blobs]
    sent = [blob_result for blob_result in blob_results if blob_result.state is State.DONE]
    shared = [blob_result for blob_result in blob_results if blob_result.state is not State.DONE]
    yield (
        f"copied    {len(first.copied)} images with {images.manifest_count} manifests for "
        f"{images.platform_count} platforms: {len(sent)} blobs, {format_size(first.bytes_sent)}, "
        f"in {outcome.seconds:.1f} s"
    )
    yield (
        f"shared    {len(shared)} layers were needed again and not sent again: "
        f"{format_size(sum(blob_result.blob.size for blob_result in shared))} saved"
    )
    if outcome.relay.was_cut:
        resent = max(0, outcome.relay.bytes_up - first.bytes_sent)
        yield (
            f"cut       one connection, after {format_size(_CUT_AFTER)}; the upload of "
            f"{format_size(images.large_layer.size)} resumed at its offset"
        )
        yield (f"          overhead, including bytes sent again: {format_size(resent)}")
    else:
        yield "cut       no connection: none transferred enough bytes"
    yield (
        f"again     the same mirror a second time: {len(outcome.second_run.present)} images up "
        "to date"
    )
    yield (
        f"verified  {outcome.verified['manifests']} manifests and {outcome.verified['blobs']} "
        f"blobs "
        f"({format_size(outcome.verified['bytes'])}) read back and hashed: all match"
    )
    yield f"time      {seconds:.1f} s in total; everything was removed"


def _start_registry(
    command: CommandContext, stack: contextlib.ExitStack, directory: Path
) -> RegistryProcess:
    process = stack.enter_context(RegistryProcess(directory))
    command.shutdown.add_exit_callback(process.kill)
    return process


@contextlib.contextmanager
def _temporary_directory(command: CommandContext) -> Iterator[Path]:
    """Create a temporary directory; it is removed even if the program exits early."""
    directory = Path(tempfile.mkdtemp(prefix="concil-demo-"))

    def remove() -> None:
        shutil.rmtree(directory, ignore_errors=True)

    command.shutdown.add_exit_callback(remove)
    try:
        yield directory
    finally:
        remove()


@contextlib.contextmanager
def _bypass_proxies() -> Iterator[None]:
    """Bypass any proxy: the demo's requests stay on this machine."""
    previous = os.environ.get("no_proxy")
    os.environ["no_proxy"] = "127.0.0.1"
    try:
        yield
    finally:
        if previous is None:
            del os.environ["no_proxy"]
        else:
            os.environ["no_proxy"] = previous
