"""Connection pools with TLS settings per host and larger buffers."""

from __future__ import annotations

import queue
import ssl
import urllib.parse
from collections import deque
from typing import Any, cast

import requests
import requests.adapters
import requests.cookies
import urllib3.connection
import urllib3.connectionpool
from urllib3.connectionpool import HTTPConnectionPool

from concil.config import MIB
from concil.http import errors, unsafe_fast_path
from concil.http.certs_d import CertificateDirectories, HostCertificates
from concil.http.proxies import Proxy
from concil.http.tls_context import SharedSSLContext
from concil.http.urls import host_of
from concil.runtime.forking import close_socket_in_child, register_after_fork


class _HTTPConnection(urllib3.connection.HTTPConnection):
    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - urllib3's
        super().__init__(*args, **kwargs)
        self.response_class = unsafe_fast_path.response_class()

    def connect(self) -> None:
        """Connect, and have a forked child close its copy of the socket."""
        super().connect()
        if self.sock is not None:
            close_socket_in_child(self.sock)


class _HTTPSConnection(urllib3.connection.HTTPSConnection):
    def __init__(
        self,
        *args: Any,  # noqa: ANN401 - urllib3's
        shared_context: SharedSSLContext | None = None,
        **kwargs: Any,  # noqa: ANN401 - urllib3's
    ) -> None:
        super().__init__(*args, **kwargs)
        self.response_class = unsafe_fast_path.response_class()
        self._shared_context = shared_context

    def connect(self) -> None:
        """Connect with the TLS context that the pool's connections share."""
        if self._shared_context is not None:
            self._shared_context.apply_to(self)
        super().connect()
        if self.sock is not None:
            close_socket_in_child(self.sock)


class _IdleConnections:
    """Idle connections of a pool, in the part of `queue.LifoQueue` that urllib3 uses.

    No caller waits for a connection: an empty pool opens another one. So no condition variables
    are needed, which cost as much as the rest of the pool. A forked child drops the connections.
    """

    def __init__(self, maxsize: int) -> None:
        self.maxsize = maxsize
        # Several threads call its methods; two that return a connection at the same moment may
        # exceed the limit by one.
        self._connections: deque[Any] = deque()
        register_after_fork(self, _IdleConnections.after_fork)

    def qsize(self) -> int:
        """Return the number of connections, and of places for new ones."""
        return len(self._connections)

    def get(self, block: bool = False, timeout: float | None = None) -> Any:  # noqa: ANN401, ARG002, FBT001, FBT002 - the queue's
        """Return the connection that was used last; None is a new one. Raises queue.Empty."""
        try:
            return self._connections.pop()
        except IndexError:
            raise queue.Empty from None

    def put(self, connection: Any, block: bool = False) -> None:  # noqa: ANN401, ARG002, FBT001, FBT002 - the queue's
        """Keep a connection. Raises queue.Full."""
        if len(self._connections) >= self.maxsize:
            raise queue.Full
        self._connections.append(connection)

    def after_fork(self) -> None:
        """Drop the connections in the child."""
        self._connections = deque([None] * self.maxsize)  # urllib3 opens one for each None


class _HTTPConnectionPool(urllib3.connectionpool.HTTPConnectionPool):
    ConnectionCls = _HTTPConnection
    QueueCls = _IdleConnections  # type: ignore[assignment]  # what urllib3 uses of it


class _HTTPSConnectionPool(urllib3.connectionpool.HTTPSConnectionPool):
    ConnectionCls = _HTTPSConnection
    QueueCls = _IdleConnections  # type: ignore[assignment]  # what urllib3 uses of it

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - urllib3's
        super().__init__(*args, **kwargs)
        # urllib3 verifies an https proxy with the settings stored on the connection itself.
        if self.proxy is None or self.proxy.scheme != "https":
            self.conn_kw["shared_context"] = SharedSSLContext()


_POOL_CLASSES_BY_SCHEME = {"http": _HTTPConnectionPool, "https": _HTTPSConnectionPool}


class RegistryAdapter(requests.adapters.HTTPAdapter):
    """requests adapter that writes blocks of 1 MiB, because small blocks cost CPU time.

    A forked child opens its own connections: two processes that read from one connection
    would receive each other's responses.
    """

    def __init__(
        self,
        pool_maxsize: int,
        *,
        cert_directories: CertificateDirectories | None = None,
        common_certificates: HostCertificates | None = None,
        use_ca_certs: bool = True,
    ) -> None:
        """Keep up to ``pool_maxsize`` connections per host.

        Args:
            cert_directories: certificates per host.
            common_certificates: used for every host instead of ``cert_directories``.
            use_ca_certs: whether to trust the CA certificates of either.
        """
        self._cert_directories = cert_directories
        self._common_certificates = common_certificates
        self._use_ca_certs = use_ca_certs
        super().__init__(pool_connections=16, pool_maxsize=pool_maxsize)
        register_after_fork(self, RegistryAdapter.after_fork)

    def __getstate__(self) -> dict[str, Any]:
        """Return the state for a pickle."""
        state = cast("dict[str, Any]", super().__getstate__())  # missing in the type stubs
        return state | {
            "_cert_directories": self._cert_directories,
            "_common_certificates": self._common_certificates,
            "_use_ca_certs": self._use_ca_certs,
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore the adapter from a pickle."""
        super().__setstate__(state)  # type: ignore[misc]  # missing in the type stubs
        register_after_fork(self, RegistryAdapter.after_fork)

    def after_fork(self) -> None:
        """Drop all connections in a forked child; they belong to the parent."""
        reset_adapter(self)
        if self._cert_directories is not None:
            self._cert_directories = self._cert_directories.copy_without_cache()

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - requests'
        """Create the pool manager with this module's connection classes."""
        self._pools: dict[Any, HTTPConnectionPool] = {}  # of requests without a proxy
        super().init_poolmanager(
            *args, blocksize=MIB, ssl_minimum_version=ssl.TLSVersion.TLSv1_2, **kwargs
        )
        self.poolmanager.pool_classes_by_scheme = _POOL_CLASSES_BY_SCHEME

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:  # noqa: ANN401 - requests'
        """Return a proxy manager that uses this module's connection classes."""
        manager = super().proxy_manager_for(
            proxy, blocksize=MIB, ssl_minimum_version=ssl.TLSVersion.TLSv1_2, **kwargs
        )
        if not proxy.lower().startswith("socks"):  # SOCKS needs urllib3's own connection classes
            manager.pool_classes_by_scheme = _POOL_CLASSES_BY_SCHEME
        return manager

    def get_connection_with_tls_context(
        self,
        request: requests.PreparedRequest,
        verify: bool | str | None,  # noqa: FBT001 - requests'
        proxies: Any = None,  # noqa: ANN401 - requests'
        cert: Any = None,  # noqa: ANN401 - requests'
    ) -> Any:  # noqa: ANN401 - requests'
        """Return the connection pool for a request, without a proxy lookup if there are none."""
        if proxies or verify is None:
            return super().get_connection_with_tls_context(request, verify, proxies, cert)
        host, settings = self.build_connection_pool_key_attributes(request, verify, cert)
        return self.poolmanager.connection_from_host(**host, pool_kwargs=settings)

    def pool_for(
        self,
        request: requests.PreparedRequest,
        verify: bool | str,  # noqa: FBT001 - requests'
        cert: Any = None,  # noqa: ANN401 - requests'
    ) -> HTTPConnectionPool:
        """Return the connection pool for a request without a proxy, ready to connect.

        Raises:
            OSError, UsageError: a certificate cannot be read.
        """
        url = request.url or ""
        key = (url[: url.find("/", 8)], verify, cert)
        pool = self._pools.get(key)
        if pool is None or pool.pool is None:  # urllib3 closes the pool of the oldest host
            pool = self.get_connection_with_tls_context(request, verify, None, cert)
            self.cert_verify(pool, url, verify, cert)  # type: ignore[no-untyped-call]
            self._pools[key] = pool
        return pool

    def close(self) -> None:
        """Close all connections; the next request opens new ones."""
        self._pools.clear()
        super().close()

    def request_url(self, request: requests.PreparedRequest, proxies: Any) -> Any:  # noqa: ANN401 - requests'
        """Return the request target: the path, or what requests computes if there is a proxy."""
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
        """Add the host's certificates to the pool key, so that each setting has its own pool.

        Raises:
            UsageError: the host's certificates cannot be used.
        """
        host, default_settings = super().build_connection_pool_key_attributes(request, verify, cert)
        settings: dict[str, Any] = {**default_settings}
        if host["scheme"] != "https":
            return host, settings
        certificates = self._common_certificates
        if certificates is None and self._cert_directories is not None:
            certificates = self._cert_directories.certificates_for(host_of(request.url or ""))
            if certificates.client_certificate is not None and cert is None:
                settings["cert_file"], settings["key_file"] = certificates.client_certificate
        if (
            certificates is not None
            and certificates.ca_cert_data
            and self._use_ca_certs
            and verify is not False
        ):
            settings["ca_cert_data"] = certificates.ca_cert_data
        return host, settings


def reset_adapter(adapter: requests.adapters.HTTPAdapter) -> None:
    """Drop an adapter's connections, as pickling and unpickling it would."""
    adapter.__setstate__(adapter.__getstate__())  # type: ignore[attr-defined]  # as above


def reset_foreign_adapters(session: requests.Session) -> None:
    """Drop the connections of a session's adapters that are not `RegistryAdapter`."""
    for adapter in session.adapters.values():
        if isinstance(adapter, requests.adapters.HTTPAdapter) and not isinstance(
            adapter, RegistryAdapter
        ):
            reset_adapter(adapter)
    if isinstance(session.cookies, requests.cookies.RequestsCookieJar):
        session.cookies = session.cookies.copy()  # the copy has a new, unlocked lock


def check_proxy(proxy: Proxy) -> None:
    """Reject a proxy URL that urllib3 cannot use. A host without a scheme is accepted.

    Raises:
        UsageError: the URL has no host or an invalid port.
    """
    url = proxy.url
    try:
        parts = urllib.parse.urlsplit(url if "://" in url else f"//{url}")
        is_usable = bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_usable = False
    if not is_usable:
        raise errors.invalid_proxy_error("the environment", proxy.setting)
