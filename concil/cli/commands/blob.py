"""`concil blob`: pushes, pulls and checks single blobs."""

from __future__ import annotations

from concil.cli.context import CommandContext
from concil.cli.open_engine import open_engine
from concil.cli.open_stores import open_store_factory
from concil.cli.options import settings
from concil.cli.output import results
from concil.cli.output.errors import DONE
from concil.engine.store_factory import SourceStore, StoreFactory, blob_size
from concil.errors import ConcilError, NotFound, UsageError
from concil.oci.address import LayoutAddress, parse_address
from concil.oci.descriptor import Descriptor
from concil.oci.manifest import Digest, Verifier
from concil.oci.media_types import OCTET_STREAM
from concil.progress.events import Meter, State, report_transfer
from concil.runtime.quantities import format_size
from concil.transfer.blob.resuming_reader import ResumingReader
from concil.transfer.blob.source import BlobSource
from concil.transfer.context import TransferContext


def run_push(command: CommandContext) -> int:
    """Upload a file and print its descriptor."""
    arguments = command.arguments
    address = parse_address(arguments.repository)
    if not isinstance(address, LayoutAddress) and (address.tag or address.digest):
        raise UsageError(f"{address} is not just a repository", remedy="omit the tag and digest")
    with open_engine(command) as engine:
        blob = engine.push_blob(arguments.file, arguments.repository)
    command.display.close()
    results.print_json(blob.to_json())
    return DONE


def run_pull(command: CommandContext) -> int:
    """Download a blob into a file, or to standard output."""
    arguments = command.arguments
    if arguments.output == "-":
        return _write_to_stdout(command)
    if not arguments.output:
        raise UsageError("no output file is given", remedy="write -o FILE")
    with open_engine(command) as engine:
        blob = engine.pull_blob(arguments.address, arguments.output)
    command.display.close()
    command.print_message(f"{arguments.output}: {format_size(blob.size)}, {blob.digest}")
    return DONE


def run_head(command: CommandContext) -> int:
    """Print the descriptor of a blob."""
    with open_store_factory(command) as stores:
        store, digest = _open_store(command, stores)
        blob = _find_blob(store, digest)
    results.print_json(blob.to_json())
    return DONE


def _write_to_stdout(command: CommandContext) -> int:
    """Write a blob to standard output; the final block follows the verification."""
    results.check_not_terminal()
    with open_store_factory(command) as stores:
        store, digest = _open_store(command, stores)
        blob = _find_blob(store, digest)
        context = TransferContext(settings.build_config(command.arguments), command.shutdown.event)
        # Bars would mix with the output of the program that reads the pipe: only on request.
        sink = command.display if command.arguments.progress else None
        meter = Meter(sink, kind="blob", subject=str(digest), target="-", total=blob.size)
        with report_transfer(meter, blob.size):
            _stream_blob(store, blob, context, meter)
    return DONE


def _stream_blob(
    store: SourceStore, blob: Descriptor, context: TransferContext, meter: Meter
) -> None:
    source = BlobSource.in_store(store, blob).throttled(context.bandwidth, "", context.abandon)

    def lost(error: ConcilError) -> None:
        meter.set_state(State.RETRYING, detail=str(error))

    reader = ResumingReader(source.open, blob.size, context, source.name, lost)
    verifier = Verifier(blob.digest.algorithm)
    # Two alternating buffers: a reader of the pipe never gets the last block of a bad blob.
    buffer, spare = bytearray(context.config.block_size), bytearray(context.config.block_size)
    unwritten = memoryview(b"")
    try:
        while count := reader.readinto(memoryview(buffer)):
            results.write_bytes(unwritten)
            unwritten = memoryview(buffer)[:count]
            verifier.update(unwritten)
            meter.set_position(verifier.position)
            buffer, spare = spare, buffer
    finally:
        reader.close()
    verifier.verify(blob.digest, blob.size, source.name)
    results.write_bytes(unwritten)


def _open_store(command: CommandContext, store_factory: StoreFactory) -> tuple[SourceStore, Digest]:
    address = parse_address(command.arguments.address)
    if address.digest is None:
        raise UsageError(f"{address} has no digest", remedy="write REPOSITORY@sha256:...")
    return store_factory.open_source(
        address, settings.build_endpoint_options(command.arguments)
    ), address.digest


def _find_blob(store: SourceStore, digest: Digest) -> Descriptor:
    size = blob_size(store, digest)
    if size is None:
        raise NotFound(
            f"{store.name}@{digest} does not exist", remedy="check the repository and the digest"
        )
    return Descriptor(OCTET_STREAM, digest, size)
