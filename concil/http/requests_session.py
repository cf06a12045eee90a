"""The requests.Session behind every request: no cookies, no .netrc."""

from __future__ import annotations

import http.cookiejar
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import requests
import requests.cookies

from concil import __version__
from concil.http import unsafe_fast_path
from concil.http.adapter import RegistryAdapter
from concil.http.certs_d import CertificateDirectories, HostCertificates, read_directory
from concil.http.exchange.direct import can_send, exchange
from concil.http.headers import Headers
from concil.runtime import arguments
from concil.runtime.dataclass import dataclass


@dataclass(frozen=True, slots=True)
class TLSSettings:
    """Trusted CA certificates, and the client certificate to present."""

    # False: no verification; a path: a CA file or directory
    verify: bool | str = True
    cert: str | tuple[str, str] | None = None  # client certificate, or (certificate, key)
    cert_dir: str | None = None  # holds *.crt, *.cert and *.key; replaces any certs.d
    ca_cert_data: str = ""  # PEM; trusted in addition to the system's, replaces any certs.d

    def __post_init__(self) -> None:
        """Check the field types and convert `os.PathLike` to str."""
        object.__setattr__(self, "verify", arguments.to_verify(self.verify))
        if isinstance(self.cert, tuple):
            pair = tuple(arguments.to_path("cert", path) for path in self.cert)
            object.__setattr__(self, "cert", pair)
        elif self.cert is not None:
            object.__setattr__(self, "cert", arguments.to_path("cert", self.cert))
        if self.cert_dir is not None:
            object.__setattr__(self, "cert_dir", arguments.to_path("cert_dir", self.cert_dir))
        arguments.check_str("ca_cert_data", self.ca_cert_data)


def create_session(tls: TLSSettings | None = None, *, pool_maxsize: int = 64) -> requests.Session:
    """Return a session set up for a registry client; the caller closes it.

    It sends no cookies (Harbor answers them with CSRF checks), ignores .netrc (which would
    replace a bearer token) and asks for unencoded bodies (digests are of the bytes sent).

    Raises:
        UsageError: the certificate directory cannot be used.
    """
    tls = tls or TLSSettings()
    common_certificates = HostCertificates(tls.ca_cert_data) if tls.ca_cert_data else None
    if tls.cert_dir is not None:
        common_certificates = read_directory(Path(tls.cert_dir))
    session: requests.Session = _RegistrySession()
    session.trust_env = False
    session.verify = tls.verify
    session.cert = tls.cert or (
        common_certificates.client_certificate if common_certificates is not None else None
    )
    session.cookies.set_policy(http.cookiejar.DefaultCookiePolicy(allowed_domains=[]))
    session.headers = Headers(session.headers)  # type: ignore[arg-type, assignment]  # no bytes
    session.headers["Accept-Encoding"] = "identity"
    session.headers["User-Agent"] = f"concil/{__version__}"
    adapter = RegistryAdapter(
        pool_maxsize,
        cert_directories=CertificateDirectories(),
        common_certificates=common_certificates,
        use_ca_certs=not isinstance(tls.verify, str),
    )
    session.mount("https://", adapter)
    session.mount("http://", adapter)
    return session


class _RegistrySession(requests.Session):
    """Session that takes the fast path for plain requests; see `http.unsafe_fast_path`."""

    def prepare_request(self, request: requests.Request) -> requests.PreparedRequest:
        """Prepare a request, with the same result as in requests."""
        return unsafe_fast_path.prepare_request(self, request) or super().prepare_request(request)

    def send(self, request: requests.PreparedRequest, **kwargs: Any) -> requests.Response:  # noqa: ANN401 - requests'
        """Send a request; call the adapter directly if there are no redirects and hooks."""
        is_complete = {"stream", "verify", "cert", "proxies"} <= kwargs.keys()
        if not is_complete or not kwargs["stream"] or any(request.hooks.values()):
            return super().send(request, **kwargs)
        if kwargs.get("allow_redirects", True) or not unsafe_fast_path.can_bypass_session():
            return super().send(request, **kwargs)
        del kwargs["allow_redirects"]
        start_time = time.perf_counter()
        adapter = self.get_adapter(request.url or "")
        response: requests.Response
        if (
            isinstance(adapter, RegistryAdapter)
            and unsafe_fast_path.can_bypass_adapter(adapter)
            and not kwargs["proxies"]
            and can_send(request)
        ):
            pool = adapter.pool_for(request, kwargs["verify"], kwargs["cert"])
            response = exchange(pool, request, kwargs.get("timeout"))
            response.connection = adapter
        else:
            response = adapter.send(request, **kwargs)
        response.elapsed = timedelta(seconds=time.perf_counter() - start_time)
        if "Set-Cookie" in response.headers:
            requests.cookies.extract_cookies_to_jar(  # type: ignore[no-untyped-call]
                self.cookies, request, response.raw
            )
        return response

    def resolve_redirects(
        self,
        resp: requests.Response,
        req: requests.PreparedRequest,
        *args: Any,  # noqa: ANN401 - requests'
        yield_requests: bool = False,
        **kwargs: Any,  # noqa: ANN401 - requests'
    ) -> Iterator[Any]:
        """Follow redirects for callers that use the session directly.

        With ``allow_redirects=False`` requests would read the whole body of a redirect into
        memory, without a limit, only to set ``Response.next``.
        """
        if not yield_requests:
            yield from super().resolve_redirects(resp, req, *args, **kwargs)
