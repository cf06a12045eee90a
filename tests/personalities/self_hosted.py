"""zot, Quay and Gitea (REGISTRIES.md 2.6, 2.14, 2.15)."""

from __future__ import annotations

from concil.server import Chunk, ErrorResponse, RegistryBehavior, Request, Response, Upload
from tests.personalities.distribution import bare, of_session


class Zot(RegistryBehavior):
    """A body that breaks off costs the session."""

    def check_chunk(self, chunk: Chunk) -> None:
        if chunk.start is None or chunk.stop is None:
            return
        if chunk.start != chunk.offset or chunk.length != chunk.stop - chunk.start:
            raise ErrorResponse("RANGE_INVALID", "invalid content range", status=416)

    def on_incomplete_body(self, upload: Upload, before: int) -> None:
        upload.path.unlink(missing_ok=True)

    def after_response(self, request: Request, reply: Response) -> Response:
        streamed = request.method == "PATCH" and "content-range" not in request.headers
        if streamed and reply.status == 202:
            reply.headers["Range"] = f"0-{max(request.body.received - 1, 0)}"
        return bare(reply)


class Quay(RegistryBehavior):
    """What a chunk repeats is skipped, unless it begins at 0; a PUT that fails is the end.

    Its GET counts one byte too many and sends no Location.
    """

    keeps_parts = False  # of a chunk that broke off: it depends on the storage
    _closing: Upload | None = None

    def session_range(self, offset: int) -> str:
        return f"bytes=0-{offset - 1}"

    def check_session(self, request: Request, upload: Upload) -> None:
        if request.method == "PUT":
            self._closing = upload

    def check_chunk(self, chunk: Chunk) -> None:
        if chunk.start is not None and chunk.start > chunk.offset:
            raise ErrorResponse("RANGE_INVALID", "requested range not satisfiable", status=416)

    def overlap_length(self, chunk: Chunk) -> int:
        return chunk.offset - chunk.start if chunk.start else 0

    def on_incomplete_body(self, upload: Upload, before: int) -> None:
        if upload is self._closing:
            upload.path.unlink(missing_ok=True)
        elif not self.keeps_parts:
            upload.truncate(before)

    def after_response(self, request: Request, reply: Response) -> Response:
        if not of_session(request):
            return reply
        if request.method == "PUT" and reply.status >= 400 and self._closing is not None:
            self._closing.path.unlink(missing_ok=True)
        if request.method == "GET" and reply.status == 204:
            del reply.headers["Location"]
        one_more = request.method == "GET" or reply.status == 416
        if one_more and "Range" in reply.headers:
            last = int(reply.headers["Range"].removeprefix("bytes=0-"))
            reply.headers["Range"] = f"bytes=0-{last + 1}"
        return reply


class QuayKeepingParts(Quay):
    """As Quay on a storage that does not notice that a body broke off."""

    keeps_parts = True


class Gitea(RegistryBehavior):
    """A body that breaks off spoils the session for ever; nothing tells where it stands."""

    no_status = 405  # what a GET of a session is answered with

    def __init__(self) -> None:
        self._spoilt: set[str] = set()
        self._begun: set[str] = set()

    def before_request(self, request: Request) -> Response | None:
        if of_session(request) and request.method == "GET":
            raise ErrorResponse("UNSUPPORTED", "method not allowed", status=self.no_status)
        return None

    def check_session(self, request: Request, upload: Upload) -> None:
        if upload.session_id in self._spoilt and request.method in ("PATCH", "PUT"):
            raise ErrorResponse("UNKNOWN", "offset mismatch between file and model", status=500)

    def check_chunk(self, chunk: Chunk) -> None:
        if chunk.start is not None and chunk.start != chunk.offset:
            raise ErrorResponse("BLOB_UPLOAD_INVALID", "wrong start", status=416)
        if chunk.start is None and chunk.method == "PATCH" and chunk.session_id in self._begun:
            raise ErrorResponse(
                "BLOB_UPLOAD_INVALID", "Stream uploads after first write are not allowed"
            )
        self._begun.add(chunk.session_id)

    def on_incomplete_body(self, upload: Upload, before: int) -> None:
        if upload.offset > before:
            self._spoilt.add(upload.session_id)

    def blob_range(self, header: str, size: int) -> tuple[int, int] | None:
        return None

    def after_response(self, request: Request, reply: Response) -> Response:
        return bare(reply)


class GiteaWithoutRoute(Gitea):
    """As Gitea, where the route of a session does not exist for GET."""

    no_status = 404
