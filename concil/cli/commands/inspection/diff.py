"""`concil diff`: prints the differences of two images."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict

from concil.cli.commands.images import single_platform
from concil.cli.context import CommandContext
from concil.cli.open_engine import open_engine
from concil.cli.output import results
from concil.cli.output.errors import DONE
from concil.engine.images.image_diff import FieldDifference, ImageDiff
from concil.oci.descriptor import Descriptor
from concil.runtime.quantities import format_size
from concil.transfer.journal import Journal

_MAX_VALUE = 200  # characters of a value that is shown


def run(command: CommandContext) -> int:
    """Print what differs, and what a copy would have to move."""
    arguments = command.arguments
    platform = single_platform(command)
    with open_engine(command, journal=Journal(None)) as engine:
        diff = engine.diff(
            arguments.first,
            arguments.second,
            platform=None if platform is None else str(platform),
        )
    if arguments.format == "json":
        results.print_json(_to_json(diff))
        return DONE
    for line in _lines(diff):
        results.print_line(line)
    return DONE


def _lines(diff: ImageDiff) -> Iterator[str]:
    yield f"A  {diff.first}  {diff.first_digest}"
    yield f"B  {diff.second}  {diff.second_digest}"
    if diff.is_identical:
        yield "both are the same image"
        return
    yield from (f"note: {note}" for note in diff.notes)
    yield from _field_lines("manifest", diff.manifest)
    if diff.platforms:
        yield "platforms:"
        for entry in diff.platforms:
            yield f"  {entry.platform}: {entry.first or 'missing'} -> {entry.second or 'missing'}"
    yield from _field_lines("config", diff.config)
    count = len(diff.common_layers)
    size = format_size(sum(layer.size for layer in diff.common_layers))
    yield f"layers: {count} in common ({size})"
    for mark, layers in (("-", diff.first_layers), ("+", diff.second_layers)):
        for layer in layers:
            yield f"  {mark} {layer.digest}  {format_size(layer.size)}"
    yield (
        f"to move: {format_size(diff.bytes_to_second)} from A to a place that has B, "
        f"{format_size(diff.bytes_to_first)} from B to a place that has A"
    )


def _field_lines(title: str, fields: Sequence[FieldDifference]) -> Iterator[str]:
    if fields:
        yield f"{title}:"
    for entry in fields:
        yield f"  {entry.name}: {_shown(entry.first)} -> {_shown(entry.second)}"


def _shown(value: object) -> str:
    text = "missing" if value is None else json.dumps(value)
    return text if len(text) <= _MAX_VALUE else f"{text[: _MAX_VALUE - 3]}..."


def _to_json(diff: ImageDiff) -> dict[str, object]:
    return {
        "first": {"name": diff.first, "digest": diff.first_digest},
        "second": {"name": diff.second, "digest": diff.second_digest},
        "identical": diff.is_identical,
        "notes": list(diff.notes),
        "manifest": [asdict(entry) for entry in diff.manifest],
        "platforms": [asdict(entry) for entry in diff.platforms],
        "config": [asdict(entry) for entry in diff.config],
        "commonLayers": _layers(diff.common_layers),
        "firstLayers": _layers(diff.first_layers),
        "secondLayers": _layers(diff.second_layers),
        "bytesToSecond": diff.bytes_to_second,
        "bytesToFirst": diff.bytes_to_first,
    }


def _layers(layers: Sequence[Descriptor]) -> list[object]:
    return [
        {"mediaType": layer.media_type, "digest": str(layer.digest), "size": layer.size}
        for layer in layers
    ]
