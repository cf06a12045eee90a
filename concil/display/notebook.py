"""Shows the progress in a Jupyter notebook, with the widgets of tqdm."""

from __future__ import annotations

import sys
import warnings
from typing import Any

from concil.display.blob_rows import describe_blob
from concil.display.lines import compose_header, compose_pause, compose_stopping, is_shown
from concil.display.stopping import Stopping
from concil.display.style import Style
from concil.progress.snapshot import BlobProgress, ProgressSnapshot

_WIDTH = 120  # columns of a line of text
_MAX_BARS = 8  # blobs that have a bar


def is_notebook() -> bool:
    """Return whether this process is the kernel of a notebook."""
    get_shell = getattr(sys.modules.get("IPython"), "get_ipython", None)
    shell: Any = get_shell() if get_shell is not None else None
    return "IPKernelApp" in getattr(shell, "config", ())


class NotebookView:
    """A bar for the totals, and one for each large blob; without widgets a line of text.

    Lines of text that stay are written to standard output, below the cell.
    """

    shortens_digests = True
    lists_resumed = False  # their rows say so
    interval = 0.25
    width = _WIDTH

    def __init__(self) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # there are no widgets: it falls back to text
            from tqdm.auto import tqdm  # noqa: PLC0415  # imports IPython
        self.style = Style()
        self._create_bar: Any = tqdm
        self._has_widgets = "notebook" in tqdm.__mro__[1].__module__
        self._header = self._new_bar(is_kept=True)
        # What another thread displays would not belong to the cell: all bars are made here.
        count = _MAX_BARS if self._has_widgets else 0
        self._bars = [self._new_bar(is_kept=False) for _ in range(count)]
        for bar in self._bars:
            bar.container.layout.display = "none"

    def show(self, snapshot: ProgressSnapshot, stopping: Stopping | None = None) -> None:
        """Update the bars."""
        lines = [compose_header(snapshot, _WIDTH)]
        if stopping is not None:
            lines = [compose_stopping(snapshot, stopping.seconds_left, stopping.hint, _WIDTH)]
        lines += [compose_pause(pause, _WIDTH) for pause in snapshot.paused_hosts]
        text = "  ".join("".join(part.text for part in line) for line in lines)
        total = snapshot.bytes_total if snapshot.is_total_known else None
        _update(self._header, snapshot.bytes_done, total, (text, ""))
        blobs = [blob for blob in snapshot.active_blobs if is_shown(blob)]
        shown: list[BlobProgress | None] = [*blobs, *([None] * len(self._bars))]
        for bar, blob in zip(self._bars, shown, strict=False):
            bar.container.layout.display = "none" if blob is None else None
            if blob is not None:
                _update(bar, blob.position, blob.total, describe_blob(blob))

    def write_above(self, line: str) -> None:
        """Write a line of text."""
        print(line, flush=True)  # noqa: T201  # standard output is the cell's

    def clear(self, snapshot: ProgressSnapshot) -> None:
        """Remove the bars of blobs; the totals stay."""
        self.show(snapshot)
        for bar in (*self._bars, self._header):
            bar.close()

    def _new_bar(self, *, is_kept: bool) -> Any:  # noqa: ANN401 - tqdm's class depends on IPython
        return self._create_bar(total=1, leave=is_kept, ncols=_WIDTH, bar_format=" {bar} ")


def _update(bar: Any, position: int, total: int | None, texts: tuple[str, str]) -> None:  # noqa: ANN401
    """Set the position and the texts on both sides of a bar; without a total it is empty."""
    bar.n, bar.total = (0, 1) if total is None else (position, max(1, total))
    left, right = (text.replace("{", "{{").replace("}", "}}") for text in texts)
    bar.bar_format = f"{left} {{bar}} {right}"
    bar.refresh()
