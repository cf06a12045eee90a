"""What tests of layouts share."""

from __future__ import annotations

from pathlib import Path

import pytest

from concil.store.layout import Layout


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Return where an empty layout is."""
    Layout(tmp_path / "layout", create=True)
    return tmp_path / "layout"
