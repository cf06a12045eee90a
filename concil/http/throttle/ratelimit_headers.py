"""Parses Retry-After and RateLimit headers."""

from __future__ import annotations

import email.utils
import re
import threading
import time
from collections.abc import Mapping

import requests

from concil.errors import TRANSIENT_STATUS
from concil.runtime.dataclass import dataclass

BUSY_STATUSES = frozenset({429, 503})

# Statuses whose Retry-After is obeyed. A 500 may concern one damaged blob only.
_RETRY_AFTER_STATUSES = TRANSIENT_STATUS - {500}
MAX_WAIT = 300.0  # seconds; a longer wait is reported as an error instead
_MIN_TIMESTAMP = 1_000_000_000  # a larger reset is a Unix time, not a number of seconds
_NUMBER = re.compile(r"\s*([0-9]{1,12})(?:\.[0-9]{1,9})?\s*(?:[,;]|$)")
_WINDOW = re.compile(r";\s*w\s*=\s*([0-9]{1,9})\b")
_PULL_RATE_LIMIT = re.compile(rb"pull rate limit", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Quota:
    """A host's quota as one response reports it."""

    remaining: int  # requests
    limit: int | None = None  # requests in a window
    window: float | None = None  # seconds
    reset_after: float | None = None  # seconds from now
    is_pull_quota: bool = False  # only GETs of manifests count, as on Docker Hub
    is_standard: bool = True  # from the draft's field names; X- names vary in meaning

    @property
    def wait_time(self) -> float | None:
        """Seconds until one more request is allowed; None if unknown."""
        if self.reset_after is not None:
            return self.reset_after
        if self.window is not None and self.window <= MAX_WAIT:
            return self.window / max(self.limit or 1, 1)
        return self.window

    @property
    def is_short(self) -> bool:
        """Whether the wait is within the maximum."""
        return self.wait_time is not None and self.wait_time <= MAX_WAIT


def parse_quota(headers: Mapping[str, str]) -> Quota | None:
    """Return the quota in a response's headers; None if there is none or it is malformed.

    Source: Docker Hub's `ratelimit-remaining: 97;w=21600` (REGISTRIES.md 2.3); the drafts of
    "RateLimit header fields for HTTP", of which the later ones use a single field.
    """
    combined = headers.get("RateLimit")
    if combined is not None:
        return _parse_combined(combined, headers.get("RateLimit-Policy", ""))
    for prefix in ("RateLimit", "X-RateLimit"):
        remaining = _parse_number(headers.get(f"{prefix}-Remaining"))
        if remaining is not None:
            break
    else:
        return None
    limit, remaining_header = (
        headers.get(f"{prefix}-Limit", ""),
        headers.get(f"{prefix}-Remaining", ""),
    )
    window = _WINDOW.search(remaining_header) or _WINDOW.search(limit)
    return Quota(
        remaining,
        _parse_number(limit),
        float(window[1]) if window else None,
        _seconds_until(_parse_number(headers.get(f"{prefix}-Reset"))),
        is_pull_quota="docker-ratelimit-source" in headers,
        is_standard=prefix == "RateLimit",
    )


@dataclass(frozen=True, slots=True)
class Throttling:
    """What one response says about later requests to its host."""

    retry_after: float | None = None  # seconds, from the Retry-After of a busy host
    quota: Quota | None = None
    is_quota_exhausted: bool = False  # a 429 whose quota renews only after the maximum wait


def parse_throttling(status: int, headers: Mapping[str, str], content: bytes) -> Throttling:
    """Parse the headers of a response, and the body of a 429; every other body may be b""."""
    quota = parse_quota(headers)
    retry_after = parse_retry_after(headers) if status in _RETRY_AFTER_STATUSES else None
    is_exhausted = status == 429 and _is_exhausted(quota, retry_after, content)
    return Throttling(retry_after, quota, is_exhausted)


@dataclass(frozen=True, slots=True)
class ResponseSummary:
    """What the limits of a host depend on in one response."""

    status: int
    is_manifest: bool  # it answers a request for a manifest
    throttling: Throttling

    @property
    def is_limiting(self) -> bool:
        """Whether the host may restrict later requests."""
        return self.status in BUSY_STATUSES or self.throttling != Throttling()


def summarize_response(response: requests.Response, content: bytes = b"") -> ResponseSummary:
    """Summarize a response; ``content`` is the body of a 429."""
    throttling = parse_throttling(response.status_code, response.headers, content)
    return ResponseSummary(response.status_code, "/manifests/" in (response.url or ""), throttling)


def parse_retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the delay of a Retry-After header in seconds; None without a valid one.

    Source: RFC 9110, 10.2.3 (seconds or a date).
    """
    value = headers.get("Retry-After", "").strip()
    if not value:
        return None
    if value.isdecimal():  # isdigit is also true for superscripts, which float() rejects
        return min(float(value), threading.TIMEOUT_MAX)
    try:
        seconds = email.utils.parsedate_to_datetime(value).timestamp() - time.time()
    except (TypeError, ValueError, OverflowError, OSError):
        return None
    return min(max(0.0, seconds), threading.TIMEOUT_MAX)


def _is_exhausted(quota: Quota | None, retry_after: float | None, content: bytes) -> bool:
    if _PULL_RATE_LIMIT.search(content) is not None:
        return True
    if retry_after is not None and retry_after <= MAX_WAIT:
        return False
    if quota is None or quota.remaining > 0:
        return False
    return quota.wait_time is not None and not quota.is_short


def format_duration(seconds: float) -> str:
    """Format a duration for messages, such as "1 h 30 min"."""
    minutes = round(seconds / 60)
    if minutes < 1:
        return f"{max(1, round(seconds))} s"
    hours, minutes = divmod(minutes, 60)
    return " ".join(f"{n} {unit}" for n, unit in ((hours, "h"), (minutes, "min")) if n)


def _parse_combined(value: str, policy: str) -> Quota | None:
    """Parse the single field, `limit=100, remaining=5, reset=30` or `"x";r=5;t=30`."""
    pairs = dict(re.findall(r"\b([a-z]+)\s*=\s*([0-9]{1,12})\b", value))
    remaining = pairs.get("remaining", pairs.get("r"))
    if remaining is None:
        return None
    rules = dict(re.findall(r"\b([qw])\s*=\s*([0-9]{1,9})\b", policy.partition(",")[0]))
    limit, window = pairs.get("limit", rules.get("q")), rules.get("w")
    reset = pairs.get("reset", pairs.get("t"))
    return Quota(
        int(remaining),
        None if limit is None else int(limit),
        None if window is None else float(window),
        None if reset is None else _seconds_until(int(reset)),
    )


def _parse_number(value: str | None) -> int | None:
    match = _NUMBER.match(value) if value is not None else None
    return int(match[1]) if match else None


def _seconds_until(reset: int | None) -> float | None:
    """Return the seconds until a reset, which some registries send as a Unix time."""
    if reset is None:
        return None
    return max(0.0, reset - time.time()) if reset > _MIN_TIMESTAMP else float(reset)
