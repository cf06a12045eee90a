"""Reads small files that users name in arguments."""

from __future__ import annotations

from pathlib import Path

from concil.config import KIB, MIB
from concil.errors import UsageError, safe_repr


def read_small_file(path: str | Path, max_size: int, remedy: str) -> bytes:
    """Return the content of a file.

    Args:
        max_size: bytes; a larger file is refused.
        remedy: for a file that is larger.
    Raises:
        UsageError: it cannot be read, or is too large.
    """
    name = safe_repr(str(path))
    try:
        with Path(path).open("rb") as file:
            content = file.read(max_size + 1)
    except (OSError, ValueError) as error:
        cause = getattr(error, "strerror", None) or "not a valid path"
        raise UsageError(f"cannot read {name}: {cause}", remedy="check the path") from error
    if len(content) > max_size:
        limit = f"{max_size // MIB} MiB" if max_size >= MIB else f"{max_size // KIB} KiB"
        raise UsageError(f"{name} is larger than {limit}", remedy=remedy)
    return content
