"""Titles of the files of an artifact, checked before they become paths."""

from __future__ import annotations

import posixpath
import re
import unicodedata
from collections.abc import Iterable, Sequence

from concil.errors import ContentError, UsageError, safe_repr
from concil.fs.nofollow_tree import PRIVATE_DIRECTORY
from concil.oci.artifact import CONTENT_DIGEST, EMPTY_CONFIG, TITLE, UNPACK
from concil.oci.descriptor import Descriptor
from concil.oci.digest import Digest
from concil.oci.manifest import Manifest
from concil.runtime.dataclass import dataclass

_MAX_LENGTH = 4096  # bytes of a path on Linux
# Another file of the artifact may be downloaded under this name.
_PARTIAL_FILE = re.compile(r"[0-9a-f]{64,}\.partial")


@dataclass(frozen=True, slots=True)
class TitledBlob:
    """A file or directory of an artifact."""

    title: str  # a relative path with "/", as checked by `check_title`
    blob: Descriptor
    is_directory: bool  # the blob is a tar archive that has to be unpacked
    content_digest: Digest | None = None  # of the uncompressed archive


def check_title(title: str) -> str:
    """Return a title as a normalized relative path.

    Raises:
        UsageError: it is absolute, leads out of its directory, or is not portable.
    """
    parts = title.split("/")
    reason = ""
    if not title or title.strip("./") == "":
        reason = "it names no file"
    elif title.startswith("/"):
        reason = "it is an absolute path"
    elif ".." in parts:
        reason = "it leads out of the directory"
    elif "\\" in title:
        reason = "it contains a backslash"
    elif any(unicodedata.category(character) in ("Cc", "Cs") for character in title):
        reason = "it contains control characters"
    elif len(title.encode()) > _MAX_LENGTH:
        reason = "it is too long"
    elif title.endswith("/"):
        reason = "it ends with a slash"
    path = posixpath.normpath(title)
    if not reason and path.split("/")[0] == PRIVATE_DIRECTORY:
        reason = f"{PRIVATE_DIRECTORY} is used by concil itself"
    if not reason and _PARTIAL_FILE.match(path.rpartition("/")[2]):
        reason = "it is the name of a partial file"
    if reason:
        raise UsageError(
            f"{safe_repr(title)} cannot be the title of a file: {reason}",
            remedy="use a relative path such as models/weights.bin",
        )
    return path


def check_distinct(titles: Iterable[str]) -> None:
    """Check that no two files would be written to one path.

    Raises:
        UsageError: two titles are equal, or one is the directory of another.
    """
    seen: set[str] = set()
    for title in titles:
        if title in seen:
            raise UsageError(
                f"two files have the title {safe_repr(title)}", remedy="give them separate titles"
            )
        seen.add(title)
    for title in seen:
        parent = posixpath.dirname(title)
        while parent:
            if parent in seen:
                raise UsageError(
                    f"the title {safe_repr(title)} is below {safe_repr(parent)}, which is a file",
                    remedy="give them separate titles",
                )
            parent = posixpath.dirname(parent)


def read_titles(manifest: Manifest, name: str) -> tuple[Sequence[TitledBlob], int]:
    """Return the files of an artifact, and the number of its blobs without a title.

    Args:
        name: of the artifact in messages.
    Raises:
        ContentError: a title cannot become a path, or two files have one path.
    """
    files: list[TitledBlob] = []
    untitled_count = 0
    # The first blob is the config if there is one; a config has no title.
    for blob in manifest.blobs():
        title = blob.annotations.get(TITLE, "")
        if title:
            files.append(_read_title(blob, title, name))
        elif blob.digest != EMPTY_CONFIG.digest:
            untitled_count += 1
    try:
        check_distinct(file.title for file in files)
    except UsageError as error:
        raise _as_content_error(error, name) from error
    return files, untitled_count


def _read_title(blob: Descriptor, title: str, name: str) -> TitledBlob:
    try:
        path = check_title(title)
    except UsageError as error:
        raise _as_content_error(error, name) from error
    digest = blob.annotations.get(CONTENT_DIGEST)
    is_directory = blob.annotations.get(UNPACK) == "true"
    return TitledBlob(
        path, blob, is_directory, Digest.parse(digest) if digest and is_directory else None
    )


def _as_content_error(error: UsageError, name: str) -> ContentError:
    return ContentError(
        f"{name}: {error}",
        remedy="nothing was written; fetch single blobs with `concil blob pull`, or push the "
        "artifact again",
    )
