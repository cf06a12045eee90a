"""Fast path through private parts of http.client, urllib3 and requests; it can be switched off.

No other module uses such parts. With ``CONCIL_STOCK_HTTP=1`` in the environment, requests,
urllib3 and http.client do everything themselves, with their own bounds on headers. Then a
request needs three times the CPU time, and blobs are copied while they are received.
"""

from __future__ import annotations

import functools
import http.client
import io
import os
import re
import time
from typing import Any

import requests
import requests.adapters
import requests.cookies
import requests.utils
from requests.cookies import RequestsCookieJar
from urllib3.connectionpool import HTTPConnectionPool

from concil.config import KIB
from concil.http import errors
from concil.http.headers import Headers

ENABLED = os.environ.get("CONCIL_STOCK_HTTP", "") in ("", "0")

MAX_INTERIM_RESPONSES = 16  # such as "100 Continue", before the final response
MAX_LINE_SIZE = 64 * KIB  # bytes
HEADER_TIMEOUT = 300.0  # seconds for all headers; one byte a minute passes an idle timeout

# URLs and headers that requests would send unchanged: no user info, no "." or ".." segments,
# and only necessary escapes. Matching them here is cheaper than its normalization.
_UNESCAPED = r"[!$&'()*+,.0-9:;=@A-Z_a-z~-]"
_ESCAPED = r"%(?:[0189A-F][0-9A-F]|2[0-9ABCF]|3[A-F]|40|5[BCDE]|60|7[BCDF])"
_PLAIN_URL = re.compile(
    r"https?://[a-z0-9][a-z0-9.-]*(?::(?:[1-9][0-9]{0,3}|[1-5][0-9]{4}))?"
    rf"(?:/(?!\.\.?(?:[/?]|\Z)){_UNESCAPED}*(?:{_ESCAPED}{_UNESCAPED}*)*)+"
    rf"(?:\?(?:[/?]|{_UNESCAPED}|{_ESCAPED})+)?"
)
_PLAIN_NAME = re.compile(r"[A-Za-z0-9-]+")
_PLAIN_VALUE = re.compile(r"[!-~](?:[ -~]*[!-~])?")
_METHODS_WITHOUT_BODY = frozenset({"GET", "HEAD"})
_ORIGINAL_SEND = requests.Session.send
_ORIGINAL_ADAPTER_SEND = requests.adapters.HTTPAdapter.send


# Requests ----------------------------------------------------------------------------


def can_bypass_session() -> bool:
    """Return whether a request may go from the session to its adapter directly.

    A library that intercepts requests replaces `requests.Session.send`, and has to see it.
    """
    return ENABLED and requests.Session.send is _ORIGINAL_SEND


def can_bypass_adapter(adapter: requests.adapters.HTTPAdapter) -> bool:
    """Return whether a request may be sent without `send` of its adapter.

    A caller may have replaced it, or a library that intercepts requests.
    """
    is_original = requests.adapters.HTTPAdapter.send is _ORIGINAL_ADAPTER_SEND
    return ENABLED and is_original and "send" not in vars(adapter)


def prepare_request(
    session: requests.Session, request: requests.Request
) -> requests.PreparedRequest | None:
    """Prepare a request as requests does; None if requests has to do it.

    For forms, cookies, hooks, auth handlers and unusual URLs requests needs as much CPU time
    as for sending. This function prepares requests that have only a URL, headers and a body.
    """
    if not ENABLED or _needs_full_preparation(session, request):
        return None
    if not _PLAIN_URL.fullmatch(request.url or ""):
        return None
    headers = Headers()
    for name, value in (*session.headers.items(), *request.headers.items()):
        # requests takes bytes, too, whatever its type stubs say.
        if not (type(name) is type(value) is str and _is_plain_header(name, value)):
            return None
        headers[name] = value
    prepared = _PlainRequest((request.method or "").upper(), request.url or "", headers)
    if request.data:
        prepared.body = request.data
        headers["Content-Length"] = str(len(request.data))
    elif prepared.method not in _METHODS_WITHOUT_BODY:
        headers.setdefault("Content-Length", "0")
    return prepared


@functools.lru_cache(maxsize=256)
def _is_plain_header(name: str, value: str) -> bool:
    """Return whether requests would send a header unchanged."""
    return bool(_PLAIN_NAME.fullmatch(name) and _PLAIN_VALUE.fullmatch(value))


class _PlainRequest(requests.PreparedRequest):
    """Request with a plain URL; requests parses the URL each time its path is needed."""

    def __init__(self, method: str, url: str, headers: Headers) -> None:
        self.method = method
        self.url = self._plain_url = url
        self.headers = headers
        self.body = None
        self.hooks = {"response": []}
        self._body_position = None

    @property
    def path_url(self) -> str:
        """The path and the query."""
        url = self.url
        if url is not self._plain_url:  # a caller has replaced it
            return super().path_url
        return url[url.index("/", len("https://")) :]

    @functools.cached_property
    def _cookies(self) -> RequestsCookieJar:
        """Cookies that `resolve_redirects` of requests adds."""
        return RequestsCookieJar()


def _needs_full_preparation(session: requests.Session, request: requests.Request) -> bool:
    """Return whether a request has more than a URL, headers and a body of known length."""
    has_extras = request.params or request.files or request.auth or request.cookies
    if has_extras or request.json is not None or any(request.hooks.values()):
        return True
    if session.auth or session.params or session.trust_env or any(session.hooks.values()):
        return True
    if next(iter(session.cookies), None) is not None:
        return True
    data = request.data
    if not data or isinstance(data, bytes):
        return False
    # With these attributes requests computes the length differently, and rewinds the body.
    is_file_like = hasattr(data, "__iter__") or hasattr(data, "tell") or hasattr(data, "len")
    return is_file_like or not (hasattr(data, "read") and hasattr(data, "__len__"))


# Connections -------------------------------------------------------------------------


def take_connection(pool: HTTPConnectionPool) -> Any:  # noqa: ANN401 - urllib3's
    """Return an idle connection of the pool, or a new one that is not connected yet."""
    return pool._get_conn()  # noqa: SLF001 - see the module's docstring


def connect(pool: HTTPConnectionPool, connection: Any) -> None:  # noqa: ANN401 - urllib3's
    """Connect as urllib3 does, which warns of an https host that is not verified."""
    pool._validate_conn(connection)  # noqa: SLF001 - see the module's docstring
    if connection.sock is None:  # for http it does nothing
        connection.connect()


def return_connection(pool: HTTPConnectionPool, connection: Any | None) -> None:  # noqa: ANN401
    """Return a connection to its pool; None: the pool opens another one in its place."""
    pool._put_conn(connection)  # noqa: SLF001 - see the module's docstring


class DirectResponse(requests.Response):
    """Response with attributes set here: ``requests.Response`` creates a cookie jar each."""

    def __init__(
        self,
        request: requests.PreparedRequest,
        body: Any,  # noqa: ANN401 - in place of urllib3's response
        headers: Headers,
    ) -> None:
        """Create the response to ``request``; ``body`` has its status and reason, too."""
        self._content: Any = False  # the type stubs know only what it is when it was read
        self._content_consumed = False
        self._next = None
        self.status_code = body.status
        self.headers = headers
        self.raw = body
        self.url = request.url or ""
        self.history = []
        self.reason = body.reason
        self.request = request

    @functools.cached_property
    def encoding(self) -> str | None:  # type: ignore[override]
        """The encoding of the text, from the headers."""
        return requests.utils.get_encoding_from_headers(self.headers)

    @functools.cached_property
    def cookies(self) -> requests.cookies.RequestsCookieJar:  # type: ignore[override]
        """The cookies of the response."""
        jar = requests.cookies.RequestsCookieJar()
        requests.cookies.extract_cookies_to_jar(jar, self.request, self.raw)  # type: ignore[no-untyped-call]
        return jar


# Response headers --------------------------------------------------------------------


def response_class() -> type[http.client.HTTPResponse]:
    """Return the class of responses for a connection of http.client."""
    return BoundedResponse if ENABLED else http.client.HTTPResponse


class _BoundedReader(io.BufferedReader):
    """Buffered reader that limits the length of a line and the time for all lines."""

    _deadline: float | None = None  # monotonic seconds; None before the first byte

    def reset_deadline(self) -> None:
        """Restart the header timeout when the next byte arrives."""
        self._deadline = None

    def readline(self, size: int | None = -1, /) -> bytes:
        """Read a line, receiving as often as needed; cut it at the maximum length."""
        remaining = MAX_LINE_SIZE if size is None or size < 0 else size
        pieces: list[bytes] = []
        while remaining > 0 and (buffered := self.peek(1)):
            now = time.monotonic()
            self._deadline = self._deadline or now + HEADER_TIMEOUT
            if now > self._deadline:
                raise http.client.HTTPException("the headers take too long")
            end = buffered.find(b"\n") + 1
            if 0 < end <= remaining and not pieces:
                return self.read(end)  # fast path: the whole line is buffered
            piece = self.read(min(end or len(buffered), remaining))
            pieces.append(piece)
            remaining -= len(piece)
            if end:
                break
        return b"".join(pieces)


class BoundedResponse(http.client.HTTPResponse):
    """Response with bounded status line, headers and trailer; http.client limits no time."""

    _interim_count = 0

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - http.client's
        """Read from a connection, through a reader with bounds."""
        super().__init__(*args, **kwargs)
        self.fp = _BoundedReader(self.fp.detach())

    def begin(self) -> None:
        """Read up to the body and reject conflicting lengths.

        urllib3 rejects them as well, but leaves the connection open.
        """
        super().begin()
        headers = self.headers.get_all("Content-Length", [])
        if len({length.strip() for header in headers for length in header.split(",")}) > 1:
            raise http.client.HTTPException(errors.CONFLICTING_LENGTHS)

    def _read_status(self) -> tuple[str, int, str]:
        self.fp.reset_deadline()  # type: ignore[attr-defined]
        status: tuple[str, int, str] = super()._read_status()  # type: ignore[misc]  # not public
        self._interim_count += 1
        if self._interim_count > MAX_INTERIM_RESPONSES:
            raise http.client.HTTPException(
                f"got more than {MAX_INTERIM_RESPONSES} interim answers"
            )
        return status

    def _read_next_chunk_size(self) -> int:
        self.fp.reset_deadline()  # type: ignore[attr-defined]
        size: int = super()._read_next_chunk_size()  # type: ignore[misc]  # not public
        return size

    def _read_and_discard_trailer(self) -> None:
        self.fp.reset_deadline()  # type: ignore[attr-defined]
        http.client.parse_headers(self.fp)  # bounded like headers


# Response bodies ---------------------------------------------------------------------


def unwrap_body(raw: Any) -> http.client.HTTPResponse | None:  # noqa: ANN401 - requests'
    """Return the http.client response behind ``raw``, for `read_body`; None if there is none.

    urllib3 always returns new bytes objects, whose copies and page faults cost as much CPU
    time as the receiving. http.client can fill a buffer, unless the body is chunked.
    """
    response = getattr(raw, "_fp", None) if ENABLED else None
    is_plain = isinstance(response, http.client.HTTPResponse) and not response.chunked
    return response if is_plain else None


def read_body(response: http.client.HTTPResponse, buffer: memoryview) -> int:
    """Receive once into the buffer; return 0 at the end of the body or of the stream.

    Unlike `http.client.HTTPResponse.readinto` it does not wait until the buffer is full.
    """
    if response.fp is None or response.length is None:
        return response.readinto(buffer)
    received: int = response.fp.readinto1(buffer[: response.length])
    response.length -= received
    if response.length == 0:
        response.readinto(buffer[:0])  # detects the end and releases the connection
    return received


def close_body(raw: Any, response: http.client.HTTPResponse | None) -> None:  # noqa: ANN401 - requests'
    """Release the connection of ``raw``; one with unread bytes is closed.

    Args:
        response: what `unwrap_body` returned.
    """
    if response is not None and response.isclosed() and response.length == 0:
        raw.release_conn()  # urllib3 does not notice that `read_body` has read everything
    raw.close()
    raw.release_conn()
