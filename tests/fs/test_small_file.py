"""Small files are read as a whole, and larger ones are refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from concil.errors import UsageError
from concil.fs.small_file import read_small_file


def test_a_file_of_the_limit_is_read(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x" * 2048)

    assert read_small_file(tmp_path / "file", 2048, "write less") == b"x" * 2048


def test_a_larger_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x" * 2049)

    with pytest.raises(UsageError, match="is larger than 2 KiB"):
        read_small_file(tmp_path / "file", 2048, "write less")


@pytest.mark.parametrize(
    ("name", "cause"), [("none", "No such file"), ("a\0b", "not a valid path")]
)
def test_what_cannot_be_read(tmp_path: Path, name: str, cause: str) -> None:
    with pytest.raises(UsageError, match=cause):
        read_small_file(tmp_path / name, 2048, "")
