"""Reports of single requests, for metrics and traces."""

from __future__ import annotations

from typing import Protocol

from concil.runtime.dataclass import dataclass


@dataclass(frozen=True, slots=True)
class Exchange:
    """One request that was sent, and what became of it."""

    method: str
    url: str  # as sent: it may contain secrets: never show it
    host: str  # host[:port]
    status: int | None  # None: there was no response
    start_time: float  # monotonic seconds, after the wait for the limits of the host
    seconds: float  # until the head of the response


class RequestObserver(Protocol):
    """Receives requests; called from any thread, possibly concurrently. It must not raise."""

    def record_request(self, exchange: Exchange) -> None:
        """Record a request that was sent, each redirect for itself."""
        ...

    def record_retry(self, host: str) -> None:
        """Record that a small request is sent again after an error."""
        ...

    def record_token(self, host: str) -> None:
        """Record that a token was fetched for a registry."""
        ...

    def record_quota(self, host: str, remaining: int, limit: int | None) -> None:
        """Record how many requests a host still allows, as its last response says."""
        ...


class TeeObserver:
    """Passes everything on to several observers."""

    def __init__(self, *observers: RequestObserver) -> None:
        """Pass on to ``observers``."""
        self._observers = observers

    def record_request(self, exchange: Exchange) -> None:
        """Pass a request on. See `RequestObserver`."""
        for observer in self._observers:
            observer.record_request(exchange)

    def record_retry(self, host: str) -> None:
        """Pass a retry on. See `RequestObserver`."""
        for observer in self._observers:
            observer.record_retry(host)

    def record_token(self, host: str) -> None:
        """Pass a token on. See `RequestObserver`."""
        for observer in self._observers:
            observer.record_token(host)

    def record_quota(self, host: str, remaining: int, limit: int | None) -> None:
        """Pass a quota on. See `RequestObserver`."""
        for observer in self._observers:
            observer.record_quota(host, remaining, limit)
