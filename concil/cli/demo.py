"""`concil demo`: placeholder."""

from __future__ import annotations


def add_parser(subparsers: object) -> None:
    """Add nothing."""
