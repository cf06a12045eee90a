"""What answers tell of a quota: how much is left of it, and when it renews."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass

SHORT = 300.0  # seconds that are waited for; a person has better things to do than to wait longer
_EPOCH = 1_000_000_000  # a reset beyond is a date, not a number of seconds
_NUMBER = re.compile(r"\s*([0-9]{1,12})(?:\.[0-9]{1,9})?\s*(?:[,;]|$)")
_WINDOW = re.compile(r";\s*w\s*=\s*([0-9]{1,9})\b")
_SPENT_PULLS = re.compile(rb"pull rate limit", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Quota:
    """How much a host still allows."""

    remaining: int  # requests
    limit: int | None = None  # requests in a window
    window: float | None = None  # seconds
    renews: float | None = None  # seconds from now
    pulls: bool = False  # only a GET of a manifest counts, as on Docker Hub
    binding: bool = True  # by the standard's names; others mean many things by theirs

    @property
    def wait(self) -> float | None:
        """Seconds until one more request is allowed; None: nobody knows."""
        if self.renews is not None:
            return self.renews
        if self.window is not None and self.window <= SHORT:
            return self.window / max(self.limit or 1, 1)
        return self.window

    @property
    def is_short(self) -> bool:
        """Whether it is worth waiting for."""
        return self.wait is not None and self.wait <= SHORT


def read(headers: Mapping[str, str]) -> Quota | None:
    """What the headers of an answer tell; None: of no quota, or nothing that makes sense.

    Source: Docker Hub's `ratelimit-remaining: 97;w=21600` (REGISTRIES.md 2.3); the drafts of
    "RateLimit header fields for HTTP", of which the later ones have it all in one field.
    """
    whole = headers.get("RateLimit")
    if whole is not None:
        return _read_whole(whole, headers.get("RateLimit-Policy", ""))
    for prefix in ("RateLimit", "X-RateLimit"):
        remaining = _number(headers.get(f"{prefix}-Remaining"))
        if remaining is not None:
            break
    else:
        return None
    limit, told = headers.get(f"{prefix}-Limit", ""), headers.get(f"{prefix}-Remaining", "")
    window = _WINDOW.search(told) or _WINDOW.search(limit)
    return Quota(
        remaining,
        _number(limit),
        float(window[1]) if window else None,
        _until(_number(headers.get(f"{prefix}-Reset"))),
        pulls="docker-ratelimit-source" in headers,
        binding=prefix == "RateLimit",
    )


def is_spent(status: int, headers: Mapping[str, str], content: bytes) -> bool:
    """Whether a refusal is one that no wait of minutes helps: a quota of hours is used up."""
    if status != 429:
        return False
    if _SPENT_PULLS.search(content) is not None:
        return True
    asked = _number(headers.get("Retry-After"))
    if asked is not None and asked <= SHORT:
        return False
    told = read(headers)
    if told is None or told.remaining > 0:
        return False
    return told.wait is not None and not told.is_short


def duration(seconds: float) -> str:
    """A time as people say it."""
    minutes = round(seconds / 60)
    if minutes < 1:
        return f"{max(1, round(seconds))} s"
    hours, minutes = divmod(minutes, 60)
    return " ".join(f"{n} {unit}" for n, unit in ((hours, "h"), (minutes, "min")) if n)


def _read_whole(value: str, policy: str) -> Quota | None:
    """The one field of the later drafts: `limit=100, remaining=5, reset=30` or `"x";r=5;t=30`."""
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
        None if reset is None else _until(int(reset)),
    )


def _number(value: str | None) -> int | None:
    found = _NUMBER.match(value) if value is not None else None
    return int(found[1]) if found else None


def _until(reset: int | None) -> float | None:
    """Seconds until a reset, which some give as a date in seconds since 1970."""
    if reset is None:
        return None
    return max(0.0, reset - time.time()) if reset > _EPOCH else float(reset)
