"""The marks that replace secrets, and the length from which a text can be one."""

from __future__ import annotations

HIDDEN = "<hidden>"
SESSION = "<session>"
MIN_LENGTH = 4  # characters; shorter values would match in every text
