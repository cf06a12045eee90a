"""Losses of a registry in memory, by name."""

from __future__ import annotations

from concil.errors import ConcilError, ConnectionLost


class Fault:
    """One loss, at a certain place; it happens as often as it was armed for.

    A subclass answers one of the questions below; the answer None means: no loss.
    Questions are asked under the host's lock, so that a loss happens once and not
    once a thread.
    """

    def __init__(self, times: int = 1) -> None:
        self.left = times

    @property
    def fired(self) -> bool:
        """Whether all of it has happened."""
        return self.left == 0

    def request(self, verb: str) -> ConcilError | None:
        """Say how a small request fails."""
        return None

    def kept(self, offset: int, length: int) -> int | None:
        """Say how many bytes of a chunk arrive before the connection breaks."""
        return None

    def read_until(self, start: int) -> int | None:
        """Say up to which byte of the blob a body that begins at ``start`` is served."""
        return None

    def begins_at(self, start: int) -> int | None:
        """Say where a body really begins."""
        return None

    def serve(self, position: int, piece: memoryview) -> bool:
        """Change bytes that are being served; say whether it did."""
        return False

    def commit_lost(self) -> bool:
        """Say whether the answer to a commit that took effect is lost."""
        return False

    def session_gone(self, offset: int) -> bool:
        """Say whether the session is forgotten before a chunk at ``offset``."""
        return False


class RefusesRequests(Fault):
    """Requests of one verb get an error instead of an answer."""

    def __init__(self, verb: str, error: ConcilError | None = None, times: int = 1) -> None:
        super().__init__(times)
        self.verb = verb
        self.error = error

    def request(self, verb: str) -> ConcilError | None:
        return (self.error or ConnectionLost(f"{verb}: no answer")) if verb == self.verb else None


class LosesChunk(Fault):
    """The connection breaks when byte ``at`` would arrive; what came before is kept or not."""

    def __init__(self, at: int, *, keeping: int | None = None, times: int = 1) -> None:
        super().__init__(times)
        self.at = at
        self.keeping = keeping

    def kept(self, offset: int, length: int) -> int | None:
        if not offset <= self.at < offset + length:
            return None
        return self.at - offset if self.keeping is None else min(self.keeping, self.at - offset)


class LosesSession(Fault):
    """The session is forgotten once it holds ``after`` bytes or more."""

    def __init__(self, after: int = 0, times: int = 1) -> None:
        super().__init__(times)
        self.after = after

    def session_gone(self, offset: int) -> bool:
        return offset >= self.after


class LosesCommitAnswer(Fault):
    """The blob becomes visible, and the connection breaks before the answer."""

    def commit_lost(self) -> bool:
        return True


class BreaksRead(Fault):
    """A body breaks off in front of byte ``at`` of the blob."""

    def __init__(self, at: int, times: int = 1) -> None:
        super().__init__(times)
        self.at = at

    def read_until(self, start: int) -> int | None:
        return self.at if start <= self.at else None


class IgnoresRange(Fault):
    """A body begins at byte 0 whatever was asked for."""

    def begins_at(self, start: int) -> int | None:
        return 0 if start else None


class Corrupts(Fault):
    """Byte ``at`` of a blob is served inverted."""

    def __init__(self, at: int, times: int = 1) -> None:
        super().__init__(times)
        self.at = at

    def serve(self, position: int, piece: memoryview) -> bool:
        if not position <= self.at < position + len(piece):
            return False
        piece[self.at - position] ^= 0xFF
        return True


class InTurn(Fault):
    """A byte of a blob is served inverted, another one each time that it is read from 0 on."""

    def __init__(self, *places: int) -> None:
        super().__init__(len(places))
        self.places = list(places)
        self.reading = -1  # from 0

    def serve(self, position: int, piece: memoryview) -> bool:
        self.reading += position == 0
        at = self.places[self.reading] if self.reading < len(self.places) else -1
        if not position <= at < position + len(piece):
            return False
        piece[at - position] ^= 0xFF
        return True
