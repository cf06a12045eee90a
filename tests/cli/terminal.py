"""A terminal in memory: what a person would see of what was written to it."""

from __future__ import annotations

import fcntl
import os
import re
import struct
import termios
import threading
from types import TracebackType
from typing import Self, TextIO

_COLORS = re.compile(r"\x1b\[\d*m")
_CODES = re.compile(r"\x1b\[(\d*)([A-Z])|(\r)|(\n)|([^\x1b\r\n]+)")


class Screen:
    """Understands just what a display of bars uses, and refuses the rest."""

    def __init__(self, columns: int) -> None:
        self.columns = columns
        self.rows: list[str] = [""]
        self._row = self._column = 0

    def feed(self, text: str) -> None:
        """Take what was written; colours are left out."""
        text = _COLORS.sub("", text)
        assert _CODES.sub("", text) == "", ascii(text)
        for number, code, back, down, plain in _CODES.findall(text):
            if plain:
                self._write(plain)
            elif back:
                self._column = 0
            elif down:
                self._down()
            elif code == "A":
                self._row -= int(number or 1)
                assert self._row >= 0, "the cursor left the screen"
            elif code == "K":
                self.rows[self._row] = self.rows[self._row][: self._column]
            else:
                assert code == "J", code
                del self.rows[self._row + 1 :]
                self.rows[self._row] = self.rows[self._row][: self._column]

    @property
    def text(self) -> str:
        """The rows, without empty ones at the end."""
        return "\n".join(self.rows).rstrip("\n")

    def _down(self) -> None:
        self._row, self._column = self._row + 1, 0
        if self._row == len(self.rows):
            self.rows.append("")

    def _write(self, plain: str) -> None:
        for character in plain:
            if self._column == self.columns:
                self._down()
            row = self.rows[self._row].ljust(self._column)
            self.rows[self._row] = row[: self._column] + character + row[self._column + 1 :]
            self._column += 1


class Terminal:
    """A pseudo terminal whose other side collects all that is written.

    Args:
        columns: its width.
        rows: its height.
    """

    def __init__(self, columns: int = 80, rows: int = 24) -> None:
        self._ours, self._theirs = os.openpty()
        self.columns = columns
        self._changed = threading.Condition()  # guards _written
        self._written = ""
        self.resize(columns, rows)
        attributes = termios.tcgetattr(self._theirs)
        attributes[1] &= ~termios.OPOST  # a newline stays one character
        termios.tcsetattr(self._theirs, termios.TCSANOW, attributes)
        self.stream: TextIO = os.fdopen(self._theirs, "w", encoding="utf-8")
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if not self.stream.closed:
            self.stream.close()
        self._reader.join()
        os.close(self._ours)

    def resize(self, columns: int, rows: int) -> None:
        """Change the size, as a window does."""
        fcntl.ioctl(self._ours, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def type(self, text: str) -> None:
        """Type as a person does: the terminal itself shows it, where the cursor stands."""
        os.write(self._ours, text.encode())

    def echoes(self) -> bool:
        """Whether a person sees what they type."""
        return bool(termios.tcgetattr(self._ours)[3] & termios.ECHO)

    def wait_for(self, text: str, start: int = 0) -> int:
        """Wait until something was written; return where it ends in all that was written."""
        with self._changed:
            assert self._changed.wait_for(lambda: text in self._written[start:], 30), self._written
            return self._written.index(text, start) + len(text)

    @property
    def written(self) -> str:
        """All that was written so far."""
        with self._changed:
            return self._written

    def screen(self) -> Screen:
        """Return what a person sees at the end of the last frame."""
        found = Screen(self.columns)
        found.feed(self.written)
        return found

    def _read(self) -> None:
        while True:
            try:
                piece = os.read(self._ours, 65536)
            except OSError:  # the other side was closed
                return
            with self._changed:
                self._written += piece.decode()
                self._changed.notify_all()
