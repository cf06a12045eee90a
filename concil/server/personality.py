"""The decisions in which registries differ, one method or number each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from concil.config import MIB
from concil.server.http import Reply, Request
from concil.server.ranges import read_range
from concil.server.refusal import Refusal

if TYPE_CHECKING:
    from concil.server.uploads import Upload


@dataclass(slots=True)
class Exchange:
    """One request and its answer, as seen on the wire.

    ``sent`` is what was meant to go out until the body has gone.
    """

    method: str
    path: str
    status: int
    received: int = 0  # bytes of the request's body
    sent: int = 0  # bytes of the answer's body


@dataclass(frozen=True, slots=True)
class Chunk:
    """A stretch of an upload that a client announces, before its bytes are read."""

    method: str  # PATCH, or PUT for the last one
    start: int | None  # first byte, None without Content-Range
    stop: int | None  # the byte behind the last, None without Content-Range
    length: int | None  # Content-Length, None for the chunked coding
    offset: int  # bytes the session holds
    session: str


class Personality:
    """How a registry behaves; as it stands, by the rules of distribution 3.

    Tests make subclasses. Every method may raise `Refusal` to answer with an error
    or `Hangup` to close the connection without an answer. Any thread may call any
    method.
    """

    chunk_minimum = 0  # bytes; announced as OCI-Chunk-Min-Length
    manifest_limit = 4 * MIB  # bytes
    page_limit = 1000  # referrers, and what a listing sends if asked for more
    busy_wait = 2.0  # seconds that a request waits for the writer in front of it
    silence = 10.0  # seconds without a byte after which a writer gives way to another

    def before(self, request: Request) -> Reply | None:  # noqa: ARG002  # for subclasses
        """Answer in place of the registry, or None to let it work. The body is unread."""
        return None

    def after(self, request: Request, reply: Reply) -> Reply:  # noqa: ARG002  # for subclasses
        """Change an answer before it goes out."""
        return reply

    def session_location(
        self,
        repository: str,
        session: str,
        offset: int,  # noqa: ARG002  # for subclasses
    ) -> str:
        """Where the client goes on with an upload."""
        return f"/v2/{repository}/blobs/uploads/{session}"

    def session_range(self, offset: int) -> str:
        """The Range header that says how many bytes a session holds."""
        return f"0-{max(offset - 1, 0)}"

    def check_session(self, request: Request, upload: Upload) -> None:
        """Look at every request on a session, before its body is read."""

    def check_chunk(self, chunk: Chunk) -> None:
        """Refuse a chunk by raising; the answer gets Location and Range if it is a 416."""
        if chunk.start is None or chunk.stop is None:
            return
        if chunk.start != chunk.offset:
            raise Refusal(
                "RANGE_INVALID", f"the session goes on at byte {chunk.offset}, not {chunk.start}"
            )
        if chunk.length is not None and chunk.length != chunk.stop - chunk.start:
            raise Refusal("SIZE_INVALID", "Content-Length and Content-Range differ")

    def overlap(self, chunk: Chunk) -> int:  # noqa: ARG002  # for subclasses
        """How many bytes at the head of a chunk are passed over, as they are there already."""
        return 0

    def body_broke(self, upload: Upload, before: int) -> None:
        """Decide what becomes of a session whose body broke off; what arrived is kept.

        Args:
            before: bytes that the session held before that body.
        """

    def blob_range(self, header: str, size: int) -> tuple[int, int] | None:
        """Which stretch of a blob a Range header means, half-open; None for all of it."""
        return read_range(header, size)


Observer = Callable[[Exchange], None]
