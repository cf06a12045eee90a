"""One cell of the matrix: a blob of one size, pushed past one fault, counted and read back."""

from __future__ import annotations

import contextlib
import enum
import hashlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import requests

from concil.config import RetryPolicy, Timeouts, TransferConfig
from concil.engine.engine import Engine
from concil.errors import ConcilError
from concil.oci.manifest import Digest
from concil.server import EmbeddedRegistry
from concil.transfer.journal import Journal
from tests.personalities.cases import Case, Scale
from tests.support.faults import Action, Fault
from tests.support.images import digest_of, make_blob
from tests.support.relay import Relay
from tests.support.request_log import RequestLog

HEADS = 1000  # bytes of the requests in front of the first chunk, about
TIMEOUT = 30  # seconds


class Trouble(enum.StrEnum):
    """What goes wrong in a cell."""

    NOTHING = "no fault"
    RESET = "cut, RST"
    CLOSED = "cut, FIN"
    LOST_PATCH = "PATCH's answer lost"
    LOST_PUT = "PUT's answer lost"
    GONE = "session gone"
    INTERRUPTED = "Ctrl-C, run again"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a cell."""

    size: int  # bytes of the blob
    sent: int  # bytes of all bodies that were sent
    seconds: float
    has_happened: bool  # whether the fault had an occasion
    failure: str  # what is wrong; "": nothing

    @property
    def factor(self) -> float:
        """How many times the blob was sent."""
        return self.sent / self.size if self.size else 1.0


class FaultInjector:
    """A relay's observer that loses answers and sessions at the right moment."""

    def __init__(self, sessions: Path, trouble: Trouble, *, second: bool) -> None:
        """Watch.

        Args:
            sessions: where the registry keeps them.
            second: strike at the second chunk rather than at the first.
        """
        self.log = RequestLog()
        self.happened = False
        self.interrupt: Callable[[], None] | None = None  # ends the push in a while
        self._sessions = sessions
        self._trouble = trouble
        self._second = second
        if trouble is Trouble.LOST_PUT:
            self.log.lose_response("PUT")
        elif trouble is Trouble.LOST_PATCH and not second:
            self.log.lose_response("PATCH")

    def upstream(self, connection: int, passed: bytes) -> bool:
        """See `Observer`."""
        lost = self.log.upstream(connection, passed)
        self.happened |= lost
        chunks = self.log.matching("PATCH")
        if self._second and chunks and chunks[0].is_complete:
            if self._trouble is Trouble.LOST_PATCH:
                self.log.lose_response("PATCH")
            self._second = self._trouble is not Trouble.LOST_PATCH
        if not self.happened and (len(chunks) > 1 or self.log.count("PUT")):
            self._strike()
        return lost

    def _strike(self) -> None:
        """Do what is due at the second chunk, or at the PUT."""
        if self._trouble is Trouble.GONE:
            self.happened = True
            for session in self._sessions.iterdir():
                session.unlink()
        elif self._trouble is Trouble.INTERRUPTED and self.interrupt is not None:
            self.happened = True
            self.interrupt()


class MatrixHarness:
    """A registry of one case, for any number of cells one after the other."""

    def __init__(self, directory: Path, case: Case, scale: Scale, *, workers: int = 1) -> None:
        """Prepare; `cell` needs an open bench."""
        self._directory = directory
        self._case = case
        self._scale = scale
        self._layout = directory / "registry"
        self._registry = EmbeddedRegistry(self._layout, behavior=case.build(scale))
        self._journal = Journal(directory / "journal")
        self._bytes = make_blob(1, max(scale.sizes.values()))
        self._count = 0
        self.config = TransferConfig(
            workers=workers,
            chunk_size=scale.chunk,
            retry=RetryPolicy(backoff_base=0.001, max_backoff=0.01),
        )

    @contextlib.contextmanager
    def open(self) -> Iterator[MatrixHarness]:
        """Run the registry."""
        with self._registry, contextlib.closing(self._journal):
            yield self

    def asked(self, method: str, status: int) -> int:
        """How many requests of a method were answered so."""
        seen = self._registry.requests
        return sum((each.method, each.status) == (method, status) for each in seen)

    def run_case(self, size: int, trouble: Trouble, *, known: bool) -> Outcome:
        """Push one blob past one fault.

        Args:
            known: whether the digest is known before.
        """
        self._count += 1
        # Another blob each time: what an earlier cell left there must not count.
        blob = (self._count.to_bytes(8, "big") + self._bytes)[:size]
        path = self._directory / f"blob-{self._count}"
        path.write_bytes(blob)
        digest = digest_of(blob)
        second = size > 2 * self._scale.chunk
        sight = FaultInjector(self._layout / ".concil" / "uploads", trouble, second=second)
        with Relay(self._registry.host, observer=sight) as relay:
            if trouble in (Trouble.RESET, Trouble.CLOSED):
                action: Action = "rst" if trouble is Trouble.RESET else "fin"
                middle = int(1.5 * self._scale.chunk) if second else size // 2
                after = HEADS + middle
                relay.add_fault(Fault(action=action, after=after, direction="up", total=True))
            # The relay of an earlier cell may have had this port.
            quirks = self._case.quirks(self._scale)
            self._journal.save_host_profile(relay.host, quirks.to_json() if quirks else {})
            began = time.monotonic()
            given = Digest.parse(digest) if known else None
            wrong = self._push(path, relay.host, given, sight)
            if wrong.startswith("Cancelled"):
                wrong = self._push(path, relay.host, given)
            seconds = time.monotonic() - began
            happened = sight.happened or relay.fired_count > 0
        path.unlink()
        sent = sight.log.body_bytes()
        wrong = wrong or self._read(digest)
        most = self._most(size, trouble)
        if not wrong and sent > most:
            wrong = f"{sent} bytes sent, at most {most} expected"
        return Outcome(size, sent, seconds, happened or trouble is Trouble.NOTHING, wrong)

    def _push(
        self, path: Path, host: str, digest: Digest | None, sight: FaultInjector | None = None
    ) -> str:
        """Push as a process of its own would; return what went wrong."""
        timeouts = Timeouts(idle=TIMEOUT, commit=TIMEOUT)
        repository = f"http://{host}/{self._repository}"
        try:
            with Engine(self.config, timeouts=timeouts, journal=self._journal) as engine:
                if sight is not None:
                    sight.interrupt = engine.cancel
                told = engine.push_blob(path, repository, digest=digest)
        except ConcilError as error:
            return f"{type(error).__name__}: {error}"
        return "" if told.size == path.stat().st_size else f"told {told.size} bytes"

    def _read(self, digest: str) -> str:
        """Ask the registry for the blob, byte for byte."""
        url = f"{self._registry.url}/v2/{self._repository}/blobs/{digest}"
        with requests.get(url, timeout=TIMEOUT, stream=True) as answer:
            found = hashlib.sha256()
            for piece in answer.iter_content(1024 * 1024):
                found.update(piece)
        right = answer.status_code == 200 and f"sha256:{found.hexdigest()}" == digest
        return "" if right else f"GET answered {answer.status_code}, {found.hexdigest()[:12]}"

    def _most(self, size: int, trouble: Trouble) -> int:
        """How many bytes of bodies may be sent."""
        chunk = self._scale.chunk
        lessons = self._case.lessons * chunk + self._case.passes * size
        if trouble is Trouble.NOTHING:
            return size + lessons
        if self._case.resumes and trouble is not Trouble.GONE and size > chunk:
            return size + lessons + chunk
        if self._case.keeps and trouble is Trouble.INTERRUPTED:
            return size + lessons
        return 2 * size + lessons + chunk

    @property
    def _repository(self) -> str:
        return f"cells/number-{self._count}"
