"""Parses lists of images: one per line, with an optional destination."""

from __future__ import annotations

import re

from concil.errors import UsageError, safe_repr
from concil.plan.rule import Rule
from concil.plan.target_names import hide_credentials

_COMMENT = re.compile(r"(?:^|\s)#.*")


def parse_rules(text: str, name: str) -> list[Rule]:
    """Parse a list of images: ``SOURCE`` or ``SOURCE -> TARGET`` lines; ``#`` starts a comment.

    Args:
        name: name of the file in messages.
    Raises:
        UsageError: a line has an arrow and no source or target.
    """
    lines = (_COMMENT.sub("", line).strip() for line in text.splitlines())
    return [_parse_rule(f"{name}:{n}", line) for n, line in enumerate(lines, 1) if line]


def _parse_rule(location: str, line: str) -> Rule:
    source, arrow, target = (part.strip() for part in line.partition("->"))
    if arrow and (not source or not target or "->" in target):
        raise UsageError(
            f"{location}: not a single image: {safe_repr(hide_credentials(line))}",
            remedy="write SOURCE, or SOURCE -> TARGET",
        )
    return Rule(location, source, target if arrow else None)
