# ruff: noqa: INP001  # a script, not a package
"""Records `session.svg`: a push that is killed, and resumed by the same command.

    python docs/images/record.py [FILE.svg]

Run it with an interpreter beside which `concil` is installed. It types commands into a real
shell in a pseudo-terminal, kills the push with SIGKILL, and draws what the terminal showed.
Port 5000 of loopback must be free. Standard library only.
"""

from __future__ import annotations

import os
import pty
import random
import re
import select
import signal
import struct
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fcntl import ioctl
from itertools import groupby
from pathlib import Path
from xml.sax.saxutils import escape

COLUMNS, ROWS = 94, 24
REGISTRY = "localhost:5000"
MIB = 1 << 20
SIZE = 256 * MIB  # bytes of the blob
KILL_AT = 57  # percent of the first push
POSTER_AT = 80  # percent of the second push: the frame that is shown without animation
FRAME = 0.15  # seconds between two frames
PUSH = f"concil blob push --limit-rate 40M model.bin {REGISTRY}/models/big"

CELL_WIDTH, CELL_HEIGHT, MARGIN, TITLE_HEIGHT = 8.4, 19, 16, 30  # pixels
BLOCKS = " ▏▎▍▌▋▊▉█"  # eighths of a cell, as tqdm draws them
COLORS = re.compile(r"\x1b\[\d*m")
CODES = re.compile(r"\x1b\[(\d*)([A-Z])|(\r)|(\n)|([^\x1b\r\n]+)")


class Screen:
    """Terminal screen; understands the control sequences of the shell and of the bars."""

    def __init__(self) -> None:
        """Start with an empty screen."""
        self.rows: list[str] = [""]
        self._row = self._column = 0

    def feed(self, text: str) -> None:
        """Apply what a program wrote; colours are left out."""
        text = COLORS.sub("", text)
        for number, code, carriage_return, newline, plain in CODES.findall(text):
            if plain:
                row = self.rows[self._row].ljust(self._column)
                end = self._column + len(plain)
                self.rows[self._row] = row[: self._column] + plain + row[end:]
                self._column = end
            elif carriage_return:
                self._column = 0
            elif newline:
                self._row += 1
                if self._row == len(self.rows):
                    self.rows.append("")
            elif code == "A":
                self._row -= int(number or 1)
            elif code in {"J", "K"}:
                self.rows[self._row] = self.rows[self._row][: self._column]
                if code == "J":
                    del self.rows[self._row + 1 :]


@dataclass(frozen=True, slots=True)
class Frame:
    """The rows of the screen from one moment on."""

    time: float  # seconds since the start
    rows: tuple[str, ...]


class Shell:
    """An interactive bash in a pseudo-terminal, and the frames of its screen."""

    def __init__(self, directory: Path) -> None:
        """Start bash in the directory."""
        self.screen = Screen()
        self.frames: list[Frame] = []
        self._partial = b""  # of a character or control sequence that is not complete
        environment = {
            "PATH": f"{Path(sys.executable).parent}:{os.environ.get('PATH', os.defpath)}",
            "HOME": str(directory),
            "XDG_STATE_HOME": str(directory / "state"),
            "PYTHONPATH": os.environ.get("PYTHONPATH", ""),
            "LC_ALL": "C.UTF-8",
            "TERM": "xterm",
            "PS1": "$ ",
        }
        self._process, self._terminal = pty.fork()
        if self._process == 0:
            os.chdir(directory)
            command = ["bash", "--norc", "--noprofile", "--noediting"]
            os.execvpe(command[0], command, environment)  # noqa: S606  # no shell runs the shell
        ioctl(self._terminal, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
        self._began = time.monotonic()

    def type(self, line: str) -> None:
        """Wait for the prompt, and type a line as a person does."""
        self.run_until(lambda rows: rows[-1] == "$ ")
        self.run_for(0.7)
        for character in line:
            os.write(self._terminal, character.encode())
            self.run_for(0.025)
        self.run_for(0.4)
        os.write(self._terminal, b"\n")
        self.run_for(0.2)

    def kill_foreground(self) -> None:
        """Send SIGKILL to the command that runs in the foreground."""
        os.killpg(os.tcgetpgrp(self._terminal), signal.SIGKILL)
        # As if Enter had been pressed: bash would print "Killed" over the last bar.
        self.screen.feed("\n")

    def run_for(self, seconds: float) -> None:
        """Read the output for some time."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self._read(left)

    def run_until(self, is_reached: Callable[[list[str]], bool], timeout: float = 60) -> float:
        """Read until the rows of the screen meet a condition; return the time in the recording."""
        end = time.monotonic() + timeout
        while not is_reached(self.screen.rows):
            if time.monotonic() > end:
                raise TimeoutError("\n".join(self.screen.rows))
            self._read(FRAME)
        return time.monotonic() - self._began

    def frame(self) -> Frame:
        """Return what the screen shows at this moment."""
        return Frame(time.monotonic() - self._began, tuple(self.screen.rows))

    def close(self) -> None:
        """End the shell."""
        os.write(self._terminal, b"exit\n")
        os.waitpid(self._process, 0)
        os.close(self._terminal)

    def _read(self, timeout: float) -> None:
        if select.select([self._terminal], [], [], timeout)[0]:
            self._partial += os.read(self._terminal, 65536)
            # The bars end each of their frames with a carriage return.
            whole = max(self._partial.rfind(end) + len(end) for end in (b"\r", b"\n", b"$ "))
            if b"\x1b" not in self._partial:
                whole = len(self._partial)
            self.screen.feed(self._partial[:whole].decode())
            self._partial = self._partial[whole:]
        now, rows = time.monotonic() - self._began, tuple(self.screen.rows)
        if not self.frames or (
            now >= self.frames[-1].time + FRAME and rows != self.frames[-1].rows
        ):
            self.frames.append(Frame(now, rows))


def percent(rows: list[str]) -> int:
    """How far the last bar on the screen is."""
    bars = re.findall(r"^model\.bin .* ([\d.]+)/256\.0 MiB", "\n".join(rows), re.MULTILINE)
    return int(100 * float(bars[-1]) * MIB / SIZE) if bars else 0


def record(directory: Path) -> tuple[list[Frame], float]:
    """Record the session; return its frames and the time of the poster."""
    generator = random.Random(1)
    with (directory / "model.bin").open("wb") as file:
        for _ in range(SIZE // MIB):
            file.write(generator.randbytes(MIB))
    shell = Shell(directory)
    shell.type(PUSH)
    shell.run_until(lambda rows: percent(rows) >= KILL_AT)
    shell.kill_foreground()
    shell.type("concil transfers    # that was kill -9; the upload is resumable")
    shell.type(PUSH)
    poster = shell.run_until(lambda rows: percent(rows) >= POSTER_AT)
    shell.run_until(lambda rows: rows[-1] == "$ ")
    shell.run_for(3)
    frames = [*shell.frames, shell.frame()]
    shell.close()
    return frames, poster


def draw_row(row: str, y: float) -> Iterator[str]:
    """Draw a row of the screen: blocks as rectangles, all else as text."""
    kind = "command" if row.startswith("$ ") else "killed" if row == "Killed" else "output"
    column = 0
    for is_block, group in groupby(row, lambda character: character in BLOCKS[1:]):
        part = "".join(group)
        x = MARGIN + column * CELL_WIDTH
        if is_block:
            width = sum(BLOCKS.index(block) for block in part) / 8 * CELL_WIDTH
            position = f'x="{x:.1f}" y="{y - 13:.1f}"'
            yield f'<rect class="bar" {position} width="{width:.1f}" height="15"/>'
        elif part.strip():
            indent = len(part) - len(part.lstrip())
            text = part.strip()
            x += indent * CELL_WIDTH
            yield (
                f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" '
                f'textLength="{len(text) * CELL_WIDTH:.1f}">{escape(text)}</text>'
            )
        column += len(part)


def spans(frames: list[Frame]) -> Iterator[tuple[int, str, float, float]]:
    """Yield for each row what it shows: row number, content, from when, until when."""
    for number in range(max(len(frame.rows) for frame in frames)):
        contents = [
            (frame.time, frame.rows[number] if number < len(frame.rows) else "") for frame in frames
        ]
        start, shown = contents[0]
        for moment, content in [*contents[1:], (frames[-1].time, None)]:
            if content != shown:
                if shown.strip():
                    yield number, shown, start, moment
                start, shown = moment, content or ""


def render(frames: list[Frame], poster: float) -> str:
    """Return the recording as an animated SVG."""
    total = frames[-1].time
    row_count = max(len(frame.rows) for frame in frames)
    width = COLUMNS * CELL_WIDTH + 2 * MARGIN
    height = TITLE_HEIGHT + row_count * CELL_HEIGHT + 2 * MARGIN - 4
    rules, groups = [], []
    for index, (number, content, start, end) in enumerate(spans(frames)):
        first, last = start / total * 100, end / total * 100
        visible = "visible" if start <= poster < end else "hidden"
        steps = "" if first == 0 else "0%{visibility:hidden}"
        steps += f"{first:.2f}%{{visibility:visible}}"
        steps += "" if end == total else f"{last:.2f}%{{visibility:hidden}}"
        rules.append(f"@keyframes k{index}{{{steps}}}")
        drawing = "".join(draw_row(content, TITLE_HEIGHT + MARGIN + 10 + number * CELL_HEIGHT))
        groups.append(f'<g visibility="{visible}" style="animation-name:k{index}">{drawing}</g>')
    newline = "\n"
    return f"""\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" \
width="{width:.0f}" height="{height:.0f}" role="img">
<title>A push of 256 MiB is killed at {KILL_AT} %; the same command resumes it there</title>
<style>
text {{ font: 14px ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace; \
white-space: pre; }}
.output {{ fill: #c9d1d9; }} .command {{ fill: #ffffff; font-weight: bold; }}
.killed {{ fill: #ff7b72; font-weight: bold; }} .bar {{ fill: #3fb950; }}
g {{ animation: {total:.2f}s step-end infinite; }}
@media (prefers-reduced-motion: reduce) {{ g {{ animation: none; }} }}
{newline.join(rules)}
</style>
<rect width="100%" height="100%" rx="8" fill="#0d1117"/>
<circle cx="20" cy="18" r="6" fill="#ff5f56"/><circle cx="40" cy="18" r="6" fill="#ffbd2e"/>\
<circle cx="60" cy="18" r="6" fill="#27c93f"/>
{newline.join(groups)}
</svg>
"""


def main() -> None:
    """Record the session and write the picture."""
    target = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).with_name("session.svg"))
    with tempfile.TemporaryDirectory(prefix="") as name:
        directory = Path(name)
        command = [sys.executable, "-m", "concil", "serve", str(directory / "registry")]
        command += ["--addr", REGISTRY.replace("localhost", "127.0.0.1")]
        (directory / "registry").mkdir()
        with subprocess.Popen(command, stdout=subprocess.PIPE) as registry:  # noqa: S603
            try:
                if registry.stdout is None or b" at http" not in registry.stdout.readline():
                    raise SystemExit(f"the registry at {REGISTRY} did not start")
                frames, poster = record(directory)
            finally:
                registry.terminate()
    target.write_text(render(frames, poster), encoding="utf-8")


if __name__ == "__main__":
    main()
