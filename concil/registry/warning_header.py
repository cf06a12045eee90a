"""The Warning headers of registries: read, logged once, and kept for whoever asks."""

from __future__ import annotations

import contextlib
import logging
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass

from concil.registry.sanitize import clean_text

logger = logging.getLogger(__name__)

_LONGEST_HEADER = 4096  # characters; the specification allows no more
_LONGEST_TEXT = 500  # characters of one warning
_MOST_OF_ANSWER = 10  # warnings
_MOST = 100  # warnings that are kept; what comes after them is passed over
# Code, agent, quoted text, and a date that some caches add.
_VALUE = re.compile(r'(\d{3}) +(\S+) +"((?:[^"\\]|\\.)*)"(?: +"[^"]*")?', re.DOTALL)
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class RegistryWarning:
    """What a registry wants its users to know, as that a version of it ends."""

    host: str  # of the registry, with its port
    text: str  # one line, printable, at most 500 characters


class WarningLog:
    """The warnings of all registries, each once. Any thread may call any method."""

    def __init__(self) -> None:
        """Begin empty."""
        self._lock = threading.Lock()  # guards _kept
        self._kept: dict[RegistryWarning, None] = {}

    def all(self) -> tuple[RegistryWarning, ...]:
        """Return the warnings in the order in which they came."""
        with self._lock:
            return tuple(self._kept)

    def record(self, host: str, header: str) -> None:
        """Keep and log what a Warning header says, unless that host has said it before."""
        for text in texts(header):
            warning = RegistryWarning(host, text)
            with self._lock:
                is_new = warning not in self._kept and len(self._kept) < _MOST
                if is_new:
                    self._kept[warning] = None
            if is_new:
                logger.warning("%s warns: %s", host, text)


def texts(header: str) -> Iterator[str]:
    """Yield the texts of the code 299, at most ten; several headers come joined by commas.

    Other codes are about caches, and anybody on the way but the registry itself has another
    agent than ``-``.

    Source: distribution-spec, "Warnings"; RFC 7234, 5.5.
    """
    count = 0
    for code, agent, quoted in _VALUE.findall(header[:_LONGEST_HEADER]):
        text = _cleaned(_ESCAPED.sub(r"\1", quoted)) if (code, agent) == ("299", "-") else ""
        if text:
            yield text
            count += 1
        if count == _MOST_OF_ANSWER:
            return


def _cleaned(text: str) -> str:
    """One line of printable text without secrets."""
    with contextlib.suppress(UnicodeError):  # then it is latin-1, as headers were once
        text = text.encode("latin-1").decode()
    text = clean_text(text)
    return text if len(text) <= _LONGEST_TEXT else f"{text[: _LONGEST_TEXT - 3]}..."
