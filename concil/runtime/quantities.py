"""Formats numbers for people: sizes, rates, times and counts."""

from __future__ import annotations

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")
_IRREGULAR_PLURALS = {"entry": "entries", "repository": "repositories", "registry": "registries"}


def format_size(count: float) -> str:
    """Format a number of bytes: ``96.0 MiB``."""
    for unit in _UNITS:
        if count < 1023.95 or unit == _UNITS[-1]:
            break
        count /= 1024
    return f"{count:.0f} B" if unit == "B" else f"{count:.1f} {unit}"


def format_rate(rate: float) -> str:
    """Format bytes per second: ``24.0 MiB/s``."""
    return f"{format_size(rate)}/s"


def format_time_left(seconds: float) -> str:
    """Format a time as clocks do: ``01:15``, ``1:00:15``; days as ``2d 01:00``."""
    minutes, second = divmod(max(0, round(seconds)), 60)
    hours, minute = divmod(minutes, 60)
    if hours >= 24:
        return f"{hours // 24}d {hours % 24:02d}:{minute:02d}"
    return f"{hours}:{minute:02d}:{second:02d}" if hours else f"{minute:02d}:{second:02d}"


def count_of(count: int, noun: str) -> str:
    """Return a count with its noun: ``1 image``, ``2 images``."""
    if count == 1:
        return f"1 {noun}"
    *adjectives, last = noun.split()
    return " ".join([str(count), *adjectives, _IRREGULAR_PLURALS.get(last, f"{last}s")])
