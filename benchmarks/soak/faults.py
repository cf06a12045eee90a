"""What fails during a run, chosen by chance."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from typing import Literal

from benchmarks.soak.content import SourceImages
from tests.support.docker_registry import DockerRegistry
from tests.support.faults import Fault
from tests.support.rate_limited_front import RateLimitedFront, TokenBucket
from tests.support.relay import Relay

_ACTIONS: tuple[Literal["fin", "rst"], ...] = ("fin", "rst")


class SwitchedLimit:
    """A request limit that is on or off. See `tests.support.rate_limited_front.Limit`."""

    def __init__(self, rate: float, burst: int) -> None:
        """Allow so many requests a second while it is on."""
        self._rate, self._burst = rate, burst
        self._bucket: TokenBucket | None = None

    def switch(self, *, is_on: bool) -> None:
        """Turn it on or off."""
        self._bucket = TokenBucket(self._rate, self._burst) if is_on else None

    def ask(self, now: float) -> float:
        """Take a request."""
        bucket = self._bucket
        return bucket.ask(now) if bucket else 0.0


class Side:
    """One registry, and what fails on the way to it: a request limit, then a relay."""

    def __init__(self, registry: DockerRegistry) -> None:
        """Put a relay and a limit before a registry that runs."""
        self.registry = registry
        self.limit = SwitchedLimit(rate=60, burst=20)
        self.relay = Relay(registry.host)
        self.front = RateLimitedFront(self.relay.host, self.limit)

    @property
    def host(self) -> str:
        """Host and port for the mirror."""
        return self.front.host

    def close(self) -> None:
        """End the relay and the limit."""
        self.front.__exit__(None, None, None)
        self.relay.close()


class Faults:
    """Injects one fault, or none, at the beginning of a run. One thread."""

    def __init__(
        self, source: Side, destination: Side, images: SourceImages, chance: random.Random
    ) -> None:
        """Prepare the faults of the two sides and of the content."""
        self._sides = (source, destination)
        self._chance = chance
        self._kinds: dict[str, Callable[[], None]] = {
            "none": lambda: None,
            "registry restarted": self._restart,
            "429": self._limit,
            "line cut": self._cut,
            "tag moved": images.move_tag,
            "tag deleted": images.delete_tag,
            "tag added": images.add_tag,
        }
        self.count: Counter[str] = Counter()

    def inject(self) -> None:
        """End the last fault, and choose the next one."""
        self.clear()
        kind = self._chance.choice(sorted(self._kinds))
        self._kinds[kind]()
        self.count[kind] += 1

    def clear(self) -> None:
        """End the last fault."""
        for side in self._sides:
            side.limit.switch(is_on=False)
            side.relay.clear_faults()

    def _restart(self) -> None:
        self._chance.choice(self._sides).registry.restart()

    def _limit(self) -> None:
        self._chance.choice(self._sides).limit.switch(is_on=True)

    def _cut(self) -> None:
        fault = Fault(
            action=self._chance.choice(_ACTIONS),
            after=self._chance.randrange(60_000),
            direction=self._chance.choice(("up", "down")),
            times=self._chance.randrange(1, 20),
        )
        self._chance.choice(self._sides).relay.add_fault(fault)
