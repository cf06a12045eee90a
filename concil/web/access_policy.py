"""Who may use the live page: hosts that it is asked by, the token, and the cookie of a login."""

from __future__ import annotations

import hashlib
import hmac

from concil.oci.reference import is_loopback
from concil.server.http import Request

_COOKIE_AGE = 30 * 24 * 3600  # seconds
_COOKIE_PURPOSE = b"concil: cookie of the live page"


class AccessPolicy:
    """Decides what a request may do. Thread-safe.

    Without a token everybody who can reach the address may read, which is why the address has to be
    a loopback one. A page of another site could reach it through a browser under a name of its
    own (DNS rebinding); therefore the Host header has to name this machine.
    """

    def __init__(self, token: str, port: int) -> None:
        """Set the token.

        Args:
            token: empty: there is none.
            port: of the page; cookies do not distinguish ports.
        """
        self._token = token.encode()
        self.cookie_name = f"concil-{port}"

    @property
    def has_token(self) -> bool:
        """Whether a token is needed."""
        return bool(self._token)

    def is_host_accepted(self, request: Request) -> bool:
        """Return whether the request is for this machine, by its Host header."""
        return self.has_token or is_loopback(request.headers.get("host", ""))

    def is_token(self, text: str) -> bool:
        """Return whether a text is the token; takes equally long for each wrong one."""
        return self.has_token and _are_equal(text.encode("utf-8", "replace"), self._token)

    def has_bearer(self, request: Request) -> bool:
        """Return whether the request has the token in its Authorization header."""
        scheme, _, value = request.headers.get("authorization", "").partition(" ")
        return scheme.lower() == "bearer" and self.is_token(value.strip())

    def has_cookie(self, request: Request) -> bool:
        """Return whether the request has the cookie of a login."""
        for part in request.headers.get("cookie", "").split(";"):
            name, _, value = part.strip().partition("=")
            if name == self.cookie_name and _are_equal(value.encode(), self._cookie_value()):
                return True
        return False

    def may_read(self, request: Request) -> bool:
        """Return whether the request may read what the mirror does."""
        return not self.has_token or self.has_bearer(request) or self.has_cookie(request)

    def may_change(self, request: Request) -> bool:
        """Return whether the request may let something happen: never without a token.

        A cookie counts only for requests of the page itself.
        """
        if not self.has_token:
            return False
        return self.has_bearer(request) or (self.has_cookie(request) and is_from_own_page(request))

    def set_cookie_header(self) -> str:
        """Return the header that stores the login in the browser."""
        value = self._cookie_value().decode()
        return f"{self.cookie_name}={value}; Path=/; Max-Age={_COOKIE_AGE}; HttpOnly; SameSite=Lax"

    def _cookie_value(self) -> bytes:
        # Not the token itself: a browser stores cookies on disk.
        return hmac.new(self._token, _COOKIE_PURPOSE, hashlib.sha256).hexdigest().encode()


def is_from_own_page(request: Request) -> bool:
    """Return whether a browser sent the request for a page of the same origin."""
    site = request.headers.get("sec-fetch-site")
    if site is not None and site != "same-origin":
        return False
    host = request.headers.get("origin", "").partition("://")[2]
    return bool(host) and host == request.headers.get("host")


def _are_equal(first: bytes, second: bytes) -> bool:
    # Digests: `compare_digest` returns at once if the lengths differ.
    return hmac.compare_digest(hashlib.sha256(first).digest(), hashlib.sha256(second).digest())
