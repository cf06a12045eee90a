"""Reads the pages of lists, with conditional requests for those that an earlier run has read."""

from __future__ import annotations

import hashlib
import json
import re
import threading
import urllib.parse
from collections.abc import Mapping
from dataclasses import replace

import requests

from concil.auth.credentials.credentials import Credentials
from concil.auth.scope import Scopes
from concil.config import RetryPolicy
from concil.http.pagination import parse_next_link
from concil.oci.cached_page import MAX_PAGE_SIZE, CachedPage, PageStore
from concil.registry.endpoint import Call, Endpoint
from concil.runtime.dataclass import dataclass
from concil.runtime.lru_dict import LruDict

PAGE_LENGTH = 1000  # names; ECR rejects a larger n
_ETAG = re.compile(r'(?:W/)?"[\x21\x23-\x7e]{1,200}"')
_ANONYMOUS = "anonymous"
_MAX_IDENTITIES = 64
_HASH_ROUNDS = 100_000  # the identity must not help to guess a password


class ListCache:
    """Pages of lists that earlier runs have read. Any thread may call any method.

    A page is kept under its URL and the credentials that were sent with the request, because a
    registry may list other names for another user.
    """

    def __init__(self, store: PageStore) -> None:
        """Keep the pages in ``store``."""
        self.store = store
        self._lock = threading.Lock()  # guards the field below
        self._identities: LruDict[tuple[str, Credentials], str] = LruDict(_MAX_IDENTITIES)

    def identify(self, endpoint: Endpoint, header: str | None) -> str:
        """Return who sends a request with this Authorization header.

        Tokens of one user count as the same, because they are renewed all the time.
        """
        if header is None:
            return _ANONYMOUS
        credentials = endpoint.authenticator.credentials
        scheme = header.partition(" ")[0].lower()
        if credentials is None:
            return f"{scheme} {_ANONYMOUS}"
        key = endpoint.host, credentials
        with self._lock:
            identity = self._identities.use(key) or _hash(credentials, endpoint.host)
            self._identities.store(key, identity)
        return f"{scheme} {identity}"


@dataclass(frozen=True, slots=True)
class ListPage:
    """A page of a list."""

    url: str  # that sent it
    headers: Mapping[str, str]  # Link, if there is one
    content: bytes
    etag: str = ""  # "": it is not to be kept
    identity: str = ""  # of who has read it


class PageReader:
    """Reads the pages of one list of a registry. One thread at a time.

    The registry decides with each request whether a page of the cache has changed.
    Source: RFC 9110, 13.1.2 and 15.4.5.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        policy: RetryPolicy,
        scopes: Scopes,
        operation: str,
        cache: ListCache | None = None,
    ) -> None:
        """Read a list of the registry at ``endpoint``.

        Args:
            operation: for messages.
            cache: of pages that were read before; None: none are kept.
        """
        self.endpoint = endpoint
        self._policy = policy
        self._scopes = scopes
        self._operation = operation
        self._cache = cache

    def read(self, url: str) -> ListPage:
        """Read the page at a URL, or a path of the registry. Raises as `Endpoint.send`."""
        call = Call(
            "GET",
            url,
            self._scopes,
            max_response_size=MAX_PAGE_SIZE,
            operation=self._operation,
        )
        if self._cache is None:
            return _page_of(self.endpoint.send_with_retry(call, self._policy))
        return _Condition(self.endpoint, self._policy, self._cache).read(call)

    def accept(self, page: ListPage, name_count: int) -> None:
        """Keep a page that turned out to be a valid one.

        Args:
            name_count: names on the page.
        """
        link = page.headers.get("Link", "")
        if self._cache is not None and page.etag and _can_be_kept(link, name_count):
            cached = CachedPage(page.etag, link, page.content)
            self._cache.store.store(page.url, page.identity, cached)


class _Condition:
    """The conditional request for one page."""

    def __init__(self, endpoint: Endpoint, policy: RetryPolicy, cache: ListCache) -> None:
        self._endpoint = endpoint
        self._policy = policy
        self._cache = cache
        # Of the last attempt: a first one may be without credentials, or over another scheme.
        self._url = ""
        self._authorization: str | None = None
        self._etag = ""  # "": it had no condition

    def read(self, call: Call) -> ListPage:
        """Read the page, from the cache if the registry confirms it."""
        expected = frozenset({requests.codes.ok, requests.codes.not_modified})
        response = self._endpoint.send_with_retry(
            replace(call, expected_statuses=expected, attempt_headers=self._headers), self._policy
        )
        if response.status_code == requests.codes.not_modified:
            page = self._load(response)
            if page is not None:
                return page
            response = self._endpoint.send_with_retry(
                replace(call, attempt_headers=self._record), self._policy
            )
        page = _page_of(response)
        etag = response.headers.get("ETag", "").strip()
        # Another host, to which it was redirected, may use the same tag for other content.
        is_storable = response.url == self._url and _ETAG.fullmatch(etag)
        if not is_storable or "no-store" in response.headers.get("Cache-Control", "").lower():
            return page
        return replace(page, etag=etag, identity=self._identify())

    def _record(self, url: str, authorization: str | None) -> Mapping[str, str]:
        self._url, self._authorization, self._etag = url, authorization, ""
        return {}

    def _headers(self, url: str, authorization: str | None) -> Mapping[str, str]:
        """Return the condition of an attempt."""
        self._record(url, authorization)
        etags = self._cache.store.etags(url)
        self._etag = etags.get(self._identify(), "") if etags else ""
        return {"If-None-Match": self._etag} if self._etag else {}

    def _identify(self) -> str:
        return self._cache.identify(self._endpoint, self._authorization)

    def _load(self, response: requests.Response) -> ListPage | None:
        """Return the page that a 304 confirms; None: it is none that the request was about."""
        if not self._etag or response.url != self._url:
            return None
        cached = self._cache.store.load(self._url, self._identify())
        if cached is None or cached.etag != self._etag:
            return None
        # A registry need not repeat the Link, but a new one counts.
        link = response.headers.get("Link", "") or cached.link
        return ListPage(self._url, {"Link": link}, cached.content)


def _page_of(response: requests.Response) -> ListPage:
    return ListPage(response.url, {"Link": response.headers.get("Link", "")}, response.content)


def _can_be_kept(link: str, name_count: int) -> bool:
    """Return whether a page that the registry confirms later is sure to be what it sends.

    A tag may be computed from the names alone, without the Link. Then a full page stays the
    same when further pages appear, and so does one whose Link has a token that expires.
    """
    if not link.strip():
        # Registries limit pages to round numbers, which may be lower than the requested one.
        return name_count < PAGE_LENGTH and name_count % 10 != 0
    target = parse_next_link(link)
    names = {name for name, _ in urllib.parse.parse_qsl(urllib.parse.urlsplit(target or "").query)}
    return "last" in names and names <= {"n", "last"}


def _hash(credentials: Credentials, host: str) -> str:
    """Return a hash of credentials, from which they cannot be guessed quickly."""
    fields = credentials.username, credentials.password
    text = json.dumps((*fields, credentials.identity_token, credentials.registry_token))
    return hashlib.pbkdf2_hmac("sha256", text.encode(), host.encode(), _HASH_ROUNDS, 16).hex()
