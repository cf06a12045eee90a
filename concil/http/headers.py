"""Headers of requests and responses."""

from __future__ import annotations

from collections.abc import ItemsView, Iterable, Iterator, Mapping
from typing import Any

from requests.structures import CaseInsensitiveDict


class Headers(CaseInsensitiveDict[str]):
    """Headers by name, in any case; the `CaseInsensitiveDict` of plain exchanges.

    That of requests inherits ``get`` and ``in`` from ``Mapping``, which raise and catch an
    exception for each name that is missing. An exchange looks up a dozen such names.
    """

    def __init__(self, data: Mapping[str, str] | Iterable[tuple[str, str]] = ()) -> None:
        """Copy the headers of ``data``."""
        self.fields: dict[str, tuple[str, str]] = {}
        self.update(data)

    @classmethod
    def from_fields(cls, fields: dict[str, tuple[str, str]]) -> Headers:
        """Wrap names and values by the name in lower case, without a copy."""
        headers = cls.__new__(cls)
        headers.fields = fields
        return headers

    def __setitem__(self, name: str, value: str) -> None:
        """Set a header; the name keeps its case."""
        self.fields[name.lower()] = (name, value)

    def __getitem__(self, name: str) -> str:
        """Return the value of a header. Raises KeyError."""
        return self.fields[name.lower()][1]

    def __delitem__(self, name: str) -> None:
        """Remove a header. Raises KeyError."""
        del self.fields[name.lower()]

    def __contains__(self, name: object) -> bool:
        """Return whether there is such a header."""
        return name.lower() in self.fields  # type: ignore[attr-defined]  # only strings are names

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names as they were set."""
        return iter([name for name, _ in self.fields.values()])

    def __len__(self) -> int:
        """Return the number of names."""
        return len(self.fields)

    def get(self, name: str, default: Any = None) -> Any:  # noqa: ANN401 - Mapping's
        """Return the value of a header, or ``default``."""
        field = self.fields.get(name.lower())
        return default if field is None else field[1]

    def items(self) -> ItemsView[str, str]:
        """Return names and values as they are now."""
        return dict(self.fields.values()).items()

    def lower_items(self) -> Iterator[tuple[str, str]]:
        """Iterate over the names in lower case, and the values."""
        return ((key, value) for key, (_, value) in self.fields.items())

    def copy(self) -> Headers:
        """Return a copy with the same names and values."""
        return Headers.from_fields(dict(self.fields))
