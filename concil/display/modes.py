"""Names of the progress displays."""

from __future__ import annotations

MODES = ("auto", "bar", "plain", "json", "none")
