"""A child process of a mirror: one engine that copies the images that the parent hands out."""

from __future__ import annotations

import contextlib
import logging
import os
import pickle
import signal
import socket
import threading
import traceback
import warnings
from collections.abc import Iterator
from dataclasses import fields, replace

from concil.engine.components import EngineComponents
from concil.engine.engine import Engine
from concil.engine.processes.channel import Channel
from concil.engine.processes.child_process import SIGNALS
from concil.engine.processes.parent_link import ParentLink
from concil.engine.processes.process_settings import ProcessSettings
from concil.errors import Cancelled
from concil.progress.batcher import ProgressBatcher
from concil.progress.request_observer import Exchange
from concil.runtime.dataclass import dataclass
from concil.runtime.redaction import SECRETS
from concil.transfer.journal import Journal
from concil.transfer.mirror.report import MirrorItem, Outcome

_CLOSE_TIMEOUT = 1.0  # seconds after an error, which has already waited for chunks in flight


def main(descriptor: int) -> None:
    """Copy images until the parent has no more. It is a process's only function.

    Args:
        descriptor: of the socket that leads to the parent.
    """
    for number in SIGNALS:
        # Not SIG_IGN, which programs that this one starts would inherit.
        signal.signal(number, lambda _number, _frame: None)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    # The parent has been told not to verify certificates; each process would repeat it.
    warnings.filterwarnings("ignore", message="Unverified HTTPS request")
    channel = Channel(socket.socket(fileno=descriptor))
    worker = Worker(ParentLink(channel))
    worker.listen()
    if not worker.is_done:
        os._exit(1)  # the parent was killed, and nobody is interested any more
    channel.close()


@dataclass(frozen=True, slots=True)
class NumberedItem(MirrorItem):
    """An image, and the number that the parent knows it by."""

    number: int = -1

    @classmethod
    def create(cls, number: int, item: MirrorItem) -> NumberedItem:
        """Number an image."""
        values = {field.name: getattr(item, field.name) for field in fields(MirrorItem)}
        return cls(**values, number=number)


class _ProcessEngine(Engine):
    """Engine that shares limits and blobs with those of other processes."""

    def __init__(
        self,
        link: ParentLink,
        settings: ProcessSettings,
        progress: ProgressBatcher | None,
        journal: Journal,
    ) -> None:
        self._link = link
        self._request_observer = _ParentObserver(link) if settings.has_observer else None
        super().__init__(
            settings.config,
            progress=progress,
            endpoints=settings.endpoints,
            timeouts=settings.timeouts,
            journal=journal,
        )
        link.subscribe("cancel", self.cancel)
        link.subscribe("limiting", self._set_limiting)

    def _create_components(self) -> None:
        self._components = EngineComponents.create(
            self.config,
            self._journal,
            self._endpoints,
            self._timeouts,
            self._progress,
            self._link,
            self._request_observer,
        )

    def _set_limiting(self, host: str) -> None:
        self._components.store_factory.host_limiters.limiter_for(host).is_limiting = True


class _ParentObserver:
    """A `RequestObserver` that passes everything on to the parent, without the URLs."""

    def __init__(self, link: ParentLink) -> None:
        self._link = link

    def record_request(self, exchange: Exchange) -> None:
        """Pass a request on. See `RequestObserver`."""
        self._link.post("observe", "record_request", replace(exchange, url=""))

    def record_retry(self, host: str) -> None:
        """Pass a retry on. See `RequestObserver`."""
        self._link.post("observe", "record_retry", host)

    def record_token(self, host: str) -> None:
        """Pass a token on. See `RequestObserver`."""
        self._link.post("observe", "record_token", host)

    def record_quota(self, host: str, remaining: int, limit: int | None) -> None:
        """Do nothing: the parent keeps the quotas."""


class Worker:
    """Runs the mirror of one process in a thread, while the main thread listens to the parent."""

    def __init__(self, link: ParentLink) -> None:
        """Talk to the parent by ``link``."""
        self._link = link
        self.is_done = False  # the parent has been told that all is over

    def listen(self) -> None:
        """Start when the parent sends the settings, and return when it sends no more."""
        self._link.subscribe("start", self._start)
        self._link.listen()

    def _start(self, settings: ProcessSettings) -> None:
        threading.Thread(
            target=self._run, args=(settings,), name="concil-mirror", daemon=True
        ).start()

    def _run(self, settings: ProcessSettings) -> None:
        with contextlib.suppress(Cancelled):  # the parent has ended
            with _log_to_parent(self._link, settings.log_level):
                try:
                    self._mirror(settings)
                except Cancelled:
                    pass  # the parent has cancelled it
                except BaseException as error:  # noqa: BLE001 - raised again by the parent
                    self._link.post("fail", _to_picklable(error))
            self.is_done = True
            self._link.post("done")
            self._link.flush()

    def _mirror(self, settings: ProcessSettings) -> None:
        progress = ProgressBatcher(settings.name, lambda rows: self._link.post("progress", rows))
        with contextlib.closing(Journal(settings.journal)) as journal:
            sink = progress if settings.has_progress else None
            engine = _ProcessEngine(self._link, settings, sink, journal)

            def send(outcome: Outcome) -> None:
                progress.flush()  # the last event of the image
                number = outcome.item.number if isinstance(outcome.item, NumberedItem) else -1
                self._link.post("outcome", number, outcome.result, outcome.error)

            try:
                engine.mirror(self._items(), on_image=send, keep_outcomes=False)
            except BaseException:
                engine.cancel()
                engine.close(_CLOSE_TIMEOUT)
                raise
            finally:
                progress.flush()
            engine.close()

    def _items(self) -> Iterator[MirrorItem]:
        while True:
            task = self._link.call("next")
            if task is None:
                return
            yield NumberedItem.create(*task)


class _ParentHandler(logging.Handler):
    """Sends log records to the parent."""

    def __init__(self, link: ParentLink) -> None:
        super().__init__()
        self._link = link

    def emit(self, record: logging.LogRecord) -> None:
        """Send the message of a record. Thread-safe."""
        try:
            text = record.getMessage()
            if record.exc_info and record.exc_info[1] is not None:
                text += f" ({type(record.exc_info[1]).__name__}: {record.exc_info[1]})"
            self._link.post("log", record.name, record.levelno, SECRETS.redact(text))
        except Exception:  # noqa: BLE001 - a bad record must not end a transfer
            self.handleError(record)


@contextlib.contextmanager
def _log_to_parent(link: ParentLink, level: int) -> Iterator[None]:
    """Send the package's log records to the parent in the ``with`` block."""
    logger = logging.getLogger("concil")
    handler = _ParentHandler(link)
    logger.addHandler(handler)
    logger.setLevel(level)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(handler)


def _to_picklable(error: BaseException) -> BaseException:
    """Return an exception for the parent, with its traceback as a note."""
    trace = "".join(traceback.format_exception(error))
    copied: BaseException
    try:
        copied = pickle.loads(pickle.dumps(error))  # noqa: S301 - what was just written
    except Exception:  # noqa: BLE001 - whatever its class does when it is pickled
        copied = RuntimeError(SECRETS.redact(f"{type(error).__name__}: {error}"))
    copied.add_note(SECRETS.redact(f"in a process of the mirror:\n{trace}"))
    return copied
