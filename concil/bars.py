"""Progress for people and machines: bars, plain lines or JSON; the only importer of tqdm."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import os
import threading
import time
from datetime import UTC, datetime
from typing import Protocol, TextIO

from tqdm import tqdm

from concil.errors import UsageError
from concil.forking import renew_in_child
from concil.limits import start_thread
from concil.progress import Event, State
from concil.tally import Standing, Tally

MODES = ("auto", "bar", "plain", "json", "none")
_LABEL = 14  # columns of the name in front of a bar
_BAR = "{desc} {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} [{elapsed}<LEFT, {rate_fmt}]"


class Display(Protocol):
    """What the command line shows while it works. Any thread may call any method."""

    def __call__(self, event: Event) -> None:
        """Take note of an event; cheap, and never raises."""
        ...

    def expect(self, images: int) -> None:
        """Take note of how many images there will be."""
        ...

    def write(self, line: str, level: str = "") -> None:
        """Show a line of text above whatever is shown."""
        ...

    def close(self) -> None:
        """Show no more progress; what was drawn is wiped."""
        ...


def open_display(mode: str, stream: TextIO | None) -> Display:
    """Return a display of one of MODES; the caller closes it.

    Args:
        stream: where it goes, standard error as a rule; None if that was closed.
    Raises:
        UsageError: no such mode.
    """
    if mode not in MODES:
        raise UsageError(f"no such progress: {mode!a}", remedy=f"one of {', '.join(MODES)}")
    output = _Output(stream)
    if mode == "auto":
        terminal = stream is not None and stream.isatty() and os.environ.get("TERM") != "dumb"
        mode = "bar" if terminal else "plain"
    if mode == "none" or stream is None:
        return _Direct(output, as_json=False)
    if mode == "json":
        return _Direct(output, as_json=True)
    return _Ticker(_BarView(output) if mode == "bar" else _PlainView(output))


def sized(count: float) -> str:
    """Write a number of bytes as people read it: ``96.0 MiB``."""
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if count < 1023.95 or unit == "TiB":
            break
        count /= 1024
    return f"{count:.0f} B" if unit == "B" else f"{count:.1f} {unit}"


class _Output:
    """A stream that may be broken or closed: no transfer ends by what it shows."""

    def __init__(self, stream: TextIO | None) -> None:
        self.stream = stream

    def put(self, text: str) -> None:
        if self.stream is not None:
            with contextlib.suppress(OSError, ValueError):
                self.stream.write(text)
                self.stream.flush()


class _Direct:
    """Writes lines as they come: of text and nothing else, or each event as JSON.

    The fields are documented in docs/reports.md: programs read them.
    """

    def __init__(self, output: _Output, *, as_json: bool) -> None:
        self._output = output
        self._as_json = as_json
        self._lock = threading.Lock()  # held while writing: lines must not mix
        renew_in_child(self, _Direct.after_fork)

    def after_fork(self) -> None:
        """Have a lock that no thread of the parent holds."""
        self._lock = threading.Lock()

    def __call__(self, event: Event) -> None:
        """Write the event, as a JSON object."""
        if self._as_json:
            document = dataclasses.asdict(event)
            if not event.worker:  # on one machine there is nobody else to name
                del document["worker"]
            self._put_json(document)

    def write(self, line: str, level: str = "") -> None:
        """Write the line; in JSON it is an event of kind "log"."""
        if self._as_json:
            self._put_json({"kind": "log", "level": level, "message": line})
        else:
            self._put(line)

    def expect(self, images: int) -> None:
        """Do nothing: it counts nothing."""

    def close(self) -> None:
        """Do nothing: nothing was drawn."""

    def _put_json(self, document: dict[str, object]) -> None:
        with self._lock:  # the clock is read inside: times go up from line to line
            now = datetime.now(UTC).isoformat(timespec="milliseconds")
            self._output.put(json.dumps({"time": now, **document}) + "\n")

    def _put(self, line: str) -> None:
        with self._lock:
            self._output.put(line + "\n")


class _Ticker:
    """Shows the sum of all events now and then, from a thread of its own."""

    def __init__(self, view: _PlainView | _BarView) -> None:
        self._view = view
        self._tally = Tally()
        self._lock = threading.Lock()  # held while the view writes: lines must not mix
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._tick, name="concil-display", daemon=True)
        renew_in_child(self, _Ticker.after_fork)
        # Without a thread nothing moves on the screen, and everything else goes on.
        if not start_thread(self._thread, "no progress is shown"):
            self._closed.set()

    def after_fork(self) -> None:
        """Draw nothing in a forked child: the terminal is the parent's."""
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._closed.set()

    def __call__(self, event: Event) -> None:
        """Count the event; the thread shows it."""
        self._tally.take(event)

    def expect(self, images: int) -> None:
        """Count up to so many images."""
        self._tally.expect(images)

    def write(self, line: str, level: str = "") -> None:  # noqa: ARG002  # as the protocol has it
        """Write the line above what is shown."""
        with self._lock:
            self._view.above(line)

    def close(self) -> None:
        """End the thread and wipe what was drawn."""
        self._closed.set()
        if self._thread.ident is not None:
            self._thread.join()
        with self._lock:
            self._view.wipe()

    def _tick(self) -> None:
        while not self._closed.wait(self._view.interval):
            found = self._tally.sum()
            with self._lock:
                self._view.show(found)


class _PlainView:
    """A line every few seconds."""

    interval = 5.0

    def __init__(self, output: _Output) -> None:
        self._output = output

    def show(self, found: Standing) -> None:
        """Write where everything stands, unless nothing moves."""
        if not found.running:
            return
        whole = f"{sized(found.done)} of {sized(found.total)}"
        if found.total:
            whole += f" ({100 * found.done // found.total} %)"
        parts = [found.images] if found.images else []
        parts.append(whole)
        if found.rate is not None:
            parts.append(f"{sized(found.rate)}/s")
        if found.rate and found.complete and found.total > found.done:
            left = tqdm.format_interval((found.total - found.done) / found.rate)
            parts.append(f"{left} left")
        parts.append(f"{len(found.running)} under way")
        again = sum(each.state is State.RETRYING for each in found.running)
        parts += [f"{again} trying again"] if again else []
        self._output.put(", ".join(parts) + "\n")

    def above(self, line: str) -> None:
        """Write the line."""
        self._output.put(line + "\n")

    def wipe(self) -> None:
        """Leave the lines where they are."""


class _BarView:
    """One bar for everything and one for each running blob, as many as fit.

    Every frame is drawn over the one before. A terminal that became narrower has
    wrapped the old lines: they are counted as it shows them.
    """

    interval = 0.1

    def __init__(self, output: _Output) -> None:
        self._output = output
        self._drawn: list[int] = []  # columns of each line on the screen
        self._frame = ""
        self._size = (0, 0)  # columns and rows of the last frame
        encoding = output.stream.encoding if output.stream else ""
        self._ascii = not (encoding or "").lower().startswith("utf")

    def show(self, found: Standing) -> None:
        """Draw a frame."""
        if not found.running and not found.images:
            return
        columns, rows = self._terminal()
        label = found.images or "total"
        width = columns - 1  # a full line would make some terminals wrap
        whole = (found.done, found.total)
        left = "{remaining}" if found.complete else "?"
        lines = [self._bar(label, whole, found.elapsed, width, (found.rate, left))]
        # The last row stays free: what is typed there must not scroll the bars.
        shown = found.running[: max(0, rows - 2)]
        now = time.monotonic()
        for each in shown:
            label = f"{each.label} !" if each.state is State.RETRYING else each.label
            rate = (each.position - each.spared) / max(now - each.began, 0.01)
            whole = (each.position, each.total)
            lines.append(self._bar(label, whole, now - each.began, width, (rate, "{remaining}")))
        if shown and len(shown) < len(found.running):
            more = len(found.running) - len(shown) + 1
            lines[-1] = f"and {more} more"[:width]
        home = self._home()
        if (columns, rows) != self._size:
            home += "\x1b[J"  # lines that the terminal wrapped anew would stay wrapped
            self._size = (columns, rows)
        self._drawn = [len(line) for line in lines]
        # A terminal shows ^C where the cursor stands: behind a long line it would wrap.
        self._frame = "\n".join(f"{line}\x1b[K" for line in lines) + "\x1b[J\r"
        self._output.put(f"{home}{self._frame}")

    def above(self, line: str) -> None:
        """Write the line where the bars were, and the bars below it."""
        self._output.put(f"{self._home()}\x1b[J{line}\n{self._frame}")

    def wipe(self) -> None:
        """Leave the terminal as if nothing had been drawn."""
        if self._drawn:
            self._output.put(f"{self._home()}\x1b[J")
        self._drawn, self._frame = [], ""

    def _bar(
        self,
        label: str,
        at: tuple[int, int],
        elapsed: float,
        width: int,
        rate: tuple[float | None, str],
    ) -> str:
        """One line: a name, so many bytes of so many, how fast and how long."""
        return tqdm.format_meter(
            min(at),
            at[1],
            elapsed,
            ncols=width,
            prefix=f"{label:<{_LABEL}}",
            ascii=self._ascii,
            unit="B",
            unit_scale=True,
            unit_divisor=1024,
            rate=rate[0],
            bar_format=_BAR.replace("LEFT", rate[1]),
        )[:width]

    def _home(self) -> str:
        """What brings the cursor to the first column of the first line drawn."""
        if not self._drawn:
            return ""
        columns, rows = self._terminal()
        wrapped = sum(max(1, math.ceil(length / columns)) for length in self._drawn)
        up = min(wrapped, rows) - 1
        return f"\r\x1b[{up}A" if up > 0 else "\r"

    def _terminal(self) -> tuple[int, int]:
        """Columns and rows as they are now."""
        stream = self._output.stream
        with contextlib.suppress(OSError, ValueError):
            if stream is not None:
                found = os.get_terminal_size(stream.fileno())
                return found.columns or 80, found.lines or 24
        return 80, 24
