"""What is known of the tokens for some scopes, and of one request that was refused."""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field

from concil.registry.challenge import Challenge
from concil.registry.credentials import Credentials
from concil.registry.scopes import Scopes
from concil.registry.tokens import Realm, Token


@dataclass(slots=True)
class Refusal:
    """What became of one request, and what was done about it: nothing is done twice."""

    scopes: Scopes
    sent: str | None  # the header that was refused
    challenges: Sequence[Challenge] = ()
    since: float = 0.0  # monotonic seconds, from when on it waits for an answer
    renewed: bool = False
    widened: bool = False

    @property
    def wants_more(self) -> bool:
        """Whether the token was good, and only not for this."""
        return self.sent is not None and any(one.lacks_scope for one in self.challenges)


@dataclass(frozen=True, slots=True)
class Held:
    """A token, whose it is and what it was asked for."""

    token: Token
    owner: Credentials | None
    scopes: Scopes


@dataclass(slots=True)
class Known:
    """What is known of the tokens for some scopes; guarded by its lock, held while one is had."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    realm: Realm | None = None
    held: Held | None = None
    wider: Scopes | None = None  # what a challenge asked for beyond ours
    narrow: bool = False  # the service gives a token for the first scope alone
    used: float = -math.inf  # monotonic seconds of the last request with just these scopes
