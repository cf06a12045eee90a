"""Bounds the values of a label: what a registry or a plan says must not fill a database."""

from __future__ import annotations

OTHER = "other"  # stands for all values past the limit
_MAX_LENGTH = 200  # characters of a value

# Statuses that registries and their proxies use; any other one is counted with its class.
_KNOWN_STATUSES = frozenset(
    (200, 201, 202, 204, 206, 301, 302, 303, 304, 307, 308, 400, 401, 403, 404, 405, 406, 408, 409)
) | {411, 412, 413, 414, 415, 416, 422, 425, 429, 431, 499, 500, 501, 502, 503, 504, 507, 520, 522}


class BoundedLabels:
    """The values of one label. The caller holds a lock."""

    def __init__(self, limit: int) -> None:
        """Allow so many values; all further ones are counted as "other"."""
        self._limit = limit
        self._values: set[str] = set()

    def bound(self, value: str) -> str:
        """Return the value, or "other"."""
        value = value if len(value) <= _MAX_LENGTH else f"{value[: _MAX_LENGTH - 3]}..."
        if value in self._values:
            return value
        if len(self._values) >= self._limit:
            return OTHER
        self._values.add(value)
        return value


def status_label(status: int | None) -> str:
    """Return a status, the class of an unusual one, or "none" if there was no response."""
    if status is None:
        return "none"
    if status in _KNOWN_STATUSES:
        return str(status)
    return f"{status // 100}xx" if 100 <= status < 600 else OTHER
