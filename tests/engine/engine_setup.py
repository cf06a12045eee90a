"""What tests of the engine share: quick settings, files, and registries of either kind."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from concil.config import MIB, RetryPolicy, Timeouts, TransferConfig
from concil.engine.engine import Engine
from concil.progress.events import ProgressSink
from concil.transfer.journal import Journal
from tests.support.docker_registry import DockerRegistry
from tests.support.images import write_blob

WAIT = 60  # seconds until a test that hangs is failed
CHUNK = MIB
# Back-off is for other people's registries; here it would only be slow.
QUICK = TransferConfig(
    workers=4,
    chunk_size=CHUNK,
    range_size=CHUNK,
    block_size=64 * 1024,
    retry=RetryPolicy(backoff_base=0.01, max_backoff=0.1),
)
PATIENT = Timeouts(connect=5, idle=20, commit=20)
IDLE = Timeouts(connect=5, idle=1, commit=20)


class Registry(Protocol):
    """A registry of either kind."""

    @property
    def host(self) -> str: ...

    @property
    def url(self) -> str: ...


@dataclass(frozen=True, slots=True)
class RealRepository:
    """A repository of the real registry."""

    registry: DockerRegistry
    repository: str

    @property
    def url(self) -> str:
        """The registry's address."""
        return self.registry.url

    @property
    def address(self) -> str:
        """The repository, without a scheme."""
        return f"{self.registry.host}/{self.repository}"


@contextmanager
def engine_of(
    config: TransferConfig = QUICK,
    *,
    timeouts: Timeouts = PATIENT,
    progress: ProgressSink | None = None,
    journal: Journal | None = None,
) -> Iterator[Engine]:
    """Run an engine that remembers nothing, and ends with the block."""
    engine = Engine(config, timeouts=timeouts, progress=progress, journal=journal or Journal(None))
    try:
        yield engine
    except BaseException:
        engine.cancel()
        raise
    finally:
        assert engine.close(WAIT), "a worker has not ended"


@dataclass(frozen=True, slots=True)
class Content:
    """A file, and what it hashes to."""

    path: Path
    digest: str
    size: int  # bytes

    @property
    def bytes(self) -> bytes:
        """All of it."""
        return self.path.read_bytes()


def file_of(directory: Path, size: int, seed: int = 1) -> Content:
    """Write a file of random bytes."""
    path = directory / f"content-{seed}"
    return Content(path, write_blob(path, seed, size), size)


def blob_path(layout: Path, digest: str) -> Path:
    """Where a layout keeps a blob."""
    return layout / "blobs" / digest.replace(":", "/")
