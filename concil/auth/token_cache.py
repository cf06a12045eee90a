"""Tokens by scopes, and the state of one 401 retry."""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from dataclasses import field

from concil.auth.challenge import Challenge
from concil.auth.credentials.credentials import Credentials
from concil.auth.scope import Scopes
from concil.auth.token_service import Token, TokenRequest
from concil.runtime.dataclass import dataclass
from concil.runtime.lru_dict import LruDict

_MAX_SLOTS = 1024  # sets of scopes whose tokens are kept; a token takes a few KiB


@dataclass(slots=True)
class AuthAttempt:
    """State of one request's 401 handling, so that no step is repeated."""

    scopes: Scopes
    sent_header: str | None = None  # the rejected Authorization header
    challenges: Sequence[Challenge] = ()
    start_time: float = 0.0  # monotonic seconds at the start of `refresh`
    is_refreshed: bool = False
    is_widened: bool = False

    @property
    def is_scope_insufficient(self) -> bool:
        """Whether the token was valid but lacks a scope."""
        return self.sent_header is not None and any(
            challenge.is_scope_insufficient for challenge in self.challenges
        )


@dataclass(frozen=True, slots=True)
class CachedToken:
    """A token with its credentials and requested scopes."""

    token: Token
    credentials: Credentials | None
    scopes: Scopes


@dataclass(slots=True)
class TokenSlot:
    """Cache entry for one set of scopes; its lock is held while a token is fetched."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    token_request: TokenRequest | None = None
    cached_token: CachedToken | None = None
    wider_scopes: Scopes | None = None  # ours merged with a challenge's
    is_single_scope: bool = False  # the token service accepts only one scope
    last_used: float = -math.inf  # monotonic seconds of the last request with these scopes


class TokenCache:
    """The slots of the scopes that were used last. Any thread may call any method."""

    def __init__(self, max_slots: int = _MAX_SLOTS) -> None:
        """Keep up to ``max_slots`` slots; the token of a dropped one is fetched again."""
        self._slots: LruDict[Scopes, TokenSlot] = LruDict(max_slots)
        self._lock = threading.Lock()  # guards the field above, never held over I/O

    def slot_for(self, scopes: Scopes) -> TokenSlot:
        """Return the slot of a set of scopes."""
        with self._lock:
            slot = self._slots.use(scopes) or TokenSlot()
            self._slots.store(scopes, slot)
            return slot
