"""`concil blob`: pushes, pulls, checks, mounts and deletes single blobs."""

from __future__ import annotations

from concil.cli.context import CommandContext
from concil.cli.open_engine import open_engine
from concil.cli.open_stores import open_store_factory
from concil.cli.options import settings
from concil.cli.output import results
from concil.cli.output.errors import DONE
from concil.cli.standard_input import open_standard_input
from concil.engine.blobs.blob_stream import write_blob
from concil.engine.store_factory import SourceStore, StoreFactory, blob_size
from concil.errors import NotFound, UsageError
from concil.oci.address import LayoutAddress, parse_address
from concil.oci.descriptor import Descriptor
from concil.oci.manifest import Digest
from concil.oci.media_types import OCTET_STREAM
from concil.progress.events import Meter, report_transfer
from concil.runtime.quantities import format_size
from concil.transfer.context import TransferContext


def run_push(command: CommandContext) -> int:
    """Upload a file and print its descriptor."""
    arguments = command.arguments
    address = parse_address(arguments.repository)
    if not isinstance(address, LayoutAddress) and (address.tag or address.digest):
        raise UsageError(f"{address} is not just a repository", remedy="omit the tag and digest")
    content = open_standard_input() if arguments.file == "-" else arguments.file
    with open_engine(command) as engine:
        blob = engine.push_blob(content, arguments.repository)
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


def run_delete(command: CommandContext) -> int:
    """Delete a blob and print its address."""
    address = parse_address(command.arguments.address)
    with open_engine(command) as engine:
        engine.delete_blob(command.arguments.address)
    command.display.close()
    results.print_line(str(address))
    return DONE


def run_mount(command: CommandContext) -> int:
    """Mount a blob into another repository and print its descriptor."""
    arguments = command.arguments
    with open_engine(command) as engine:
        blob = engine.mount_blob(arguments.address, arguments.repository)
    command.display.close()
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
        sink = command.display if command.arguments.is_progress_given else None
        meter = Meter(sink, kind="blob", subject=str(digest), target="-", total=blob.size)
        with report_transfer(meter, blob.size):
            write_blob(store, blob, results.write_bytes, context, meter)
    return DONE


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
