"""Log records of the package as lines on the display."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator

from concil.bars import Display
from concil.cli.failures import cleaned, printable, with_options
from concil.redaction import SECRETS

_LEVELS = (logging.WARNING, logging.INFO, logging.DEBUG)  # by how often -v was given


class _Lines(logging.Handler):
    """Writes each record as one line; a traceback only where everything was asked for."""

    def __init__(self, display: Display, *, everything: bool) -> None:
        super().__init__()
        self._display = display
        self._everything = everything

    def emit(self, record: logging.LogRecord) -> None:
        """Write the record. Any thread."""
        try:
            text = cleaned(SECRETS.redact(with_options(record.getMessage())))
            if self._everything and record.exc_info:
                trace = SECRETS.redact(logging.Formatter().formatException(record.exc_info))
                # Other people's exceptions repeat what came from the registry.
                text = "\n".join([text, *map(printable, trace.splitlines())])
        except Exception:  # noqa: BLE001 - a record that cannot be told ends no transfer
            self.handleError(record)
            return
        level = record.levelname.lower()
        mark = "" if record.levelno == logging.INFO else f"{level}: "
        self._display.write(f"concil: {mark}{text}", level)


@contextlib.contextmanager
def shown_on(display: Display, *, verbose: int, quiet: bool) -> Iterator[None]:
    """Show the package's log records on ``display`` meanwhile.

    Only concil's own: urllib3 logs whole URLs, and their queries are secrets.
    """
    level = logging.ERROR if quiet else _LEVELS[min(verbose, len(_LEVELS) - 1)]
    logger = logging.getLogger("concil")
    before, passed_on = logger.level, logger.propagate
    handler = _Lines(display, everything=level == logging.DEBUG)
    logger.addHandler(handler)
    logger.setLevel(level)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)
        logger.propagate = passed_on
