"""Whose requests they are: credentials in the order of a login, and which were refused."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from concil.errors import ConcilError, RegistryDenied
from concil.registry.credentials import Credentials, Login
from concil.registry.scopes import Scopes

# Refusals in a row after which a user counts as wrong. One is enough where a password was
# never any good; a user who was let in before may lack the right to one repository only.
_STRIKES = 3
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
        self._looked_again = False
        # Held while `stored` looks, for a helper is a program and is run once, and while a
        # person is asked; guards the fields above.
        self._searching = threading.Lock()
        self._trying = threading.Lock()
        self._guard = threading.Lock()  # guards all below, never held over I/O
        self._proven: Credentials | None = None  # were accepted at least once
        self._strikes = 0
        self._denied: dict[Scopes | None, tuple[Credentials, RegistryDenied]] = {}
        self._broken: ConcilError | None = None  # what `stored` raised

    @property
    def current(self) -> Credentials | None:
        """The credentials to use; None: nobody's."""
        return self._given or self._found

    def give(self, credentials: Credentials | None) -> None:
        """Be another user from here on; None: whoever a login left."""
        if credentials != self._given:
            with self._guard:
                self._given = credentials
                self._strikes = 0

    def check(self, scopes: Scopes) -> None:
        """Raise what is known to come of a request.

        Raises:
            RegistryDenied: the credentials were refused, for these scopes or altogether.
            ConcilError: the credentials of a login cannot be read.
        """
        credentials = self.current
        with self._guard:
            denied = [self._denied.get(None), self._denied.get(scopes)]
            broken = self._broken if credentials is None else None
        for one in denied:
            if one is not None and one[0] == credentials:
                raise one[1].with_traceback(None)  # or it would grow with each thread
        if broken is not None:
            raise broken.with_traceback(None)

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
                self._strikes = 0

    def is_proven(self, credentials: Credentials) -> bool:
        """Whether the credentials were accepted before."""
        return self._proven == credentials

    def may_have_expired(self) -> bool:
        """Whether the credentials come from a login that can be looked at again."""
        if self._given is not None or self._found is None or self._looked is None:
            return False
        return time.monotonic() - self._looked >= _STALE

    def replaced(self, refused: Credentials, error: RegistryDenied | None, scopes: Scopes) -> bool:
        """Look for other credentials than the refused ones, or remember the refusal.

        A helper's password may live for hours only (ECR: 12); what a helper gives anew
        is tried once.

        Args:
            error: what to raise from here on; None: it is not remembered.
        Returns:
            Whether there are other credentials to try.
        """
        with self._searching:
            if self.current != refused:
                return True  # another thread was here
            try:
                fresh = self._look_again(refused)
            except ConcilError:
                self._deny(refused, error, scopes)
                raise
            if fresh is None:
                self._deny(refused, error, scopes)
                return False
            self._found = fresh
            with self._guard:
                self._strikes = 0
            return True

    def _look_again(self, refused: Credentials) -> Credentials | None:
        """What a login has got since; None if that is nothing new. The caller holds the lock."""
        from_login = self._given is None and self._looked is not None
        if not from_login or (self._looked_again and not self.is_proven(refused)):
            return None
        self._looked_again = True
        found = self._look()
        return None if found == refused else found

    def _look(self) -> Credentials | None:
        """Ask `stored`. The caller holds the lock for it."""
        self._looked = time.monotonic()
        if self._login.stored is None:
            return None
        try:
            return self._login.stored()
        except ConcilError as error:
            with self._guard:
                self._broken = error
            raise

    def _deny(self, refused: Credentials, error: RegistryDenied | None, scopes: Scopes) -> None:
        if error is None:
            return
        with self._guard:
            wrong = error.status == 401 and self._proven != refused
            self._strikes += _STRIKES if wrong else 1
            over = self._strikes >= _STRIKES
            self._denied[None if over else scopes] = (refused, error)
