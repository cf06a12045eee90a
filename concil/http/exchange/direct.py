"""Sends a prepared request over a connection of urllib3's pool, and reads the response itself.

urllib3, http.client and the e-mail parser need several times the CPU time of the exchange. What
they are kept for: connections with TLS, certificates and proxies, and the pools they wait in.
"""

from __future__ import annotations

import http.client
import re
import ssl

import requests
import urllib3.exceptions
from urllib3.connectionpool import HTTPConnectionPool

from concil.http.exchange.pooled_connection import PooledConnection
from concil.http.exchange.response_body import ResponseBody
from concil.http.exchange.response_head import HeadReader
from concil.http.unsafe_fast_path import DirectResponse

_DEFAULT_PORTS = {"http": 80, "https": 443}
# http.client refuses the same in a request line.
_UNSAFE_TARGET = re.compile(r"[^\x21-\x7e]")
_UNSAFE_HEADER = re.compile(r"[\r\n\x00]")


def can_send(request: requests.PreparedRequest) -> bool:
    """Return whether a request is one that `exchange` sends as urllib3 would."""
    body = request.body
    if not (body is None or isinstance(body, bytes)):
        # Anything else, such as an array or a generator, http.client turns into bytes.
        if not (hasattr(body, "read") and hasattr(body, "__len__")):
            return False
        if "Content-Length" not in request.headers:
            return False
    if "Transfer-Encoding" in request.headers or "Expect" in request.headers:
        return False
    return not _UNSAFE_TARGET.search(request.path_url)


def exchange(
    pool: HTTPConnectionPool,
    request: requests.PreparedRequest,
    timeout: float | tuple[float | None, float | None] | None,
) -> DirectResponse:
    """Send a request and receive the head of its response.

    Args:
        pool: provides the connection, and gets it back with the last byte of the body.
        timeout: seconds to connect, and without a byte, or one number for both; None: no limit.
    Raises:
        urllib3.exceptions.HTTPError, OSError: there was no response.
        ValueError: a header cannot be sent.
    """
    connect_timeout, read_timeout = timeout if isinstance(timeout, tuple) else (timeout, timeout)
    head = _format_head(pool, request)
    connection = _connect(pool, connect_timeout, read_timeout)
    try:
        connection.send(head, request)
        reader = HeadReader(connection.recv)
        response_head = reader.read_head()
        body = ResponseBody(
            response_head,
            reader,
            connection,
            has_no_body=request.method == "HEAD",
            is_last=request.headers.get("Connection", "").lower() == "close",
        )
    except http.client.HTTPException as error:
        connection.discard()
        raise urllib3.exceptions.ProtocolError("Connection aborted.", error) from error
    except ssl.SSLError as error:
        connection.discard()
        raise urllib3.exceptions.SSLError(error) from error
    except BaseException:
        connection.discard()
        raise
    return DirectResponse(request, body, response_head.headers)


def _format_head(pool: HTTPConnectionPool, request: requests.PreparedRequest) -> bytes:
    """Return the request line and headers, with the Host header that http.client would send.

    Raises:
        ValueError: a header has a line break, or characters beyond ISO 8859-1.
    """
    lines = [f"{request.method} {request.path_url} HTTP/1.1"]
    headers = request.headers
    if "Host" not in headers:
        host = f"[{pool.host}]" if ":" in pool.host else pool.host
        is_default = pool.port in (None, _DEFAULT_PORTS.get(pool.scheme or ""))
        lines.append(f"Host: {host}" if is_default else f"Host: {host}:{pool.port}")
    if "Accept-Encoding" not in headers:
        lines.append("Accept-Encoding: identity")
    for name, value in headers.items():
        # requests takes bytes, too, whatever its type stubs say.
        text = value.decode("latin-1") if isinstance(value, bytes) else value  # type: ignore[unreachable]
        lines.append(f"{name}: {text}")
    if _UNSAFE_HEADER.search("".join(lines)):
        raise ValueError("a header has a line break")
    return "\r\n".join([*lines, "\r\n"]).encode("latin-1")


def _connect(
    pool: HTTPConnectionPool, connect_timeout: float | None, idle_timeout: float | None
) -> PooledConnection:
    """Return a connection. Raises urllib3's errors."""
    try:
        return PooledConnection(pool, connect_timeout, idle_timeout)
    except ssl.SSLError as error:
        raise urllib3.exceptions.SSLError(error) from error
