"""`concil ls`: lists the repositories of a registry, or the tags of a repository."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from concil.cli.context import CommandContext
from concil.cli.open_engine import open_engine
from concil.cli.output import results
from concil.cli.output.errors import DONE, PARTIAL_FAILURE, describe_error
from concil.cli.output.tables import stream_table
from concil.engine.engine import Engine
from concil.engine.images.tags import TagDetails
from concil.errors import UsageError
from concil.oci.address import LOCAL_SCHEMES, LayoutAddress, parse_address
from concil.oci.foreign_address import translate_address
from concil.runtime.quantities import format_size
from concil.transfer.journal import Journal

_MIN_PORT = 80  # a smaller number behind a name is a tag: alpine:3


def run(command: CommandContext) -> int:
    """Print the names; with ``-l``, what each tag names."""
    arguments = command.arguments
    registry = _find_registry(arguments.address)
    if registry and arguments.long:
        raise UsageError(
            f"-l describes the tags of a repository, and {arguments.address} is a registry",
            remedy=f"list its repositories first: concil ls {arguments.address}",
        )
    with open_engine(command, journal=Journal(None)) as engine:
        if registry:
            return _print_names(
                arguments.format, "repositories", engine.list_repositories(registry), registry
            )
        address = parse_address(arguments.address)
        name = address.name if isinstance(address, LayoutAddress) else address.tag
        if name or address.digest:
            raise UsageError(f"{address} is a single image", remedy="omit the tag and digest")
        if arguments.long:
            return _print_details(command, engine, str(address))
        return _print_names(
            arguments.format, "tags", engine.list_tags(arguments.address), str(address)
        )


def _find_registry(text: str) -> str:
    """Return the registry that an argument names; "" if it names a repository or layout."""
    address = translate_address(text)
    if address.startswith(LOCAL_SCHEMES):
        return ""
    address = address.removeprefix("docker://").rstrip("/")
    scheme, separator, rest = address.rpartition("://")
    host = rest.rpartition("@")[2]
    if "/" in rest or "@sha" in rest:
        return ""
    name, _, port = host.partition(":")
    is_host = bool(separator) or "." in name or name == "localhost" or host.startswith("[")
    is_host = is_host or (port.isdecimal() and int(port[:6]) >= _MIN_PORT)
    return f"{scheme}{separator}{rest}" if is_host else ""


def _print_names(output_format: str, kind: str, names: Any, owner: str) -> int:  # noqa: ANN401 - an iterator
    if output_format == "json":
        results.print_json({"name": owner, kind: list(names)})
        return DONE
    for name in names:
        results.print_line(name)
    return DONE


def _print_details(command: CommandContext, engine: Engine, owner: str) -> int:
    details = engine.describe_tags(command.arguments.address)
    if command.arguments.format == "json":
        tags = list(details)
        results.print_json({"name": owner, "tags": [_to_json(tag) for tag in tags]})
        return PARTIAL_FAILURE if any(tag.error for tag in tags) else DONE
    failed: list[str] = []

    def rows() -> Iterator[Sequence[str]]:
        for tag in details:
            failed.extend([tag.tag] if tag.error else [])
            yield _to_row(tag)

    stream_table(("TAG", "DIGEST", "SIZE", "CREATED", "PLATFORMS"), rows(), "SIZE")
    return PARTIAL_FAILURE if failed else DONE


def _to_row(tag: TagDetails) -> Sequence[str]:
    return (
        tag.tag,
        tag.digest[:19] or "-",
        "-" if tag.error else format_size(tag.size),
        tag.created[:19] or "-",
        describe_error(tag.error) if tag.error else ",".join(tag.platforms) or "-",
    )


def _to_json(tag: TagDetails) -> dict[str, object]:
    if tag.error is not None:
        return {"tag": tag.tag, "digest": tag.digest, "error": describe_error(tag.error)}
    return {
        "tag": tag.tag,
        "digest": tag.digest,
        "mediaType": tag.media_type,
        "size": tag.size,
        "created": tag.created,
        "platforms": list(tag.platforms),
    }
