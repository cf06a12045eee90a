"""Lists of images: one a line, with its target or without."""

from __future__ import annotations

import re

from concil.errors import UsageError, shown
from concil.plan.rules import Rule
from concil.plan.targets import hidden

_COMMENT = re.compile(r"(?:^|\s)#.*")


def rules(text: str, name: str) -> list[Rule]:
    """Read the lines of a list: ``SOURCE``, or ``SOURCE -> TARGET``; ``#`` begins a comment.

    Args:
        name: what the file is called in messages.
    Raises:
        UsageError: a line has an arrow and no source or target.
    """
    lines = (_COMMENT.sub("", line).strip() for line in text.splitlines())
    return [_rule(f"{name}:{n}", line) for n, line in enumerate(lines, 1) if line]


def _rule(place: str, line: str) -> Rule:
    source, arrow, target = (part.strip() for part in line.partition("->"))
    if arrow and (not source or not target or "->" in target):
        raise UsageError(
            f"{place}: not one image: {shown(hidden(line))}",
            remedy="a line is SOURCE, or SOURCE -> TARGET",
        )
    return Rule(place, source, target if arrow else None)
