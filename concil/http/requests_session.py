"""The requests.Session behind every request: no cookies, no .netrc."""

from __future__ import annotations

import http.cookiejar
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import requests
import requests.cookies
from requests.adapters import HTTPAdapter
from requests.cookies import RequestsCookieJar
from requests.structures import CaseInsensitiveDict

from concil import __version__
from concil.http.adapter import RegistryAdapter
from concil.http.certs_d import CertificateDirectories, HostCertificates, read_directory
from concil.http.exchange.direct import can_send
from concil.runtime import arguments

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
_ORIGINAL_SEND = requests.Session.send
_ORIGINAL_ADAPTER_SEND = HTTPAdapter.send
_METHODS_WITHOUT_BODY = frozenset({"GET", "HEAD"})


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
    """Session with a fast path for requests that have only a URL, headers and a body.

    For forms, cookies, hooks, auth handlers and unusual URLs requests needs as much CPU time
    as for sending. Requests that use any of these still take its normal path.
    """

    def prepare_request(self, request: requests.Request) -> requests.PreparedRequest:
        """Prepare a request, with the same result as in requests."""
        return self._prepare_fast(request) or super().prepare_request(request)

    def send(self, request: requests.PreparedRequest, **kwargs: Any) -> requests.Response:  # noqa: ANN401 - requests'
        """Send a request; call the adapter directly if there are no redirects and hooks."""
        if (
            requests.Session.send is not _ORIGINAL_SEND
        ):  # a library that intercepts requests has patched it
            return super().send(request, **kwargs)
        is_complete = {"stream", "verify", "cert", "proxies"} <= kwargs.keys()
        if not is_complete or not kwargs["stream"] or any(request.hooks.values()):
            return super().send(request, **kwargs)
        if kwargs.pop("allow_redirects", True):
            return super().send(request, **kwargs)
        start_time = time.perf_counter()
        adapter = self.get_adapter(request.url or "")
        if (
            isinstance(adapter, RegistryAdapter)
            and HTTPAdapter.send is _ORIGINAL_ADAPTER_SEND
            and not kwargs["proxies"]
            and can_send(request)
        ):
            response = adapter.exchange(
                request, kwargs.get("timeout"), kwargs["verify"], kwargs["cert"]
            )
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

    def _prepare_fast(self, request: requests.Request) -> requests.PreparedRequest | None:
        """Return the prepared request; None if requests has to prepare it."""
        if self._needs_full_preparation(request) or not _PLAIN_URL.fullmatch(request.url or ""):
            return None
        headers: CaseInsensitiveDict[str] = CaseInsensitiveDict()
        headers.update(self.headers)  # type: ignore[arg-type]  # checked below
        headers.update(request.headers)
        for name, value in headers.items():
            if not (isinstance(value, str) and _PLAIN_VALUE.fullmatch(value)):
                return None
            if not _PLAIN_NAME.fullmatch(name):
                return None
        prepared = requests.PreparedRequest()
        prepared.method = (request.method or "").upper()
        prepared.url = request.url
        prepared.headers = headers
        # `resolve_redirects` of requests adds cookies to it.
        prepared._cookies = RequestsCookieJar()  # type: ignore[attr-defined]  # noqa: SLF001
        if request.data:
            prepared.body = request.data
            headers["Content-Length"] = str(len(request.data))
        elif prepared.method not in _METHODS_WITHOUT_BODY:
            headers.setdefault("Content-Length", "0")
        return prepared

    def _needs_full_preparation(self, request: requests.Request) -> bool:
        """Return whether a request has more than a URL, headers and a body of known length."""
        has_extras = request.params or request.files or request.auth or request.cookies
        if has_extras or request.json is not None or any(request.hooks.values()):
            return True
        if self.auth or self.params or self.trust_env or any(self.hooks.values()):
            return True
        if next(iter(self.cookies), None) is not None:
            return True
        data = request.data
        if not data or isinstance(data, bytes):
            return False
        # With these attributes requests computes the length differently, and rewinds the body.
        is_file_like = hasattr(data, "__iter__") or hasattr(data, "tell") or hasattr(data, "len")
        return is_file_like or not (hasattr(data, "read") and hasattr(data, "__len__"))
