"""ArtifactFile: one file, directory, stream or bytes to push as part of an artifact."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import field
from pathlib import Path
from typing import TypeAlias

from concil.engine.artifacts.titles import check_distinct, check_title
from concil.errors import UsageError, safe_repr
from concil.oci.artifact import check_annotations, check_media_type
from concil.runtime import arguments
from concil.runtime.dataclass import dataclass
from concil.transfer.blob.stream import SupportsRead

__all__ = ["ArtifactFile", "FileLike", "to_files"]

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


FileLike: TypeAlias = ArtifactFile | str | os.PathLike[str]


def to_files(name: str, files: FileLike | Iterable[FileLike]) -> tuple[ArtifactFile, ...]:
    """Return an argument as files with distinct titles.

    Args:
        name: of the argument, for messages.
    Raises:
        TypeError: it is neither a file nor a list of files.
        UsageError: two files have the same title.
    """
    if isinstance(files, ArtifactFile | str | os.PathLike):
        files = (files,)
    converted = []
    for file in arguments.check_instance(name, files, Iterable):
        if isinstance(file, ArtifactFile):
            converted.append(file)
        else:
            converted.append(ArtifactFile(arguments.to_path(name, file)))
    check_distinct(file.title for file in converted)
    return tuple(converted)
