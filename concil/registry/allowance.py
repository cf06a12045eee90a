"""A host's quota as its answers tell of it, and the end of it before a request is refused."""

from __future__ import annotations

import logging

from concil.errors import QuotaExceeded
from concil.registry.quota import SHORT, Quota, duration

logger = logging.getLogger(__name__)

LOW = 10  # per cent that are left: worth a warning
LOOK = 0.05  # seconds between two looks at requests that may take the last of a quota


class Allowance:
    """What one host still allows. Not locked: its gate is."""

    def __init__(self, host: str) -> None:
        """Know of no quota.

        Args:
            host: as people write it.
        """
        self._host = host
        self._known: Quota | None = None
        self._until = 0.0  # monotonic seconds; by then it has been renewed
        self._spent = False  # for so long that nobody waits
        self._warned = False
        self.flying = 0  # requests that count, not yet answered

    def counts(self, *, pull: bool) -> bool:
        """Whether a request is one of those that are counted.

        Args:
            pull: it is a GET of a manifest.
        """
        return self._known is not None and (pull or not self._known.pulls)

    def look(self, now: float) -> float:
        """Return the seconds to wait before one more request that counts; 0: it may go.

        Raises:
            QuotaExceeded: it would be refused, and for longer than anybody should wait.
        """
        known = self._known
        if known is None:
            return 0.0
        if now >= self._until:
            self._known, self._spent = None, False
            return 0.0
        if self._spent:
            raise self._exceeded(known, self._until - now)
        if not known.binding or known.remaining > self.flying:
            return 0.0
        if self.flying:
            return LOOK  # what is under way will tell how much it took
        if known.is_short:
            return self._until - now
        self.spend(known, now)
        raise self._exceeded(known, self._until - now)

    def note(self, told: Quota, now: float, *, late: bool) -> None:
        """Believe the least that was told, unless the quota was renewed.

        Args:
            late: the request was under way when what is known was told. Answers overtake
                each other: if it tells of more, that is older.
        """
        known = self._known
        if known is None or told.remaining < known.remaining or not late:
            self._known, self._spent = told, self._spent and not told.remaining
            if not self._spent:
                self._until = now + (SHORT if told.wait is None else told.wait)
        self._warn(told)

    def spend(self, told: Quota | None, now: float) -> None:
        """Let no request that counts pass until it is renewed, or worth another try."""
        self._known = told or self._known or Quota(0, pulls=True)
        renews = self._known.renews
        self._until = now + (SHORT if renews is None else max(renews, 1.0))
        self._spent = True

    def _warn(self, told: Quota) -> None:
        long = told.wait is not None and not told.is_short
        low = told.limit is not None and told.remaining * 100 <= told.limit * LOW
        if long and low and not self._warned:
            self._warned = True
            logger.warning("%s: %s", self._host, _left(told))

    def _exceeded(self, known: Quota, seconds: float) -> QuotaExceeded:
        if known.renews is not None:
            when = f"in {duration(seconds)}"
        else:
            when = "later" if known.window is None else f"within {duration(known.window)}"
        return QuotaExceeded(
            f"{self._host}: the quota is used up ({_left(known)}): not asked for more",
            remedy=f"log in to have more, or run it again when it renews, {when}",
        )


def _left(known: Quota) -> str:
    """How much is left, for people."""
    of = f" of {known.limit}" if known.limit else ""
    window = f" in {duration(known.window)}" if known.window else ""
    return f"{known.remaining}{of} {'pulls' if known.pulls else 'requests'}{window} left"
