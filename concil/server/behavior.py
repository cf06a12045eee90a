"""RegistryBehavior: where registries differ, as methods and numbers to override."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from concil.config import MIB
from concil.runtime.dataclass import dataclass
from concil.server.errors import ErrorResponse
from concil.server.http import Request, Response
from concil.server.ranges import parse_range

if TYPE_CHECKING:
    from concil.server.upload_store import Upload


@dataclass(slots=True)
class Exchange:
    """One request and its response on the wire.

    ``sent`` is the intended number of bytes until the body has been sent.
    """

    method: str
    path: str
    status: int
    received: int = 0  # bytes of the request body
    sent: int = 0  # bytes of the response body


@dataclass(frozen=True, slots=True)
class Chunk:
    """A chunk of an upload as its headers announce it, before its bytes are read."""

    method: str  # PATCH, or PUT for the last one
    start: int | None  # first byte; None without Content-Range
    stop: int | None  # one past the last byte; None without Content-Range
    length: int | None  # Content-Length; None with chunked transfer coding
    offset: int  # bytes that the session holds
    session_id: str


class RegistryBehavior:
    """Behavior of a registry; the defaults follow distribution 3.

    Tests override it in subclasses. Every method may raise `ErrorResponse` to answer with an
    error, or `DropConnection` to close the connection without a response. Thread-safe.
    """

    min_chunk_length = 0  # bytes; announced as OCI-Chunk-Min-Length
    manifest_limit = 4 * MIB  # bytes
    page_limit = 1000  # page size of referrers, and the maximum of other listings
    session_lock_timeout = 2.0  # seconds that a request waits for the session's writer
    writer_idle_timeout = 10.0  # seconds without a byte until a writer may be replaced

    def before_request(self, request: Request) -> Response | None:  # noqa: ARG002  # for subclasses
        """Return a response, or None to handle the request as usual. The body is unread."""
        return None

    def after_response(self, request: Request, response: Response) -> Response:  # noqa: ARG002  # for subclasses
        """Return the response to send, changed or not."""
        return response

    def session_location(
        self,
        repository: str,
        session_id: str,
        offset: int,  # noqa: ARG002  # for subclasses
    ) -> str:
        """Return the Location for the next request of an upload session."""
        return f"/v2/{repository}/blobs/uploads/{session_id}"

    def session_range(self, offset: int) -> str:
        """Return the Range header for the bytes that a session holds."""
        return f"0-{max(offset - 1, 0)}"

    def check_session(self, request: Request, upload: Upload) -> None:
        """Check every request to a session before its body is read; raise to refuse it."""

    def check_chunk(self, chunk: Chunk) -> None:
        """Refuse a chunk by raising; a 416 response gets Location and Range headers."""
        if chunk.start is None or chunk.stop is None:
            return
        if chunk.start != chunk.offset:
            raise ErrorResponse(
                "RANGE_INVALID",
                f"the next chunk must start at byte {chunk.offset}, not {chunk.start}",
            )
        if chunk.length is not None and chunk.length != chunk.stop - chunk.start:
            raise ErrorResponse("SIZE_INVALID", "Content-Length and Content-Range differ")

    def overlap_length(self, chunk: Chunk) -> int:  # noqa: ARG002  # for subclasses
        """Return how many leading bytes of a chunk to skip because the session has them already."""
        return 0

    def on_incomplete_body(self, upload: Upload, start_offset: int) -> None:
        """Decide what happens to a session whose body was incomplete; received bytes are kept.

        Args:
            start_offset: bytes that the session held before that body.
        """

    def blob_range(self, header: str, size: int) -> tuple[int, int] | None:
        """Return the range that a Range header selects, half-open; None for the whole blob."""
        return parse_range(header, size)


Observer = Callable[[Exchange], None]
