"""Saves the state of a hash while a large blob is read, so that reading can continue."""

from __future__ import annotations

from collections.abc import Callable

from concil.config import MIB
from concil.oci.digest import Verifier

SAVE_INTERVAL = 64 * MIB  # bytes


class HashProgress:
    """The progress of one blob. One thread at a time."""

    def __init__(self, hash_state: str, save: Callable[[str], object]) -> None:
        """Continue from a saved state, "" for none, and save later ones with ``save``."""
        self._hash_state = hash_state
        self._save = save
        self._saved_position = 0  # bytes
        self.start = 0  # bytes that were not read again

    def begin(self, size: int) -> Verifier:
        """Return the verifier of a blob of ``size`` bytes, at the position to continue from."""
        verifier = Verifier.create_resumable(self._hash_state)
        if verifier.position > size:
            verifier = Verifier.create_resumable()
        self.start = self._saved_position = verifier.position
        return verifier

    def update(self, verifier: Verifier) -> None:
        """Save the state, once per interval."""
        if verifier.position - self._saved_position >= SAVE_INTERVAL:
            self.save(verifier)

    def save(self, verifier: Verifier) -> None:
        """Save the state."""
        self._saved_position = verifier.position
        self._save(verifier.hash_state)
