"""How much the tests do: a part, or with CONCIL_TEST_FULL=1 all of it."""

from __future__ import annotations

import os

FULL = os.environ.get("CONCIL_TEST_FULL") == "1"  # all examples, and sizes as people have them


def at_most(examples: int) -> int:
    """Return how many examples hypothesis makes: a third of them unless all are asked for."""
    return examples if FULL else examples // 3
