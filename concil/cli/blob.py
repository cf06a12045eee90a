"""`concil blob`: single blobs to and from files."""

from __future__ import annotations

from typing import TYPE_CHECKING

from concil.cli import options, results
from concil.cli.command import Command
from concil.cli.failures import DONE
from concil.content import Descriptor, Digest, Verifier
from concil.engine import OCTETS
from concil.errors import ConcilError, NotFound, UsageError
from concil.progress import Meter, State, told
from concil.reference import LayoutAddress, parse_address
from concil.store.protocol import BlobReader
from concil.stores import Store, Stores, blob_size
from concil.transfer.push import ResumingReader
from concil.transfer.run import Run

if TYPE_CHECKING:
    from concil.cli.options import Subparsers


def add_parser(subparsers: Subparsers) -> None:
    """Add the verbs to the command line."""
    group = subparsers.add_parser("blob", help="push, pull or ask for a single blob")
    verbs = group.add_subparsers(dest="blob_verb", metavar="VERB", required=True)
    push = verbs.add_parser(
        "push", help="upload a file", description="Upload a file; prints its descriptor as JSON."
    )
    push.add_argument("file", metavar="FILE")
    push.add_argument("repository", metavar="REPO", help="host/repository")
    options.add_progress(push)
    options.add_registry(push)
    push.set_defaults(work=run_push)
    pull = verbs.add_parser(
        "pull",
        help="download a blob into a file",
        description="Download a blob; the file appears when its bytes were verified.",
    )
    pull.add_argument("address", metavar="REPO@DIGEST")
    pull.add_argument("-o", "--output", metavar="FILE", required=True, help="-: standard output")
    options.add_progress(pull)
    options.add_registry(pull)
    pull.set_defaults(work=run_pull)
    head = verbs.add_parser(
        "head",
        help="ask whether a blob is there",
        description="Print the descriptor of a blob as JSON; exit code 4 if it is not there.",
    )
    head.add_argument("address", metavar="REPO@DIGEST")
    options.add_registry(head)
    head.set_defaults(work=run_head)
    for each in (push, pull, head):
        options.add_common(each)


def run_push(command: Command) -> int:
    """Upload a file."""
    arguments = command.arguments
    address = parse_address(arguments.repository)
    if not isinstance(address, LayoutAddress) and (address.tag or address.digest):
        raise UsageError(f"{address} is more than a repository", remedy="leave tag and digest out")
    with command.engine() as engine:
        blob = engine.push_blob(arguments.file, arguments.repository)
    command.display.close()
    results.put_json(blob.to_json())
    return DONE


def run_pull(command: Command) -> int:
    """Download a blob into a file, or pour it out."""
    arguments = command.arguments
    if arguments.output == "-":
        return _pour(command)
    if not arguments.output:
        raise UsageError("no file to write", remedy="write -o FILE")
    with command.engine() as engine:
        blob = engine.pull_blob(arguments.address, arguments.output)
    command.display.close()
    command.tell(f"{arguments.output}: {blob.size} bytes, {blob.digest}")
    return DONE


def run_head(command: Command) -> int:
    """Ask for a blob."""
    with command.stores() as stores:
        store, digest = _opened(command, stores)
        blob = _found(store, digest)
    results.put_json(blob.to_json())
    return DONE


def _pour(command: Command) -> int:
    """Write a blob to standard output; its last bytes are held back until all are verified."""
    results.check_binary()
    with command.stores() as stores:
        store, digest = _opened(command, stores)
        blob = _found(store, digest)
        run = Run(options.config_of(command.arguments), command.stop.event)
        # Bars would go through what the reader of the pipe shows: only for who asks for them.
        sink = command.display if command.arguments.progress else None
        meter = Meter(sink, kind="blob", subject=str(digest), target="-", total=blob.size)
        with told(meter, blob.size):
            _pour_blob(store, blob, run, meter)
    return DONE


def _pour_blob(store: Store, blob: Descriptor, run: Run, meter: Meter) -> None:
    name = f"{store.name}@{blob.digest}"

    def opened(start: int) -> BlobReader:
        return run.bandwidth.paced(store.open_blob(blob, start), (store.host,), run.abandon)

    def lost(error: ConcilError) -> None:
        meter.state(State.RETRYING, detail=str(error))

    reader = ResumingReader(opened, blob.size, run, name, lost)
    verifier = Verifier(blob.digest.algorithm)
    # Two buffers in turn: a reader of the pipe never gets the last piece of wrong bytes.
    buffer, held = bytearray(run.config.block_size), bytearray(run.config.block_size)
    waiting = memoryview(b"")
    try:
        while count := reader.readinto(memoryview(buffer)):
            results.put_bytes(waiting)
            waiting = memoryview(buffer)[:count]
            verifier.update(waiting)
            meter.at(verifier.position)
            buffer, held = held, buffer
    finally:
        reader.close()
    verifier.check(blob.digest, blob.size, name)
    results.put_bytes(waiting)


def _opened(command: Command, stores: Stores) -> tuple[Store, Digest]:
    address = parse_address(command.arguments.address)
    if address.digest is None:
        raise UsageError(f"{address} has no digest", remedy="write REPOSITORY@sha256:...")
    return stores.source(address, options.access_of(command.arguments)), address.digest


def _found(store: Store, digest: Digest) -> Descriptor:
    size = blob_size(store, digest)
    if size is None:
        raise NotFound(
            f"{store.name}@{digest} is not there", remedy="check the repository and the digest"
        )
    return Descriptor(OCTETS, digest, size)
