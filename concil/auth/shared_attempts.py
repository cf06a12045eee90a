"""Shares with other processes of a run whether a registry has accepted credentials."""

from __future__ import annotations

import contextlib
import hashlib
import threading
from collections.abc import Iterator
from dataclasses import astuple

from concil.auth.credentials.credentials import Credentials
from concil.auth.scope import Scopes
from concil.errors import RegistryDenied
from concil.runtime.dataclass import dataclass
from concil.runtime.parent_process import ParentProcess


@dataclass(frozen=True, slots=True)
class Verdict:
    """The answer of a registry to an attempt with some credentials."""

    error: RegistryDenied | None = None  # None: they were accepted
    scopes: Scopes | None = None  # that they were rejected for; None for all


class SharedAttempts:
    """Attempts with credentials at one registry, one process at a time. Any thread."""

    def __init__(self, parent: ParentProcess, registry_url: str, cancel: threading.Event) -> None:
        """Share the attempts through ``parent``; ``cancel`` ends a wait for another process."""
        self._parent = parent
        self._registry_url = registry_url
        self._cancel = cancel

    @contextlib.contextmanager
    def exclusive(self, credentials: Credentials) -> Iterator[list[Verdict]]:
        """Keep other processes from trying the credentials; yield the verdicts so far."""
        key = self._key(credentials)
        with self._parent.slot(f"credentials {key}", 1, self._cancel):
            yield self._parent.call("verdicts", key)

    def record(self, credentials: Credentials, verdict: Verdict) -> None:
        """Tell the other processes the result of an attempt."""
        self._parent.call("record_verdict", self._key(credentials), verdict)

    def _key(self, credentials: Credentials) -> str:
        """Return a name of the credentials that does not reveal them."""
        text = repr((self._registry_url, astuple(credentials)))
        return hashlib.sha256(text.encode()).hexdigest()
