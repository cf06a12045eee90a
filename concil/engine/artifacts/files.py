"""ArtifactFile: one file, directory, stream or bytes to push as part of an artifact."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import field
from pathlib import Path
from typing import Any, TypeAlias, TypeGuard

from concil.engine.artifacts.titles import check_distinct, check_title
from concil.errors import UsageError, safe_repr
from concil.oci.artifact import check_annotations, check_media_type
from concil.runtime import arguments
from concil.runtime.dataclass import dataclass
from concil.transfer.blob.stream import SupportsRead

__all__ = ["ArtifactFile", "FileLike", "to_files"]

_CONTENT_TYPES = (str, os.PathLike, bytes, bytearray, memoryview, SupportsRead)
Content: TypeAlias = str | os.PathLike[str] | bytes | bytearray | memoryview | SupportsRead


@dataclass(frozen=True, slots=True)
class ArtifactFile:
    """One file of an artifact.

    ``content`` is the path of a file or directory, the bytes themselves, or a binary stream that
    is read once. A directory is stored as tar+gzip.
    """

    content: Content = field(repr=False)
    # A relative path: where `Engine.pull_files` writes it. "": the path itself if it is relative
    # and stays below the working directory, else its last part.
    title: str = ""
    media_type: str = ""  # "": that which oras uses
    annotations: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check the fields, and set the title.

        Raises:
            TypeError, UsageError: a field is invalid.
        """
        arguments.check_instance(
            "content", self.content, _CONTENT_TYPES, "a path, bytes or a binary stream"
        )
        arguments.check_str("title", self.title)
        if self.media_type:
            check_media_type("media type", arguments.check_str("media_type", self.media_type))
        check_annotations(self.annotations)
        object.__setattr__(self, "title", check_title(self.title or self._default_title()))

    @property
    def path(self) -> Path | None:
        """The path of the file or directory; None for bytes and streams."""
        content = self.content
        return Path(content) if isinstance(content, str | os.PathLike) else None

    def _default_title(self) -> str:
        path = self.path
        if path is None:
            raise UsageError("bytes and streams need a title", remedy="give each of them a title")
        normalized = Path(os.path.normpath(path))
        if normalized.is_absolute() or ".." in normalized.parts or not normalized.name:
            name = normalized.name if normalized.name != ".." else ""
            normalized = Path(name or normalized.resolve().name)
        try:
            normalized.as_posix().encode()
        except UnicodeEncodeError as error:
            raise UsageError(
                f"the name of {safe_repr(str(path))} is not valid UTF-8",
                remedy="rename the file, or pass a title",
            ) from error
        return normalized.as_posix()


FileLike: TypeAlias = ArtifactFile | str | os.PathLike[str] | tuple[str, Content]


def to_files(name: str, files: FileLike | Iterable[FileLike]) -> tuple[ArtifactFile, ...]:
    """Return an argument as files with distinct titles.

    Args:
        name: of the argument, for messages.
        files: a pair is a title and a content.
    Raises:
        TypeError: it is neither a file nor a list of files.
        UsageError: two files have the same title.
    """
    if isinstance(files, ArtifactFile | str | os.PathLike) or _is_pair(files):
        files = (files,)
    items: Iterable[object] = arguments.check_instance(name, files, Iterable)
    converted = [to_file(name, item) for item in items]
    check_distinct(file.title for file in converted)
    return tuple(converted)


def _is_pair(files: object) -> TypeGuard[tuple[str, Content]]:
    """Whether an argument is one title with its bytes or stream, and not two paths."""
    if not isinstance(files, tuple) or len(files) != 2 or not isinstance(files[0], str):
        return False
    return isinstance(files[1], bytes | bytearray | memoryview | SupportsRead)


def to_file(name: str, item: object) -> ArtifactFile:
    """Return an argument that is one file. Raises as `to_files`."""
    if isinstance(item, ArtifactFile):
        return item
    if isinstance(item, tuple):
        if len(item) != 2:
            raise arguments.type_error(name, "pairs of a title and a content", item)
        return ArtifactFile(item[1], arguments.check_str(name, item[0]))
    path: Any = item
    return ArtifactFile(arguments.to_path(name, path))
