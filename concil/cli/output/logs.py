"""Prints log records of the package on the display."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator

from concil.cli.output.errors import replace_control_characters, replace_parameters, single_line
from concil.display.display import Display
from concil.runtime.redaction import SECRETS

_LEVELS = (logging.WARNING, logging.INFO, logging.DEBUG)  # by how often -v was given


class _DisplayHandler(logging.Handler):
    """Writes each record as one line; tracebacks only with ``-vv``."""

    def __init__(self, display: Display, *, tracebacks: bool) -> None:
        super().__init__()
        self._display = display
        self._has_tracebacks = tracebacks

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record. Thread-safe."""
        try:
            text = single_line(SECRETS.redact(replace_parameters(record.getMessage())))
            if self._has_tracebacks and record.exc_info:
                trace = SECRETS.redact(logging.Formatter().formatException(record.exc_info))
                # Exception texts of libraries may quote what a registry sent.
                text = "\n".join([text, *map(replace_control_characters, trace.splitlines())])
        except Exception:  # noqa: BLE001 - a bad record must not end a transfer
            self.handleError(record)
            return
        level = record.levelname.lower()
        prefix = "" if record.levelno == logging.INFO else f"{level}: "
        self._display.write(f"concil: {prefix}{text}", level)


@contextlib.contextmanager
def log_to_display(display: Display, *, verbose: int, quiet: bool) -> Iterator[None]:
    """Write the package's log records to ``display``, and no other one, in the ``with`` block.

    Only concil's own: urllib3 logs full URLs, whose queries hold secrets.
    """
    level = logging.ERROR if quiet else _LEVELS[min(verbose, len(_LEVELS) - 1)]
    logger = logging.getLogger("concil")
    previous_level, previous_propagate = logger.level, logger.propagate
    handler = _DisplayHandler(display, tracebacks=level == logging.DEBUG)
    replaced = [each for each in logger.handlers if isinstance(each, _DisplayHandler)]
    for each in replaced:
        logger.removeHandler(each)
    logger.addHandler(handler)
    logger.setLevel(level)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(handler)
        for each in replaced:
            logger.addHandler(each)
        logger.setLevel(previous_level)
        logger.propagate = previous_propagate
