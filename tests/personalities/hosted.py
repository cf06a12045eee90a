"""GHCR, ECR, GAR, ACR and Cloudflare's registry (REGISTRIES.md 2.4, 2.8, 2.10, 2.11, 2.17)."""

from __future__ import annotations

import urllib.parse

from concil.config import MIB
from concil.server import Chunk, ErrorResponse, RegistryBehavior, Request, Response, Upload
from tests.personalities.distribution import Distribution2, bare, of_session, sealed


class GHCR(RegistryBehavior):
    """A chunk with Content-Range may have 4 MiB; a larger one is a 416."""

    def __init__(self, largest: int = 4 * MIB) -> None:
        """Args: largest: bytes of one chunk."""
        self._largest = largest

    def check_chunk(self, chunk: Chunk) -> None:
        ranged = chunk.method == "PATCH" and chunk.start is not None
        if ranged and (chunk.length is None or chunk.length > self._largest):
            raise ErrorResponse(
                "REQUESTED_RANGE_NOT_SATISFIABLE",
                "the request body is too large and exceeds the maximum permissible limit of"
                f" {self._largest / MIB:.2f}MiB",
                status=416,
            )
        super().check_chunk(chunk)

    def after_response(self, request: Request, reply: Response) -> Response:
        return bare(reply)


class ECR(RegistryBehavior):
    """Its Range sticks at the first chunk, its GET knows nothing, an empty closing PUT fails."""

    def __init__(self, smallest: int = 5 * MIB, largest: int = 20 * MIB) -> None:
        """Args: smallest, largest: bytes of one chunk; the last may be smaller."""
        self._smallest = smallest
        self._largest = largest
        self._first: dict[str, int] = {}  # bytes of the first chunk of each session
        self._latest: dict[str, int] = {}  # bytes of the latest one

    def before_request(self, request: Request) -> Response | None:
        if of_session(request) and request.method == "GET":
            raise ErrorResponse("BLOB_UPLOAD_UNKNOWN", "not found")
        return None

    def check_chunk(self, chunk: Chunk) -> None:
        super().check_chunk(chunk)
        length = chunk.length or 0
        if chunk.method == "PUT" and not length and chunk.session_id in self._first:
            raise ErrorResponse("UNKNOWN", "internal error", status=500)
        if self._latest.get(chunk.session_id, self._smallest) < self._smallest:
            raise ErrorResponse("BLOB_UPLOAD_INVALID", "layer part too small")
        if chunk.method == "PATCH":
            if length > self._largest:
                raise ErrorResponse("SIZE_INVALID", "layer part too large", status=413)
            self._first.setdefault(chunk.session_id, length)
            self._latest[chunk.session_id] = length

    def on_incomplete_body(self, upload: Upload, before: int) -> None:
        upload.path.unlink(missing_ok=True)

    def after_response(self, request: Request, reply: Response) -> Response:
        if request.method == "PATCH" and reply.status == 202:
            reply.status = 201  # as regclient saw it
            first = self._first[reply.headers["Docker-Upload-UUID"]]
            reply.headers["Range"] = f"0-{first - 1}"
        return bare(reply)


class GAR(RegistryBehavior):
    """No chunks: one PUT carries it all."""

    status = 405

    def before_request(self, request: Request) -> Response | None:
        if request.method == "PATCH":
            raise ErrorResponse(
                "UNSUPPORTED", "chunked uploads are not supported", status=self.status
            )
        return None

    def on_incomplete_body(self, upload: Upload, before: int) -> None:
        upload.path.unlink(missing_ok=True)


class GARWith400(GAR):
    """As GAR, with another status."""

    status = 400


class ACR(Distribution2):
    """Nothing survives a lost connection, and a large PUT is a 413."""

    def __init__(self, largest: int = 20 * MIB) -> None:
        """Args: largest: bytes of one body."""
        self._largest = largest

    def check_chunk(self, chunk: Chunk) -> None:
        if chunk.length is None:
            raise ErrorResponse("CONTENT_LENGTH_INVALID", "Content-Length is missing", status=400)
        if chunk.method == "PUT" and chunk.length > self._largest:
            raise ErrorResponse("SIZE_INVALID", "request entity too large", status=413)

    def on_incomplete_body(self, upload: Upload, before: int) -> None:
        upload.path.unlink(missing_ok=True)


class Cloudflare(RegistryBehavior):
    """All chunks but the last are of one announced size; what is not stored is not counted."""

    def __init__(self, smallest: int = 5 * MIB, largest: int = 100_000_000) -> None:
        """Args: smallest, largest: bytes of one chunk, as announced."""
        self.min_chunk_length = smallest
        self._largest = largest
        self._stored: dict[str, dict[int, int]] = {}  # session: length of the chunk at a byte

    def session_location(self, repository: str, session: str, offset: int) -> str:
        usual = super().session_location(repository, session, offset)
        return f"{usual}?_stateHash={sealed(session, offset)}"

    def check_session(self, request: Request, upload: Upload) -> None:
        state = urllib.parse.unquote(sealed(upload.session_id, upload.offset))
        if request.method in ("PATCH", "PUT") and request.query_value("_stateHash") != state:
            repository = request.path.removeprefix("/v2/").partition("/blobs/")[0]
            location = self.session_location(repository, upload.session_id, upload.offset)
            told = {"Location": location, "Range": self.session_range(upload.offset)}
            raise ErrorResponse("RANGE_INVALID", "stale state", headers=told)

    def check_chunk(self, chunk: Chunk) -> None:
        if chunk.start is not None and chunk.stop is not None and chunk.stop - chunk.start < 2:
            raise ErrorResponse("RANGE_INVALID", "start >= end")
        super().check_chunk(chunk)
        if not chunk.length:
            return
        parts = {
            at: n for at, n in self._stored.get(chunk.session_id, {}).items() if at < chunk.offset
        }
        sizes = set(parts.values())
        # A smaller part was the last one; a larger one cannot be told from an equal first.
        if len(sizes) > 1 or (sizes and chunk.length > min(sizes)):
            raise ErrorResponse("RANGE_INVALID", "all parts but the last must have the same size")
        if chunk.length > self._largest:
            raise ErrorResponse("SIZE_INVALID", "too much at once", status=413)
        if any(n < self.min_chunk_length for n in sizes):
            raise ErrorResponse("RANGE_INVALID", "only the last part may be smaller than announced")
        parts[chunk.offset] = chunk.length
        self._stored[chunk.session_id] = parts

    def on_incomplete_body(self, upload: Upload, before: int) -> None:
        upload.truncate(before)

    def blob_range(self, header: str, size: int) -> tuple[int, int] | None:
        return None

    def after_response(self, request: Request, reply: Response) -> Response:
        if "OCI-Chunk-Min-Length" in reply.headers:
            reply.headers["OCI-Chunk-Max-Length"] = str(self._largest)
        empty = reply.headers.get("Range") == "0-0"
        if empty and of_session(request) and request.method == "GET":
            reply.headers["Range"] = "0--1"
        return reply
