"""`concil push`, `pull`, `attach` and `referrers`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from concil.cli.commands.images import single_platform
from concil.cli.context import CommandContext
from concil.cli.open_engine import open_engine
from concil.cli.options.signature_options import build_verifier
from concil.cli.output import results
from concil.cli.output.addresses import address_by_digest
from concil.cli.output.errors import DONE
from concil.cli.standard_input import open_standard_input
from concil.engine.artifacts.annotation_file import AnnotationFile
from concil.engine.artifacts.files import ArtifactFile
from concil.engine.artifacts.pusher import EMPTY_CONFIG_FILE, PushedArtifact
from concil.errors import UsageError, safe_repr
from concil.oci.address import Address, parse_address
from concil.oci.artifact import CREATED, TITLE
from concil.oci.descriptor import Descriptor
from concil.oci.media_types import is_media_type
from concil.runtime.quantities import format_size
from concil.transfer.blob.stream import SupportsRead


def run_push(command: CommandContext) -> int:
    """Push files and print the address of the artifact."""
    arguments = command.arguments
    *words, destination = arguments.words or [""]
    if not words and not (arguments.config and destination):
        raise UsageError(
            "push needs files and a destination", remedy="write: concil push FILE... REF"
        )
    if words and os.path.lexists(destination) and not os.path.lexists(words[0]):
        raise UsageError(
            f"{safe_repr(destination)} is a file, and the destination comes last",
            remedy="write: concil push FILE... REF",
        )
    address = parse_address(destination)
    annotations = _read_annotations(command)
    config = _read_config(arguments.config, annotations)
    files = _read_files(command, words, annotations)
    _announce_packing(command, files)
    with open_engine(command) as engine:
        pushed = engine.push_files(
            files,
            destination,
            artifact_type=arguments.artifact_type,
            annotations=annotations.manifest,
            config=config,
        )
    _print_pushed(command, address, pushed, f"pushed {address}")
    return DONE


def run_attach(command: CommandContext) -> int:
    """Attach files to an image and print the address of the artifact."""
    arguments = command.arguments
    address = parse_address(arguments.subject)
    annotations = _read_annotations(command)
    if not arguments.words and not annotations.manifest:
        raise UsageError("attach needs files", remedy="write: concil attach FILE... --to REF")
    files = _read_files(command, arguments.words, annotations)
    _announce_packing(command, files)
    with open_engine(command) as engine:
        pushed = engine.attach(
            files,
            arguments.subject,
            arguments.artifact_type,
            annotations=annotations.manifest,
            config=_read_config("", annotations),
            platform=_platform(command),
        )
    _print_pushed(command, address, pushed, f"attached to {address}")
    return DONE


def run_pull(command: CommandContext) -> int:
    """Pull the files of an artifact and print their paths."""
    arguments = command.arguments
    if not arguments.output:
        raise UsageError("no output directory is given", remedy="write -o DIR")
    verifier = build_verifier(arguments)
    with open_engine(command) as engine:
        pulled = engine.pull_files(
            arguments.address, arguments.output, platform=_platform(command), verifier=verifier
        )
    command.display.close()
    if pulled.untitled_count:
        command.print_message(
            f"{_count(pulled.untitled_count, 'blob')} without a title: not pulled"
        )
    total = sum(file.descriptor.size for file in pulled.files)
    command.print_message(
        f"pulled {arguments.address}: {_count(len(pulled.files), 'file')}, {format_size(total)}"
    )
    if arguments.format == "json":
        files = [{"path": str(file.path), **file.descriptor.to_json()} for file in pulled.files]
        results.print_json(
            {
                "reference": str(parse_address(arguments.address)),
                "digest": str(pulled.descriptor.digest),
                "artifactType": pulled.artifact_type,
                "files": files,
            }
        )
    else:
        for file in pulled.files:
            results.print_line(str(file.path))
    return DONE


def run_referrers(command: CommandContext) -> int:
    """List the referrers of an image."""
    arguments = command.arguments
    with open_engine(command) as engine:
        found = engine.referrers(
            arguments.address, artifact_type=arguments.artifact_type, platform=_platform(command)
        )
    command.display.close()
    if arguments.format == "json":
        results.print_json([referrer.to_json() for referrer in found])
    elif found:
        _print_table([("DIGEST", "ARTIFACT TYPE", "CREATED"), *map(_referrer_row, found)])
    else:
        command.print_message(f"nothing refers to {arguments.address}")
    return DONE


def _read_config(text: str, annotations: AnnotationFile) -> ArtifactFile | None:
    """Return the config; None: the empty one, without annotations."""
    if not text:
        empty = replace(EMPTY_CONFIG_FILE, annotations=annotations.config)
        return empty if annotations.config else None
    path, media_type = split_media_type(text)
    if path == "-":
        raise UsageError("the config cannot be standard input", remedy="write --config FILE")
    return ArtifactFile(path, "config", media_type, annotations.config)


def _read_files(
    command: CommandContext, words: Sequence[str], annotations: AnnotationFile
) -> list[ArtifactFile]:
    title, media_type = command.arguments.title, command.arguments.media_type
    if title and len(words) > 1:
        raise UsageError("--title is for a single file", remedy="push one file, or omit --title")
    if words.count("-") > 1:
        raise UsageError("standard input is given twice", remedy="write - once")
    files, names = [], []
    for word in words:
        path, own_type = split_media_type(word)
        content: str | SupportsRead = path
        name = title
        if path == "-":
            content, name = open_standard_input(), title or "stdin"
        file = ArtifactFile(content, name, own_type or media_type)
        names += [path, file.title]
        own = annotations.files.get(path) or annotations.files.get(file.title) or {}
        files.append(replace(file, annotations=own))
    warning = annotations.check_names(names)
    if warning:
        command.print_message(f"concil: warning: {warning}")
    return files


def split_media_type(word: str) -> tuple[str, str]:
    """Split ``FILE:MEDIA/TYPE`` as oras does; the media type is "" if there is none.

    A file whose name has a colon needs another one at its end, unless it exists.

    Raises:
        UsageError: there is no path, or what follows the last colon is no media type.
    """
    path, colon, media_type = word.rpartition(":")
    if not colon or os.path.lexists(word):
        path, media_type = word, ""
    if not path:
        raise UsageError(f"{safe_repr(word)} has no path", remedy="write FILE:MEDIA/TYPE")
    if media_type and not is_media_type(media_type):
        raise UsageError(
            f"no such file, and not a media type after the colon: {safe_repr(word)}",
            remedy="write FILE, or FILE:MEDIA/TYPE as in config.json:application/json",
        )
    return path, media_type


def _announce_packing(command: CommandContext, files: Sequence[ArtifactFile]) -> None:
    """Print which directories are packed, because nothing is sent meanwhile."""
    for file in files:
        if file.path is not None and file.path.is_dir():
            command.print_message(f"packing {file.path}")


def _read_annotations(command: CommandContext) -> AnnotationFile:
    """Return the annotations of the options, or those of a file."""
    arguments = command.arguments
    if arguments.annotation_file:
        if arguments.annotation:
            raise UsageError(
                "--annotation and --annotation-file exclude each other",
                remedy='write all annotations into the file, those of the manifest in "$manifest"',
            )
        return AnnotationFile.read(Path(arguments.annotation_file))
    annotations: dict[str, str] = {}
    for text in arguments.annotation:
        key, separator, value = text.partition("=")
        if not key or not separator:
            raise UsageError(
                f"not an annotation: {safe_repr(text)}", remedy="write --annotation KEY=VALUE"
            )
        if key in annotations:
            raise UsageError(
                f"the annotation {safe_repr(key)} is given twice", remedy="give it once"
            )
        annotations[key] = value
    return AnnotationFile(annotations, {}, {})


def _platform(command: CommandContext) -> str | None:
    platform = single_platform(command)
    return None if platform is None else str(platform)


def _print_pushed(
    command: CommandContext, address: Address, pushed: PushedArtifact, action: str
) -> None:
    command.display.close()
    reference = address_by_digest(address, pushed.descriptor.digest)
    total = sum(file.size for file in pushed.files)
    command.print_message(f"{action}: {_count(len(pushed.files), 'file')}, {format_size(total)}")
    if command.arguments.format == "json":
        document: dict[str, Any] = {
            "reference": reference,
            **pushed.descriptor.to_json(),
            "artifactType": pushed.artifact_type,
            "files": [file.to_json() for file in pushed.files],
        }
        results.print_json(document)
    else:
        results.print_line(reference)


def _referrer_row(referrer: Descriptor) -> tuple[str, str, str]:
    annotations = referrer.annotations
    return (
        str(referrer.digest),
        referrer.artifact_type or "-",
        annotations.get(CREATED) or annotations.get(TITLE) or "-",
    )


def _print_table(rows: Sequence[tuple[str, ...]]) -> None:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        results.print_line("  ".join(cells).rstrip())


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number != 1)}"
