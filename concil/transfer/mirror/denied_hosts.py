"""Hosts that have denied access: their remaining images are not tried."""

from __future__ import annotations

import threading

from concil.errors import ConcilError, NotTried, RegistryDenied
from concil.runtime.parent_process import ParentProcess
from concil.store.protocols import Store


class DeniedHosts:
    """Hosts that denied access during one run. Any thread may call any method."""

    def __init__(self, parent: ParentProcess | None = None) -> None:
        """Start without any denied host.

        Args:
            parent: knows the hosts that have denied access to other processes of the run.
        """
        self._parent = parent
        self._lock = threading.Lock()  # guards the field below
        self._error_by_host: dict[str, NotTried] = {}

    def find_error(self, *stores: Store) -> NotTried | None:
        """Return the error for images that use these stores; None if no host denied access."""
        host = _find_denied_host(*stores)
        with self._lock:
            return self._error_by_host.get(host)

    def record_error(self, error: ConcilError, *stores: Store) -> ConcilError:
        """Record an error of an image that used these stores, and return the one to report.

        If a host denies access to several images at once, the first one gets the error, and
        the others get NotTried.
        """
        denied_host = error.denied_host if isinstance(error, RegistryDenied) else ""
        host = _find_denied_host(*stores) or denied_host
        if not host:
            return error
        not_tried = NotTried(str(error), remedy=error.remedy)
        not_tried.host, not_tried.operation = error.host, error.operation
        not_tried.reason = error.reason
        return self.record_host(host, not_tried) or error

    def record_host(self, host: str, error: NotTried) -> NotTried | None:
        """Record that a host denies access; return the error of an earlier record, if any."""
        with self._lock:
            known = self._error_by_host.get(host)
            if known is None and self._parent is not None:
                known = self._parent.call("record_denied_host", host, error)
            self._error_by_host[host] = known or error
            return known


def _find_denied_host(*stores: Store) -> str:
    """Return the host of the first store that denies this user all access; "" if none does."""
    return next((store.host for store in stores if store.is_access_denied()), "")
