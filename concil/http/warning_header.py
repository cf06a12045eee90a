"""Parses Warning headers (code 299)."""

from __future__ import annotations

import contextlib
import logging
import re
import threading
from collections.abc import Iterator

from concil.http.sanitize import clean_text
from concil.runtime.dataclass import dataclass
from concil.runtime.parent_process import ParentProcess

logger = logging.getLogger(__name__)

_MAX_HEADER_LENGTH = 4096  # characters; the specification allows no more
_MAX_TEXT_LENGTH = 500  # characters of one warning
_MAX_PER_RESPONSE = 10  # warnings
_MAX_WARNINGS = 100  # warnings that are kept; later ones are ignored
# Code, agent, quoted text, and the date that some caches add.
_VALUE = re.compile(r'(\d{3}) +(\S+) +"((?:[^"\\]|\\.)*)"(?: +"[^"]*")?', re.DOTALL)
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class RegistryWarning:
    """A warning from a registry to its users, for example that it will be shut down."""

    host: str  # of the registry, with its port
    text: str  # one line, printable, at most 500 characters


class WarningLog:
    """Collects the warnings of all registries, each once. Any thread may call any method."""

    def __init__(self, parent: ParentProcess | None = None) -> None:
        """Create an empty log.

        Args:
            parent: logs the warnings of all processes of the run; None: log them here.
        """
        self._parent = parent
        self._lock = threading.Lock()  # guards the fields below
        self._kept: dict[RegistryWarning, None] = {}
        self._plain_hosts: set[str] = set()  # host[:port] without TLS

    def list(self) -> tuple[RegistryWarning, ...]:
        """Return the warnings in order of arrival."""
        with self._lock:
            return tuple(self._kept)

    def record(self, host: str, header: str) -> None:
        """Record and log the warnings of a header that are new for the host."""
        for text in parse_warnings(header):
            self.add(RegistryWarning(host, text))

    def add(self, warning: RegistryWarning) -> None:
        """Record a warning, and log it if it is new."""
        with self._lock:
            is_new = warning not in self._kept and len(self._kept) < _MAX_WARNINGS
            if is_new:
                self._kept[warning] = None
        if is_new and self._parent is not None:
            self._parent.post("add_warning", warning)
        elif is_new:
            logger.warning("%s warns: %s", warning.host, warning.text)

    def is_new_plain_host(self, host: str) -> bool:
        """Return whether this is the first call for a host[:port] that does not support TLS."""
        with self._lock:
            is_new = host not in self._plain_hosts
            self._plain_hosts.add(host)
        return is_new


def parse_warnings(header: str) -> Iterator[str]:
    """Yield the texts with code 299 and agent ``-``, at most ten.

    Several headers arrive joined by commas. Other codes are about caches, and intermediaries
    use another agent than ``-``.

    Source: distribution-spec, "Warnings"; RFC 7234, 5.5.
    """
    count = 0
    for code, agent, quoted in _VALUE.findall(header[:_MAX_HEADER_LENGTH]):
        text = _clean_text(_ESCAPED.sub(r"\1", quoted)) if (code, agent) == ("299", "-") else ""
        if text:
            yield text
            count += 1
        if count == _MAX_PER_RESPONSE:
            return


def _clean_text(text: str) -> str:
    """Return one line of printable text without secrets."""
    with contextlib.suppress(UnicodeError):  # then it is latin-1, the older header encoding
        text = text.encode("latin-1").decode()
    text = clean_text(text)
    return text if len(text) <= _MAX_TEXT_LENGTH else f"{text[: _MAX_TEXT_LENGTH - 3]}..."
