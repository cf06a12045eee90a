"""LayoutSaving: whether the changes of a layout's index were written."""

from __future__ import annotations

from concil.errors import ConcilError
from concil.runtime.dataclass import dataclass
from concil.store.layout.index_file import IndexFile


@dataclass(frozen=True, slots=True)
class LayoutSaving:
    """Pending changes of a layout's index: those with numbers above ``after``, up to ``last``."""

    file: IndexFile
    after: int
    last: int

    @property
    def is_over(self) -> bool:
        """Return whether all changes were written or have failed."""
        return self.file.is_written(self.last)

    @property
    def error(self) -> ConcilError | None:
        """The reason why one of the changes was not written; None if there was no failure."""
        return self.file.failure(self.after, self.last)
