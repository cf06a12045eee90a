"""The endpoints of the live page."""

from __future__ import annotations

import json
import threading
import time
import urllib.parse
from collections.abc import Callable, Mapping

from concil.server.connection import Body
from concil.server.errors import ErrorResponse
from concil.server.http import Request, Response
from concil.web.access_policy import AccessPolicy
from concil.web.live_mirror import LiveMirror
from concil.web.live_page import Page, render_live_page, render_login_page
from concil.web.status_document import IMAGE_LIMIT, status_document

RenderMetrics = Callable[[], bytes]
METRICS_TYPE = "application/openmetrics-text; version=1.0.0; charset=utf-8"
FORM_TIMEOUT = 10.0  # seconds
MAX_FORMS = 8  # that are read at once; slow ones must not hold every connection
_MAX_FORM_SIZE = 4096  # bytes
_MAX_IMAGES = 100_000  # in one answer
_READS = ("GET", "HEAD")
STREAM_PATHS = ("/api/events", "/api/live")
_METHODS: dict[str, tuple[str, ...]] = {
    "/login": (*_READS, "POST"),
    "/api/run": ("POST",),
    **dict.fromkeys(STREAM_PATHS, ("GET",)),
}
SECURITY_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class Endpoints:
    """Answers requests, except for streams. Thread-safe."""

    def __init__(
        self, live: LiveMirror, access: AccessPolicy, metrics: RenderMetrics | None
    ) -> None:
        """Create them.

        Args:
            metrics: returns OpenMetrics text; None: there are no metrics.
        """
        self._live = live
        self._access = access
        self._metrics = metrics
        self._page = render_live_page()
        self._forms = threading.BoundedSemaphore(MAX_FORMS)
        self._handlers: dict[str, Callable[[Request], Response]] = {
            "/": self._get_page,
            "/login": self._log_in,
            "/healthz": lambda _: _health(live.status.describe_stuck()),
            "/readyz": lambda _: _health(live.status.describe_unready()),
            "/metrics": self._get_metrics,
            "/api/status": self._get_status,
            "/api/run": self._start_run,
        }

    def refuse(self, request: Request) -> Response | None:
        """Return the refusal of a request that may not be answered; None: it may."""
        if request.path in ("/healthz", "/readyz"):  # probes; they tell nothing
            return None
        if not self._access.is_host_accepted(request):
            return text_response(
                421, "without a token this page is for names of this machine, for example localhost"
            )
        if request.path in ("/", "/login") or self._access.may_read(request):
            return None
        return _unauthorized()

    def answer(self, request: Request) -> Response:
        """Answer a request that is not refused."""
        handler = self._handlers.get(request.path)
        if handler is None and request.path not in STREAM_PATHS:
            pages = " ".join((*self._handlers, *STREAM_PATHS))
            return text_response(404, f"no such page; the pages are: {pages}")
        allowed = _METHODS.get(request.path, _READS)
        if handler is None or request.method not in allowed:
            refusal = text_response(405, f"this page is for {', '.join(allowed)}")
            refusal.headers["Allow"] = ", ".join(allowed)
            return refusal
        return handler(request)

    def _get_page(self, request: Request) -> Response:
        token = request.query_value("token")
        if token is not None:
            # The token must not stay in the address: that is kept in histories and logs.
            return self._redirect(is_accepted=self._access.is_token(token))
        if not self._access.may_read(request):
            return _page_response(401, render_login_page())
        return _page_response(200, self._page)

    def _log_in(self, request: Request) -> Response:
        if request.method != "POST" and self._access.has_token:
            return _page_response(200, render_login_page())
        if not self._forms.acquire(blocking=False):
            return text_response(503, "too many logins at once; try again in a few seconds")
        try:
            form = _read_form(request.body)
        finally:
            self._forms.release()
        return self._redirect(is_accepted=self._access.is_token(form.get("token", [""])[0].strip()))

    def _redirect(self, *, is_accepted: bool) -> Response:
        """Store the login and show the page, or ask again."""
        headers = {**SECURITY_HEADERS, "Location": "./"}
        if not self._access.has_token:
            return Response(303, headers)
        if not is_accepted:
            return _page_response(401, render_login_page(is_rejected=True))
        return Response(303, {**headers, "Set-Cookie": self._access.set_cookie_header()})

    def _get_metrics(self, _request: Request) -> Response:
        if self._metrics is None:
            return text_response(
                404, "there are no metrics: they need pip install 'concil[service]'"
            )
        return _response(200, METRICS_TYPE, self._metrics())

    def _get_status(self, request: Request) -> Response:
        text = request.query_value("images") or str(IMAGE_LIMIT)
        if not (text.isascii() and text.isdigit() and len(text) < 7 and int(text) <= _MAX_IMAGES):
            return text_response(400, f"images is not a number from 0 to {_MAX_IMAGES}")
        body = json.dumps(status_document(self._live, int(text))) + "\n"
        return _response(200, "application/json", body.encode())

    def _start_run(self, request: Request) -> Response:
        if not self._access.may_change(request):
            if self._access.has_token:
                return text_response(403, "this needs the token, or a click on the page itself")
            return text_response(403, "this needs a token, and the mirror was started without one")
        if self._live.request_run is None:
            return text_response(409, "this mirror runs once: there is no next run")
        if not self._live.request_run():
            return text_response(409, "a run of the plan goes on, or the mirror ends")
        return text_response(202, "a run begins")


def _read_form(body: Body) -> dict[str, list[str]]:
    """Read a form.

    Raises:
        ErrorResponse: it is too large, takes too long, or has too many fields.
    """
    content, buffer = bytearray(), memoryview(bytearray(_MAX_FORM_SIZE))
    end = time.monotonic() + FORM_TIMEOUT
    while count := body.readinto(buffer):
        content += buffer[:count]
        if len(content) > _MAX_FORM_SIZE:
            raise ErrorResponse("SIZE_INVALID", "the form is too large", status=413)
        if time.monotonic() > end:
            raise ErrorResponse("UNSUPPORTED", "the form took too long", status=408)
    try:
        return urllib.parse.parse_qs(content.decode("ascii", "replace"), max_num_fields=8)
    except ValueError as error:
        raise ErrorResponse("UNSUPPORTED", "too many fields", status=400) from error


def text_response(status: int, line: str) -> Response:
    """Return an answer of one line of text."""
    return _response(status, "text/plain; charset=utf-8", f"{line}\n".encode())


def error_response(error: ErrorResponse) -> Response:
    """Return the answer to a request that cannot be read."""
    return text_response(error.status, error.message)


def _health(problem: str) -> Response:
    return text_response(503 if problem else 200, problem or "ok")


def _unauthorized() -> Response:
    response = text_response(401, "this needs the token: Authorization: Bearer TOKEN")
    response.headers["WWW-Authenticate"] = 'Bearer realm="concil"'
    return response


def _page_response(status: int, page: Page) -> Response:
    headers = {"Content-Security-Policy": page.policy}
    return _response(status, "text/html; charset=utf-8", page.content, headers)


def _response(
    status: int, media_type: str, body: bytes, headers: Mapping[str, str] | None = None
) -> Response:
    all_headers = {**SECURITY_HEADERS, "Content-Type": media_type, **(headers or {})}
    return Response(status, all_headers, body)
