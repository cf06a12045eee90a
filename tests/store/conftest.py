"""What tests of layouts share."""

from __future__ import annotations

from pathlib import Path

import pytest

from concil.store.layout.store import LayoutDirectory


@pytest.fixture
def layout_path(tmp_path: Path) -> Path:
    """Return where an empty layout is."""
    LayoutDirectory(tmp_path / "layout", create=True)
    return tmp_path / "layout"
