"""distribution 2.8 and 3, the registries that most others are made of (REGISTRIES.md 2.1, 2.2)."""

from __future__ import annotations

import base64
import hashlib
import urllib.parse

from concil.server import Chunk, ErrorResponse, RegistryBehavior, Request, Response, Upload


def sealed(session: str, offset: int) -> str:
    """Return what ties a Location to an offset, quoted: it has `+`, `/` and `=` in it."""
    code = hashlib.sha256(f"{session} {offset}".encode()).digest()
    return urllib.parse.quote(base64.b64encode(code + code).decode(), safe="")


def of_session(request: Request) -> bool:
    """Whether a request is on an upload session, not for a new one."""
    return "/blobs/uploads/" in request.path and not request.path.endswith("/uploads/")


def bare(reply: Response) -> Response:
    """Take from a 416 what only some registries tell in it."""
    if reply.status == 416:
        for name in ("Location", "Range"):
            reply.headers.pop(name, None)
    return reply


class Distribution2(RegistryBehavior):
    """Each Location is good for one offset only, so a byte that nobody told of is the end.

    Content-Range is ignored: what comes is appended.
    """

    def session_location(self, repository: str, session: str, offset: int) -> str:
        usual = super().session_location(repository, session, offset)
        return f"{usual}?_state={sealed(session, offset)}"

    def check_session(self, request: Request, upload: Upload) -> None:
        state = urllib.parse.unquote(sealed(upload.session_id, upload.offset))
        if request.query_value("_state") != state:
            raise ErrorResponse("BLOB_UPLOAD_INVALID", "blob upload invalid", status=404)

    def check_chunk(self, chunk: Chunk) -> None:
        pass


class Distribution3(RegistryBehavior):
    """GET tells the offset and a fresh Location; a stale one is refused and does no harm.

    Its lists come in pages of `page_limit` names at most, and whoever asks for more is refused.
    """

    def before_request(self, request: Request) -> Response | None:
        if request.path == "/v2/_catalog" or request.path.endswith("/tags/list"):
            asked = request.query.setdefault("n", [str(self.page_limit)])[0]
            if asked.isdecimal() and int(asked) > self.page_limit:
                raise ErrorResponse(
                    "PAGINATION_NUMBER_INVALID", "invalid number of results requested"
                )
        return super().before_request(request)

    def session_location(self, repository: str, session: str, offset: int) -> str:
        usual = super().session_location(repository, session, offset)
        return f"{usual}?_state={sealed(session, offset)}"

    def check_session(self, request: Request, upload: Upload) -> None:
        state = urllib.parse.unquote(sealed(upload.session_id, upload.offset))
        if request.method in ("PATCH", "PUT") and request.query_value("_state") != state:
            raise ErrorResponse("RANGE_INVALID", "invalid content range")

    def after_response(self, request: Request, reply: Response) -> Response:
        return bare(reply)
