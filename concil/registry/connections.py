"""Connections: their TLS settings by host, and how much they read and write at once."""

from __future__ import annotations

import http.client
import io
import queue
import ssl
import time
import urllib.parse
from typing import Any

import requests
import requests.adapters
import requests.cookies
import urllib3.connection
import urllib3.connectionpool

from concil.config import KIB, MIB
from concil.forking import keep_socket_from_children, renew_in_child
from concil.registry import failures
from concil.registry.certificates import CertificateDirectories, HostCertificates
from concil.registry.proxies import Proxy
from concil.registry.trust import Trust
from concil.registry.urls import host_of

_INTERIM_ANSWERS = 16  # of the kind "100 Continue", before an answer
_LONGEST_LINE = 64 * KIB  # bytes
_PATIENCE = 300.0  # seconds for all headers of an answer: a byte a minute is no silence


class _Stream(io.BufferedReader):
    """What comes over a connection; its lines end, in length and in time."""

    _until: float | None = None  # monotonic seconds; None: nothing has come yet

    def expect(self) -> None:
        """Let the time for lines begin when the next byte comes."""
        self._until = None

    def readline(self, size: int | None = -1, /) -> bytes:
        """Read a line, one receive after the other; more than the longest is cut."""
        left = _LONGEST_LINE if size is None or size < 0 else size
        pieces: list[bytes] = []
        while left > 0 and (ahead := self.peek(1)):
            now = time.monotonic()
            self._until = self._until or now + _PATIENCE
            if now > self._until:
                raise http.client.HTTPException("the headers take too long")
            end = ahead.find(b"\n") + 1
            if 0 < end <= left and not pieces:
                return self.read(end)  # nearly every line
            piece = self.read(min(end or len(ahead), left))
            pieces.append(piece)
            left -= len(piece)
            if end:
                break
        return b"".join(pieces)


class _Response(http.client.HTTPResponse):
    """An answer whose beginning and end are bounded: Python's own reads on for ever."""

    _interim = 0

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - http.client's
        super().__init__(*args, **kwargs)
        self.fp = _Stream(self.fp.detach())

    def begin(self) -> None:
        """Read up to the body. urllib3 would raise, too, and leave the connection open."""
        super().begin()
        told = self.headers.get_all("Content-Length", [])
        if len({length.strip() for one in told for length in one.split(",")}) > 1:
            raise http.client.HTTPException(failures.TWO_LENGTHS)

    def _read_status(self) -> tuple[str, int, str]:
        self.fp.expect()  # type: ignore[attr-defined]
        found: tuple[str, int, str] = super()._read_status()  # type: ignore[misc]  # not public
        self._interim += 1
        if self._interim > _INTERIM_ANSWERS:
            raise http.client.HTTPException(f"got more than {_INTERIM_ANSWERS} interim answers")
        return found

    def _read_next_chunk_size(self) -> int:
        self.fp.expect()  # type: ignore[attr-defined]
        size: int = super()._read_next_chunk_size()  # type: ignore[misc]  # not public
        return size

    def _read_and_discard_trailer(self) -> None:
        self.fp.expect()  # type: ignore[attr-defined]
        http.client.parse_headers(self.fp)  # bounded, as headers are


class _Http(urllib3.connection.HTTPConnection):
    response_class = _Response

    def connect(self) -> None:
        """Connect; the connection stays this process's own."""
        super().connect()
        if self.sock is not None:
            keep_socket_from_children(self.sock)


class _Https(urllib3.connection.HTTPSConnection):
    response_class = _Response
    trust: Trust | None = None

    def connect(self) -> None:
        """Connect, with the context of the other connections."""
        if self.trust is not None:
            self.trust.share(self)
        super().connect()
        if self.sock is not None:
            keep_socket_from_children(self.sock)


class _IdleConnections(queue.LifoQueue[Any]):
    """The idle connections of a pool; in a forked child there are none."""

    def __init__(self, maxsize: int = 0) -> None:
        super().__init__(maxsize)
        renew_in_child(self, _IdleConnections.after_fork)

    def after_fork(self) -> None:
        """Begin anew, with locks that no thread of the parent holds."""
        queue.LifoQueue.__init__(self, self.maxsize)
        for _ in range(self.maxsize):
            self.put_nowait(None)  # urllib3 makes a connection for each


class _HttpPool(urllib3.connectionpool.HTTPConnectionPool):
    ConnectionCls = _Http
    QueueCls = _IdleConnections


class _HttpsPool(urllib3.connectionpool.HTTPSConnectionPool):
    ConnectionCls = _Https
    QueueCls = _IdleConnections

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - urllib3's
        super().__init__(*args, **kwargs)
        self._trust = Trust()

    def _new_conn(self) -> Any:  # noqa: ANN401 - urllib3's
        connection = super()._new_conn()
        # A proxy that speaks TLS itself is checked by what is written at the connection.
        if isinstance(connection, _Https) and (self.proxy is None or self.proxy.scheme != "https"):
            connection.trust = self._trust
        return connection


_POOLS = {"http": _HttpPool, "https": _HttpsPool}


class Connections(requests.adapters.HTTPAdapter):
    """An adapter of requests. Its connections write blocks of a MiB: small ones cost CPU.

    A forked child makes connections of its own: two processes that read from one would get
    each other's answers.
    """

    # What is kept of it when a session is pickled, as requests has it.
    __attrs__ = (
        *requests.adapters.HTTPAdapter.__attrs__,
        "_directories",
        "_everywhere",
        "_trusting",
    )

    def __init__(
        self,
        most: int,
        *,
        directories: CertificateDirectories | None = None,
        everywhere: HostCertificates | None = None,
        trusting: bool = True,
    ) -> None:
        """Keep up to ``most`` connections to a host.

        Args:
            directories: certificates by host.
            everywhere: the authorities of every host instead.
            trusting: whether the authorities of either count.
        """
        self._directories = directories
        self._everywhere = everywhere
        self._trusting = trusting
        super().__init__(pool_connections=16, pool_maxsize=most)
        renew_in_child(self, Connections.after_fork)

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Be restored from a pickle."""
        super().__setstate__(state)  # type: ignore[misc]  # the types leave it out
        renew_in_child(self, Connections.after_fork)

    def after_fork(self) -> None:
        """Leave every connection to the parent."""
        forget_connections(self)
        if self._directories is not None:
            self._directories = self._directories.anew()

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - requests'
        """Make connections of our own kind."""
        super().init_poolmanager(
            *args, blocksize=MIB, ssl_minimum_version=ssl.TLSVersion.TLSv1_2, **kwargs
        )
        self.poolmanager.pool_classes_by_scheme = _POOLS

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:  # noqa: ANN401 - requests'
        """Make connections of our own kind through a proxy, too."""
        manager = super().proxy_manager_for(
            proxy, blocksize=MIB, ssl_minimum_version=ssl.TLSVersion.TLSv1_2, **kwargs
        )
        if not proxy.lower().startswith("socks"):  # those need connections of their own
            manager.pool_classes_by_scheme = _POOLS
        return manager

    def get_connection_with_tls_context(
        self,
        request: requests.PreparedRequest,
        verify: bool | str | None,  # noqa: FBT001 - requests'
        proxies: Any = None,  # noqa: ANN401 - requests'
        cert: Any = None,  # noqa: ANN401 - requests'
    ) -> Any:  # noqa: ANN401 - requests'
        """Find the connections for a request; without proxies none needs to be looked for."""
        if proxies or verify is None:
            return super().get_connection_with_tls_context(request, verify, proxies, cert)
        host, settings = self.build_connection_pool_key_attributes(request, verify, cert)
        return self.poolmanager.connection_from_host(**host, pool_kwargs=settings)

    def request_url(self, request: requests.PreparedRequest, proxies: Any) -> Any:  # noqa: ANN401 - requests'
        """What is asked for; only a proxy wants more than the path."""
        path = request.path_url
        if proxies or path.startswith("//"):
            return super().request_url(request, proxies)
        return path

    def build_connection_pool_key_attributes(
        self,
        request: requests.PreparedRequest,
        verify: bool | str,  # noqa: FBT001 - requests'
        cert: str | tuple[str, str] | None = None,
    ) -> Any:  # noqa: ANN401 - requests'
        """Add what there is for the host: connections with other settings are others.

        Raises:
            UsageError: the certificates of the host cannot be used.
        """
        host, usual = super().build_connection_pool_key_attributes(request, verify, cert)
        settings: dict[str, Any] = {**usual}
        if host["scheme"] != "https":
            return host, settings
        found = self._everywhere
        if found is None and self._directories is not None:
            found = self._directories.of(host_of(request.url or ""))
            if found.pair is not None and cert is None:
                settings["cert_file"], settings["key_file"] = found.pair
        if found is not None and found.authorities and self._trusting and verify is not False:
            settings["ca_cert_data"] = found.authorities
        return host, settings


def forget_connections(adapter: requests.adapters.HTTPAdapter) -> None:
    """Let an adapter begin without connections, as if it had come out of a pickle."""
    adapter.__setstate__(adapter.__getstate__())  # type: ignore[attr-defined]  # as above


def forget_foreign_connections(session: requests.Session) -> None:
    """Let the adapters of a session that are not ours begin without connections, too."""
    for adapter in session.adapters.values():
        if isinstance(adapter, requests.adapters.HTTPAdapter) and not isinstance(
            adapter, Connections
        ):
            forget_connections(adapter)
    if isinstance(session.cookies, requests.cookies.RequestsCookieJar):
        session.cookies = session.cookies.copy()  # with a lock that nobody holds


def check_proxy(proxy: Proxy) -> None:
    """Refuse what urllib3 would only stumble over: it may be a host alone.

    Raises:
        UsageError: there is no host in it, or no port that can be.
    """
    url = proxy.url
    try:
        parts = urllib.parse.urlsplit(url if "://" in url else f"//{url}")
        usable = bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise failures.unusable_proxy("the environment", proxy.setting)
