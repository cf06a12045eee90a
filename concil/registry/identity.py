"""Whose requests they are: credentials in the order of a login, and which were refused."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from concil.errors import ConcilError, RegistryDenied
from concil.registry.credentials import Credentials, Login
from concil.registry.scopes import Scopes

_STALE = 600.0  # seconds; younger credentials of a helper have not expired


class Identity:
    """The user of one registry. Any thread may call any method.

    Credentials that nobody has accepted yet are tried by one thread at a time (`trial`),
    and a refusal is remembered: many threads with a wrong password would lock a user out.
    """

    def __init__(self, login: Login) -> None:
        """Be the user of ``login``."""
        self._login = login
        self._given = login.given
        self._found: Credentials | None = None  # by `stored` or `ask`
        self._looked: float | None = None  # monotonic seconds at which `stored` was asked
        self._sought: Credentials | None = None  # for whose sake `stored` was asked again
        # Held while `stored` looks, for a helper is a program and is run once, and while a
        # person is asked; guards the fields above.
        self._searching = threading.Lock()
        self._trying = threading.Lock()
        self._guard = threading.Lock()  # guards all below, never held over I/O
        self._proven: Credentials | None = None  # were accepted at least once
        self._denied: dict[Scopes | None, tuple[Credentials, RegistryDenied]] = {}
        # What `stored` raised, and for whom it was asked.
        self._broken: tuple[Credentials | None, ConcilError] | None = None

    @property
    def current(self) -> Credentials | None:
        """The credentials to use; None: nobody's."""
        return self._given or self._found

    def give(self, credentials: Credentials | None) -> None:
        """Be another user from here on; None: whoever a login left."""
        self._given = credentials

    def check(self, scopes: Scopes) -> None:
        """Raise what is known to come of a request.

        Raises:
            RegistryDenied: the credentials were refused, for these scopes or altogether.
            ConcilError: the credentials of a login cannot be read.
        """
        credentials = self.current
        with self._guard:
            known = [self._denied.get(None), self._denied.get(scopes), self._broken]
        for one in known:
            if one is not None and one[0] == credentials:
                raise one[1].with_traceback(None)  # or it would grow with each thread

    @property
    def is_refused(self) -> bool:
        """Whether the current credentials were refused for anything, or cannot be read."""
        credentials = self.current
        with self._guard:
            known = [self._denied.get(None), self._broken]
        return any(one is not None and one[0] == credentials for one in known)

    def search(self) -> None:
        """Look once for what a login left, if nobody gave credentials."""
        with self._searching:
            if self._looked is None and self._given is None:
                self._found = self._look()

    def prompt(self) -> bool:
        """Ask a person, if there is nobody yet; return whether there is somebody now."""
        with self._searching:
            if self.current is None and self._login.ask is not None:
                self._found = self._login.ask()
            return self.current is not None

    @contextmanager
    def trial(self, scopes: Scopes) -> Iterator[Credentials | None]:
        """Try the current credentials: alone, until they have proven good.

        Other threads wait for the outcome instead of repeating a wrong password.

        Raises:
            RegistryDenied: somebody else's trial has failed meanwhile.
        """
        credentials = self.current
        if credentials is None or credentials == self._proven:
            yield credentials
            return
        with self._trying:
            self.check(scopes)
            if self.current != self._proven:
                yield self.current
                return
        yield self.current

    def prove(self, credentials: Credentials | None) -> None:
        """Take note that the credentials were accepted."""
        if credentials is not None:
            with self._guard:
                self._proven = credentials

    def is_proven(self, credentials: Credentials) -> bool:
        """Whether the credentials were accepted before."""
        return self._proven == credentials

    def may_have_expired(self) -> bool:
        """Whether the credentials come from a login that can be looked at again."""
        if self._given is not None or self._found is None or self._looked is None:
            return False
        return time.monotonic() - self._looked >= _STALE

    def replaced(self, refused: Credentials) -> bool:
        """Look for other credentials than the refused ones.

        A helper's password may live for hours only (ECR: 12); what a helper gives anew
        is tried once.

        Returns:
            Whether there are other credentials to try.
        Raises:
            ConcilError: the credentials of a login cannot be read any more.
        """
        with self._searching:
            if self.current != refused:
                return True  # another thread was here
            if not self._is_worth_a_look(refused):
                return False
            self._sought = refused
            found = self._look()
            if found is None or found == refused:
                return False
            self._found = found
            return True

    def deny(self, refused: Credentials, error: RegistryDenied, scopes: Scopes | None) -> None:
        """Remember a refusal.

        Args:
            error: what `check` raises from here on.
            scopes: what they were refused for; None: for anything.
        """
        with self._guard:
            self._denied[scopes] = (refused, error)

    def _is_worth_a_look(self, refused: Credentials) -> bool:
        """Whether a login may have got others meanwhile. The caller holds the lock for it."""
        if self._given is not None or self._looked is None or self._login.stored is None:
            return False
        if self._sought is None:
            return True
        # What a second look found was never any good, or there was nothing new a moment ago.
        recently = self._sought == refused and not self.may_have_expired()
        return self.is_proven(refused) and not recently

    def _look(self) -> Credentials | None:
        """Ask `stored`. The caller holds the lock for it."""
        self._looked = time.monotonic()
        if self._login.stored is None:
            return None
        try:
            return self._login.stored()
        except ConcilError as error:
            with self._guard:
                self._broken = (self.current, error)
            raise
