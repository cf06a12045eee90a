"""`concil manifest push`: writes a manifest from a file."""

from __future__ import annotations

from concil.cli.context import CommandContext
from concil.cli.open_engine import open_engine
from concil.cli.options import settings
from concil.cli.output import results
from concil.cli.output.addresses import address_by_digest
from concil.cli.output.errors import DONE
from concil.cli.standard_input import open_standard_input
from concil.errors import InvalidManifest, UsageError, safe_repr
from concil.fs.local_file import LocalFile
from concil.oci.address import parse_address


def run_push(command: CommandContext, file: str, destination: str) -> int:
    """Push a manifest and print its address by digest."""
    address = parse_address(destination)
    if command.arguments.platform:
        raise UsageError("--platform does not apply to a push", remedy="omit it")
    limit = settings.build_config(command.arguments).max_manifest_size
    content = _read(file, limit + 1)
    if len(content) > limit:
        raise InvalidManifest(
            f"{safe_repr(file)} is larger than {limit} bytes",
            remedy="registries refuse such a manifest; check that it is one",
        )
    with open_engine(command) as engine:
        descriptor = engine.push_manifest(
            content, destination, media_type=command.arguments.media_type
        )
    command.display.close()
    results.print_line(address_by_digest(address, descriptor.digest))
    return DONE


def _read(path: str, size: int) -> bytes:
    """Return up to ``size`` bytes of a file, or of standard input for ``-``."""
    content = bytearray()
    if path == "-":
        stream = open_standard_input()
        while len(content) < size and (piece := stream.read(size - len(content))):
            content += piece
        return bytes(content)
    buffer = memoryview(bytearray(size))
    with LocalFile(path).open() as reader:
        count = 1
        while count and len(content) < size:
            count = reader.readinto(buffer)
            content += buffer[:count]
    return bytes(content)
