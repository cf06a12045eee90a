"""The way of a digest from `concil copy` to the bytes on the wire stays short."""

from __future__ import annotations

import sys
import threading
from concurrent.futures import Future
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import concil
from concil.cli.main import main
from concil.config import MIB
from concil.server import EmbeddedRegistry
from concil.transfer.blob.request_body import ChunkBody
from concil.transfer.worker_pool import Priority, WorkerPool
from tests.support.images import assert_same_image, make_image, put_image

PACKAGE = Path(concil.__file__).parent
MAX_FUNCTIONS = 14  # of the coordinator and of the worker together, without Endpoint


def concil_stack() -> list[str]:
    """Return the functions of concil that are running in this thread, the outermost first."""
    functions: list[str] = []
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        path = Path(frame.f_code.co_filename)
        if path.is_relative_to(PACKAGE):
            module = path.relative_to(PACKAGE).as_posix()
            functions.append(f"{module}:{frame.f_code.co_qualname}")
        frame = frame.f_back
    return functions[::-1]


def between(stack: list[str], first: str, stop: str) -> list[str]:
    """Return the part of a stack from a function up to the first one of a module, exclusive."""
    start = stack.index(first)
    end = next((n for n, name in enumerate(stack) if n > start and name.startswith(stop)), None)
    return stack[start:end]


class Recorder:
    """Keeps the stacks of coordinators at a submit, and of workers while a body is sent."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._lock = threading.Lock()
        self.submitted: list[list[str]] = []
        self.sent: list[list[str]] = []
        self._submit, self._read = WorkerPool.submit, ChunkBody.read
        recorder = self

        def submit(pool: WorkerPool, job: Any, **options: Any) -> Future[Any]:  # noqa: ANN401
            if options.get("priority") is Priority.BLOB:
                recorder.record(recorder.submitted, concil_stack())
            return recorder._submit(pool, job, **options)

        def read(body: ChunkBody, size: int = -1, /) -> memoryview:
            recorder.record(recorder.sent, concil_stack())
            return recorder._read(body, size)

        monkeypatch.setattr(WorkerPool, "submit", submit)
        monkeypatch.setattr(ChunkBody, "read", read)

    def record(self, stacks: list[list[str]], stack: list[str]) -> None:
        """Keep a stack; any thread."""
        with self._lock:
            stacks.append(stack)


def test_a_blob_passes_few_functions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = make_image(1, (11 * MIB, 1000))  # a layer in two chunks, and one in a single PUT
    with (
        EmbeddedRegistry(tmp_path / "origin") as origin,
        EmbeddedRegistry(tmp_path / "target") as target,
    ):
        put_image(origin.url, "app", "1", image)
        recorder = Recorder(monkeypatch)

        assert main(["copy", f"{origin.url}/app:1", f"{target.url}/app:1"]) == 0
        assert_same_image(target.url, "app", "1", image)

    submit = "transfer/worker_pool.py:WorkerPool.submit"
    coordinator = max(
        (
            [*between(stack, "cli/commands/copy.py:run", "-"), submit]
            for stack in recorder.submitted
        ),
        key=len,
    )
    workers = [
        between(stack, "transfer/worker_pool.py:WorkerPool._run_jobs", "registry/endpoint.py")
        for stack in recorder.sent
    ]
    last_functions = {stack[-1] for stack in workers}
    longest = max(workers, key=len)
    assert last_functions == {
        "registry/upload_session.py:UploadSession.patch",
        "registry/upload_session.py:UploadSession.put",
    }
    assert len(coordinator) + len(longest) <= MAX_FUNCTIONS, "\n".join([*coordinator, *longest])
