"""SHA-256 hash whose state can be saved and restored in another process."""

from __future__ import annotations

import ctypes
import functools
import hashlib
import logging
from typing import Self

logger = logging.getLogger(__name__)

# OpenSSL's SHA256_CTX: eight words, a bit count of two words, a block, its fill, the length.
_STATE_SIZE = 4 * (8 + 2 + 16 + 1 + 1)  # bytes


class ResumableSha256:
    """OpenSSL's sha256 with access to its state. One thread at a time.

    hashlib cannot save the state of a hash, and an implementation in Python would be a thousand
    times slower. Therefore this class calls the low-level functions of the library that hashlib
    itself uses.
    """

    def __init__(self, library: ctypes.CDLL, state: bytes | None = None) -> None:
        """Start a new hash, or continue from a state; see `create` and `from_state`."""
        self._library = library
        self._context = ctypes.create_string_buffer(2 * _STATE_SIZE)
        if state is None:
            library.SHA256_Init(self._context)
        else:
            ctypes.memmove(self._context, state, len(state))

    @classmethod
    def create(cls) -> Self | None:
        """Return a new hash; None if OpenSSL is not available."""
        library = _load_openssl()
        return None if library is None else cls(library)

    @classmethod
    def from_state(cls, state: bytes) -> Self | None:
        """Return the hash with a saved state; None if that is not possible."""
        library = _load_openssl()
        return None if library is None or len(state) != _STATE_SIZE else cls(library, state)

    def update(self, data: bytes | bytearray | memoryview) -> None:
        """Hash some bytes."""
        view = memoryview(data).cast("B")
        if view.readonly:
            self._library.SHA256_Update(self._context, view.tobytes(), len(view))
        elif len(view):
            pinned = (ctypes.c_char * len(view)).from_buffer(view)
            self._library.SHA256_Update(self._context, pinned, len(view))

    def hexdigest(self) -> str:
        """Return the digest of the bytes so far; more bytes may be added afterwards."""
        copy = ctypes.create_string_buffer(self._context.raw, len(self._context))
        result = ctypes.create_string_buffer(32)
        self._library.SHA256_Final(result, copy)
        return result.raw.hex()

    @property
    def state(self) -> bytes:
        """The state to be passed to `from_state`."""
        return self._context.raw[:_STATE_SIZE]


@functools.cache
def _load_openssl() -> ctypes.CDLL | None:
    """Load the OpenSSL that hashlib uses, if it has compatible low-level functions."""
    try:
        import _hashlib  # noqa: PLC0415 - missing if Python was built without OpenSSL

        library = ctypes.CDLL(_hashlib.__file__)
        library.SHA256_Update.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)
        library.SHA256_Init.argtypes = (ctypes.c_void_p,)
        library.SHA256_Final.argtypes = (ctypes.c_void_p, ctypes.c_void_p)
    except (ImportError, OSError, AttributeError):
        logger.debug(
            "OpenSSL's SHA-256 cannot be accessed: after an interruption, data is hashed again "
            "from its start"
        )
        return None
    return library if _is_compatible(library) else None


def _is_compatible(library: ctypes.CDLL) -> bool:
    """Return whether a state saved in the middle of a block leads to hashlib's result."""
    first, second = b"concil" * 20, b"resumes" * 30
    interrupted = ResumableSha256(library)
    interrupted.update(first)
    resumed = ResumableSha256(library, interrupted.state)
    resumed.update(bytearray(second))
    return resumed.hexdigest() == hashlib.sha256(first + second).hexdigest()
