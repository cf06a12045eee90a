"""Hosts that refuse whatever a user asks: the first to find out is told why, the others why not."""

from __future__ import annotations

import threading

from concil.errors import ConcilError, NotTried, RegistryDenied
from concil.store.protocol import Guarded


class Refusals:
    """The refusals of one run. Any thread may call any method."""

    def __init__(self) -> None:
        """Begin with none."""
        self._lock = threading.Lock()  # guards the field below
        self._known: dict[str, NotTried] = {}  # by host

    def untried(self, *places: object) -> NotTried | None:
        """Why what needs these places need not be begun; None: it may do."""
        host = _shut_host(*places)
        with self._lock:
            return self._known.get(host)

    def cause(self, error: ConcilError, *places: object) -> ConcilError:
        """Return the error of what needed these places.

        Of those that a host has refused together, the first has it, and the others were as
        good as not tried.
        """
        told = error.everywhere if isinstance(error, RegistryDenied) else ""
        host = _shut_host(*places) or told
        if not host:
            return error
        with self._lock:
            if host in self._known:
                return self._known[host]
            self._known[host] = NotTried(str(error), remedy=error.remedy)
        return error


def _shut_host(*places: object) -> str:
    """The host among some places that refuses whatever this user asks; "" if none does."""
    shut = (place for place in places if isinstance(place, Guarded) and place.is_shut())
    return next((str(getattr(place, "host", "")) for place in shut), "")
