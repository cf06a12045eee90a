"""Selects credentials for one registry and remembers rejected ones."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from concil.auth.credentials.credentials import CredentialProviders, Credentials
from concil.auth.scope import Scopes
from concil.auth.shared_attempts import SharedAttempts, Verdict
from concil.errors import ConcilError, RegistryDenied

_MIN_EXPIRY_AGE = 600.0  # seconds; a helper's credentials are not expired before


class CredentialChain:
    """Credentials for one registry. Any thread may call any method.

    Credentials that were not accepted yet are tried by one thread at a time
    (`exclusive_attempt`), and a rejection is remembered: many threads with a wrong password
    would lock the user out.
    """

    def __init__(
        self, providers: CredentialProviders, attempts: SharedAttempts | None = None
    ) -> None:
        """Use the credentials of ``providers``.

        Args:
            attempts: those of other processes of the run; None if there are none.
        """
        self._attempts = attempts
        self._providers = providers
        self._explicit = providers.explicit
        self._provided: Credentials | None = None  # by `stored` or `prompt`
        self._lookup_time: float | None = None  # monotonic seconds of the last call of `stored`
        self._refreshed_for: Credentials | None = None  # rejected, so `stored` was called again
        # Guards the fields above. Held during `stored`, so that a helper program runs only once,
        # and during `prompt`.
        self._lookup_lock = threading.Lock()
        self._attempt_lock = threading.Lock()
        self._state_lock = threading.Lock()  # guards all below, never held over I/O
        self._valid: Credentials | None = None  # accepted at least once
        self._rejections: dict[Scopes | None, tuple[Credentials, RegistryDenied]] = {}
        # What `stored` raised, and the credentials at the time.
        self._lookup_error: tuple[Credentials | None, ConcilError] | None = None

    @property
    def current(self) -> Credentials | None:
        """The credentials to use; None for anonymous access."""
        return self._explicit or self._provided

    def set_credentials(self, credentials: Credentials | None) -> None:
        """Use other credentials from now on; None for those of a stored login."""
        self._explicit = credentials

    def raise_if_rejected(self, scopes: Scopes) -> None:
        """Raise the remembered error of the current credentials, if there is one.

        Raises:
            RegistryDenied: the credentials were rejected, for these scopes or entirely.
            ConcilError: the stored credentials cannot be read.
        """
        credentials = self.current
        with self._state_lock:
            rejections = [
                self._rejections.get(None),
                self._rejections.get(scopes),
                self._lookup_error,
            ]
        for rejection in rejections:
            if rejection is not None and rejection[0] == credentials:
                raise rejection[1].with_traceback(None)  # otherwise it grows with each raise

    @property
    def is_rejected(self) -> bool:
        """Whether the current credentials were rejected entirely, or cannot be read."""
        credentials = self.current
        with self._state_lock:
            rejections = [self._rejections.get(None), self._lookup_error]
        return any(
            rejection is not None and rejection[0] == credentials for rejection in rejections
        )

    def lookup(self) -> None:
        """Look up a stored login once, unless credentials were given explicitly."""
        with self._lookup_lock:
            if self._lookup_time is None and self._explicit is None:
                self._provided = self._lookup_stored()

    def prompt(self) -> bool:
        """Prompt the user if there are no credentials; return whether there are any now."""
        with self._lookup_lock:
            if self.current is None and self._providers.prompt is not None:
                self._provided = self._providers.prompt()
            return self.current is not None

    @contextmanager
    def exclusive_attempt(self, scopes: Scopes) -> Iterator[Credentials | None]:
        """Yield the current credentials, exclusively until they have been accepted.

        Other threads wait for the result instead of repeating a wrong password.

        Raises:
            RegistryDenied: another thread's attempt has failed in the meantime.
        """
        credentials = self.current
        if credentials is None or credentials == self._valid:
            yield credentials
            return
        with self._attempt_lock:
            self.raise_if_rejected(scopes)
            if self.current != self._valid:
                with self._attempt_of_all_processes(scopes):
                    yield self.current
                return
        yield self.current

    @contextmanager
    def _attempt_of_all_processes(self, scopes: Scopes) -> Iterator[None]:
        """Wait for attempts of other processes, and adopt their results. Raises as above."""
        credentials = self.current
        if self._attempts is None or credentials is None:
            yield
            return
        with self._attempts.exclusive(credentials) as verdicts:
            for verdict in verdicts:
                with self._state_lock:
                    self._adopt(credentials, verdict)
            self.raise_if_rejected(scopes)
            yield

    def _adopt(self, credentials: Credentials, verdict: Verdict) -> None:
        """Store the result of an attempt. The caller holds the state lock."""
        if verdict.error is None:
            self._valid = credentials
        else:
            self._rejections[verdict.scopes] = (credentials, verdict.error)

    def mark_valid(self, credentials: Credentials | None) -> None:
        """Record that the credentials were accepted."""
        if credentials is not None:
            self._record(credentials, Verdict())

    def _record(self, credentials: Credentials, verdict: Verdict) -> None:
        """Store the result of an attempt, for all processes."""
        with self._state_lock:
            is_known = verdict.error is None and self._valid == credentials
            self._adopt(credentials, verdict)
        if self._attempts is not None and not is_known:
            self._attempts.record(credentials, verdict)

    def is_valid(self, credentials: Credentials) -> bool:
        """Return whether the credentials were accepted before."""
        return self._valid == credentials

    def can_be_expired(self) -> bool:
        """Return whether the credentials are from a stored login and old enough to have expired."""
        if self._explicit is not None or self._provided is None or self._lookup_time is None:
            return False
        return time.monotonic() - self._lookup_time >= _MIN_EXPIRY_AGE

    def refresh_credentials(self, rejected: Credentials) -> bool:
        """Look up the stored login again after its credentials were rejected.

        A helper's password may be valid for a few hours only (ECR: 12). Newly found credentials
        are tried once.

        Returns:
            Whether there are other credentials to try.
        Raises:
            ConcilError: the stored credentials can no longer be read.
        """
        with self._lookup_lock:
            if self.current != rejected:
                return True  # another thread has replaced them
            if not self._can_refresh(rejected):
                return False
            self._refreshed_for = rejected
            stored = self._lookup_stored()
            if stored is None or stored == rejected:
                return False
            self._provided = stored
            return True

    def mark_rejected(
        self, rejected: Credentials, error: RegistryDenied, scopes: Scopes | None
    ) -> None:
        """Remember that credentials were rejected.

        Args:
            error: what `raise_if_rejected` raises from now on.
            scopes: the scopes they were rejected for; None for all.
        """
        self._record(rejected, Verdict(error, scopes))

    def _can_refresh(self, rejected: Credentials) -> bool:
        """Return whether to look up the login again. The caller holds the lookup lock."""
        if (
            self._explicit is not None
            or self._lookup_time is None
            or self._providers.stored is None
        ):
            return False
        if self._refreshed_for is None:
            return True
        # Not if the new credentials never worked, or a recent lookup found nothing new.
        is_recent = self._refreshed_for == rejected and not self.can_be_expired()
        return self.is_valid(rejected) and not is_recent

    def _lookup_stored(self) -> Credentials | None:
        """Call `stored`. The caller holds the lookup lock."""
        self._lookup_time = time.monotonic()
        if self._providers.stored is None:
            return None
        try:
            return self._providers.stored()
        except ConcilError as error:
            with self._state_lock:
                self._lookup_error = (self.current, error)
            raise
