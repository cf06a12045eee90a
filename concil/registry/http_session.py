"""The requests.Session of every request: no cookies, no .netrc, and a short way for a plain one."""

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
from requests.cookies import RequestsCookieJar
from requests.structures import CaseInsensitiveDict

from concil import __version__, arguments
from concil.registry.certificates import CertificateDirectories, HostCertificates, read_directory
from concil.registry.connections import Connections

# The URLs and headers that requests leaves as they are, after a long look at each character:
# no user, no "." or ".." between slashes, and escaped only what has to be.
_SAFE = r"[!$&'()*+,.0-9:;=@A-Z_a-z~-]"
_ESCAPED = r"%(?:[0189A-F][0-9A-F]|2[0-9ABCF]|3[A-F]|40|5[BCDE]|60|7[BCDF])"
_PLAIN_URL = re.compile(
    r"https?://[a-z0-9][a-z0-9.-]*(?::(?:[1-9][0-9]{0,3}|[1-5][0-9]{4}))?"
    rf"(?:/(?!\.\.?(?:[/?]|\Z)){_SAFE}*(?:{_ESCAPED}{_SAFE}*)*)+"
    rf"(?:\?(?:[/?]|{_SAFE}|{_ESCAPED})+)?"
)
_PLAIN_NAME = re.compile(r"[A-Za-z0-9-]+")
_PLAIN_VALUE = re.compile(r"[!-~](?:[ -~]*[!-~])?")
_SEND = requests.Session.send
_BODILESS = frozenset({"GET", "HEAD"})


@dataclass(frozen=True, slots=True)
class TLSSettings:
    """Whom to trust, and what to show the other side."""

    # False: trust anybody; a path: a CA file or directory
    verify: bool | str = True
    cert: str | tuple[str, str] | None = None  # client certificate, or (certificate, key)
    cert_dir: str | None = None  # has *.crt, *.cert and *.key; used instead of any certs.d
    authorities: str = ""  # PEM; trusted beside the system's, instead of any certs.d

    def __post_init__(self) -> None:
        """Refuse what is of another type; a path may be one of `os.PathLike`."""
        object.__setattr__(self, "verify", arguments.trust(self.verify))
        if isinstance(self.cert, tuple):
            pair = tuple(arguments.path("cert", each) for each in self.cert)
            object.__setattr__(self, "cert", pair)
        elif self.cert is not None:
            object.__setattr__(self, "cert", arguments.path("cert", self.cert))
        if self.cert_dir is not None:
            object.__setattr__(self, "cert_dir", arguments.path("cert_dir", self.cert_dir))
        arguments.text("authorities", self.authorities)


def new_session(tls: TLSSettings | None = None, *, connections: int = 64) -> requests.Session:
    """Return a session as a registry client needs one; the caller closes it.

    No cookies (Harbor answers them with CSRF checks), no .netrc (it replaces a bearer
    token), no decoding of bodies (the digest is of what is on the wire).

    Raises:
        UsageError: the certificate directory cannot be used.
    """
    tls = tls or TLSSettings()
    everywhere = HostCertificates(tls.authorities) if tls.authorities else None
    if tls.cert_dir is not None:
        everywhere = read_directory(Path(tls.cert_dir))
    session: requests.Session = _Session()
    session.trust_env = False
    session.verify = tls.verify
    session.cert = tls.cert or (everywhere.pair if everywhere is not None else None)
    session.cookies.set_policy(http.cookiejar.DefaultCookiePolicy(allowed_domains=[]))
    session.headers["Accept-Encoding"] = "identity"
    session.headers["User-Agent"] = f"concil/{__version__}"
    adapter = Connections(
        connections,
        directories=CertificateDirectories(),
        everywhere=everywhere,
        trusting=not isinstance(tls.verify, str),
    )
    session.mount("https://", adapter)
    session.mount("http://", adapter)
    return session


class _Session(requests.Session):
    """A session with a short way for a request of a URL, headers and a body.

    What requests looks after for every request, forms, cookies, hooks, auth handlers and odd
    URLs, takes it as long as the sending. It still does as soon as there is anything of it.
    """

    def prepare_request(self, request: requests.Request) -> requests.PreparedRequest:
        """Make a request ready to be sent; what comes out is what requests makes of it."""
        return self._short(request) or super().prepare_request(request)

    def send(self, request: requests.PreparedRequest, **kwargs: Any) -> requests.Response:  # noqa: ANN401 - requests'
        """Send a request; without redirects and hooks that is up to the adapter alone."""
        if requests.Session.send is not _SEND:  # what intercepts requests has taken its place
            return super().send(request, **kwargs)
        told = {"stream", "verify", "cert", "proxies"} <= kwargs.keys()
        if not told or not kwargs["stream"] or any(request.hooks.values()):
            return super().send(request, **kwargs)
        if kwargs.pop("allow_redirects", True):
            return super().send(request, **kwargs)
        began = time.perf_counter()
        response = self.get_adapter(request.url or "").send(request, **kwargs)
        response.elapsed = timedelta(seconds=time.perf_counter() - began)
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
        """Follow redirects for who uses the session by hand.

        Where none is to be followed requests reads the whole body of a redirect, in memory
        and however long it is, only to know what ``Response.next`` would be.
        """
        if not yield_requests:
            yield from super().resolve_redirects(resp, req, *args, **kwargs)

    def _short(self, request: requests.Request) -> requests.PreparedRequest | None:
        """The request made ready, or None where requests has to."""
        if self._has_more(request) or not _PLAIN_URL.fullmatch(request.url or ""):
            return None
        headers: CaseInsensitiveDict[str] = CaseInsensitiveDict()
        headers.update(self.headers)  # type: ignore[arg-type]  # looked at below
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
        # Whoever follows redirects by hand adds to them.
        prepared._cookies = RequestsCookieJar()  # type: ignore[attr-defined]  # noqa: SLF001
        if request.data:
            prepared.body = request.data
            headers["Content-Length"] = str(len(request.data))
        elif prepared.method not in _BODILESS:
            headers.setdefault("Content-Length", "0")
        return prepared

    def _has_more(self, request: requests.Request) -> bool:
        """Whether a request has anything but a URL, headers, and a body that knows its length."""
        own = request.params or request.files or request.auth or request.cookies
        if own or request.json is not None or any(request.hooks.values()):
            return True
        if self.auth or self.params or self.trust_env or any(self.hooks.values()):
            return True
        if next(iter(self.cookies), None) is not None:
            return True
        data = request.data
        if not data or isinstance(data, bytes):
            return False
        # requests takes the body's length from other places, and winds it back, if it has these.
        files = hasattr(data, "__iter__") or hasattr(data, "tell") or hasattr(data, "len")
        return files or not (hasattr(data, "read") and hasattr(data, "__len__"))
