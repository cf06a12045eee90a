"""Upload sessions of a registry whose behavior a test sets."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field

from concil.config import RetryPolicy, TransferConfig
from concil.errors import ConnectionLost
from concil.fs.resume_state import WriterState
from concil.oci.blob_reader import BlobReader
from concil.oci.manifest import Digest
from concil.progress.events import Meter, ProgressSink
from concil.registry.client import RegistryClient
from concil.registry.quirks import HostProfiles
from concil.store.registry.blob_upload import RegistryBlobWriter
from concil.store.registry.repository import RepositoryStore
from concil.transfer.blob.push import BlobUpload
from concil.transfer.blob.resuming_reader import Opener
from concil.transfer.blob.source import BlobSource
from concil.transfer.context import TransferContext
from tests.support.quick_retries import FAST
from tests.support.scripted_server import ReceivedRequest, ScriptedResponse, ScriptedServer, reply

Trouble = Callable[[ReceivedRequest], ScriptedResponse | None]


class Uploads:
    """Sessions of the repository team/app, strict in what they take.

    ``troubles`` holds, by method, what happens instead of the next requests; one that
    returns None lets the registry answer after all.
    """

    def __init__(self, server: ScriptedServer) -> None:
        self.server = server
        self.held = b""  # of the newest session
        self.blobs: dict[str, bytes] = {}
        self.sessions = 0
        self.troubles: dict[str, list[Trouble]] = {}
        self.state = 0  # each answer's Location carries another; only the newest is taken
        self.post_headers: dict[str, str] = {}
        self.location: Callable[[str], str] = lambda path: path
        self.patch_range: Callable[[int, int], str | None] = lambda _, held: told(held)
        self.status_range: Callable[[int], str | None] = told
        server.respond("POST", "/v2/team/app/blobs/uploads/", self._post)
        server.respond("*", r"/session/.*", self._session)
        server.respond("*", "/v2/team/app/blobs/sha.*", self._blob)

    def trouble(self, method: str, *troubles: Trouble) -> None:
        """Let something happen to the next requests of a method."""
        self.troubles.setdefault(method, []).extend(troubles)

    def asked(self) -> str:
        """The methods of all requests so far, in order."""
        return " ".join(seen.method for seen in self.server.requests)

    def here(self) -> str:
        """The path of the newest session, as it is now."""
        return f"/session/{self.sessions}?_state={self.state}%2Bx"

    def answer(self, status: int, held: str | None = None, **headers: str) -> ScriptedResponse:
        """An answer of the session, with a new Location."""
        self.state += 1
        if held is not None:
            headers["Range"] = held
        return reply(status, Location=self.location(self.here()), **headers)

    def _next(self, seen: ReceivedRequest) -> ScriptedResponse | None:
        waiting = self.troubles.get(seen.method, [])
        return waiting.pop(0)(seen) if waiting else None

    def _post(self, seen: ReceivedRequest) -> ScriptedResponse:
        instead = self._next(seen)
        if instead is not None:
            return instead
        self.sessions += 1
        self.held = b""
        return self.answer(202, "0-0", **self.post_headers)

    def _session(self, seen: ReceivedRequest) -> ScriptedResponse:
        expected = self.here().partition("?")[2]
        instead = self._next(seen)
        if instead is not None:
            return instead
        path, _, query = seen.path.partition("?")
        if path != f"/session/{self.sessions}" or not query.startswith(expected):
            return reply(404, '{"errors": [{"code": "BLOB_UPLOAD_UNKNOWN"}]}')
        if seen.method == "GET":
            return self.answer(204, self.status_range(len(self.held)))
        if seen.method == "PATCH":
            return self._patch(seen)
        if seen.method == "PUT":
            return self._put(seen)
        return reply(204)

    def _patch(self, seen: ReceivedRequest) -> ScriptedResponse:
        span = seen.headers.get("content-range")
        length = int(seen.headers["content-length"])
        begin = len(self.held)
        if span is not None and span != f"{begin}-{begin + length - 1}":
            return self.answer(416, told(begin))
        self.held += seen.read()
        return self.answer(202, self.patch_range(begin, len(self.held)))

    def _put(self, seen: ReceivedRequest) -> ScriptedResponse:
        self.held += seen.read()
        [wanted] = seen.query["digest"]
        found = hashlib.new(wanted.partition(":")[0], self.held).hexdigest()
        if found != wanted.partition(":")[2]:
            return reply(400, '{"errors": [{"code": "DIGEST_INVALID", "message": "no"}]}')
        self.blobs[wanted] = self.held
        return reply(201, Location=f"/v2/team/app/blobs/{wanted}", Docker_Content_Digest=wanted)

    def _blob(self, seen: ReceivedRequest) -> ScriptedResponse:
        instead = self._next(seen)
        content = self.blobs.get(seen.path.rpartition("/")[2])
        return instead or (reply(404) if content is None else reply(200, content))


def told(held: int) -> str:
    """A Range header as distribution has it."""
    return f"0-{max(held - 1, 0)}"


class Bytes:
    """Bytes as a BlobReader; counts what is read from it."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.read = 0  # bytes

    def __call__(self, start: int, /) -> BlobReader:
        return _Reader(self, start)


class _Reader:
    def __init__(self, source: Bytes, start: int) -> None:
        self._source = source
        self.start = self._at = start

    def readinto(self, buffer: memoryview, /) -> int:
        piece = self._source.content[self._at : self._at + len(buffer)]
        buffer[: len(piece)] = piece
        self._at += len(piece)
        self._source.read += len(piece)
        return len(piece)

    def close(self) -> None:
        """Nothing to let go of."""


@dataclass(slots=True)
class Upload:
    """One blob on its way through the real engine into the scripted registry."""

    client: RegistryClient
    blob: bytes
    chunk: int = 1000  # bytes of one PATCH
    knowledge: HostProfiles = field(default_factory=HostProfiles)
    retry: RetryPolicy = FAST
    sink: ProgressSink | None = None
    known: bool = True  # whether the digest is known before
    resume: WriterState | None = None
    writer: RegistryBlobWriter | None = None

    def store(self) -> RepositoryStore:
        """The repository."""
        return RepositoryStore(
            self.client, name="reg/team/app", host_profiles=self.knowledge, chunk_size=self.chunk
        )

    def run(self, opener: Opener | None = None) -> Digest:
        """Upload it."""
        digest = Digest.from_bytes(self.blob)
        size = len(self.blob)
        writer = self.store().begin_blob(size, digest if self.known else None, self.resume)
        self.writer = writer
        meter = Meter(self.sink, kind="blob", subject=str(digest), target="reg", total=size)
        run = TransferContext(
            TransferConfig(retry=self.retry, block_size=64 * 1024), self.client.endpoint.cancel
        )
        opener = opener or Bytes(self.blob)
        source = BlobSource(
            lambda start, _stop=None, /: opener(start), size, digest if self.known else None, "blob"
        )
        return BlobUpload(source, writer, meter, run).run()


def cut_after(uploads: Uploads, count: int, *, kept: bool = True) -> Trouble:
    """Take some bytes of a chunk, then reset the connection."""

    def trouble(seen: ReceivedRequest) -> ScriptedResponse:
        piece = seen.read(count)
        if kept:
            uploads.held += piece
        return ScriptedResponse(0, cut="rst")

    return trouble


def lost_answer(uploads: Uploads) -> Trouble:
    """Do what is asked for, then reset the connection before the answer."""

    def trouble(seen: ReceivedRequest) -> ScriptedResponse:
        if seen.method == "PATCH":
            uploads._patch(seen)
        elif seen.method == "PUT":
            uploads._put(seen)
        return ScriptedResponse(0, cut="rst")

    return trouble


def always(answer: ScriptedResponse) -> Trouble:
    """The same answer whatever is asked."""
    return lambda _: answer


def source_that_breaks(content: bytes, at: int) -> Opener:
    """A source whose reader is lost for good at some byte."""

    class Broken(_Reader):
        def readinto(self, buffer: memoryview, /) -> int:
            if self._at >= at:
                raise ConnectionLost("the source is gone")
            return super().readinto(buffer[: at - self._at])

    source = Bytes(content)
    return lambda start: Broken(source, start)
