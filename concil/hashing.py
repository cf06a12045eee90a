"""A sha256 whose state can be saved, and gone on with in another process."""

from __future__ import annotations

import ctypes
import functools
import hashlib
import logging
from typing import Self

logger = logging.getLogger(__name__)

# OpenSSL's SHA256_CTX: eight words, a bit count of two, a block, its fill, the length.
_STATE = 4 * (8 + 2 + 16 + 1 + 1)  # bytes


class ResumableSha256:
    """OpenSSL's sha256 with its state in our hands. One thread at a time.

    hashlib has no way to save a hash, and a hash of our own in Python would be a
    thousand times slower. So this calls the functions below hashlib, in the very
    library that hashlib uses.
    """

    def __init__(self, library: ctypes.CDLL, state: bytes | None = None) -> None:
        """Begin, or go on from a state; see `begin` and `resume`."""
        self._library = library
        self._context = ctypes.create_string_buffer(2 * _STATE)
        if state is None:
            library.SHA256_Init(self._context)
        else:
            ctypes.memmove(self._context, state, len(state))

    @classmethod
    def begin(cls) -> Self | None:
        """Return a hash of nothing; None where OpenSSL is out of reach."""
        library = _openssl()
        return None if library is None else cls(library)

    @classmethod
    def resume(cls, state: bytes) -> Self | None:
        """Return the hash that had this state; None where that cannot be."""
        library = _openssl()
        return None if library is None or len(state) != _STATE else cls(library, state)

    def update(self, piece: bytes | bytearray | memoryview) -> None:
        """Hash some bytes."""
        view = memoryview(piece).cast("B")
        if view.readonly:
            self._library.SHA256_Update(self._context, view.tobytes(), len(view))
        elif len(view):
            pinned = (ctypes.c_char * len(view)).from_buffer(view)
            self._library.SHA256_Update(self._context, pinned, len(view))

    def hexdigest(self) -> str:
        """The hash of all bytes so far, which may be added to afterwards."""
        copy = ctypes.create_string_buffer(self._context.raw, len(self._context))
        result = ctypes.create_string_buffer(32)
        self._library.SHA256_Final(result, copy)
        return result.raw.hex()

    @property
    def state(self) -> bytes:
        """What `resume` needs."""
        return self._context.raw[:_STATE]


@functools.cache
def _openssl() -> ctypes.CDLL | None:
    """The OpenSSL that hashlib itself uses, if it offers its low-level calls and they fit."""
    try:
        import _hashlib  # noqa: PLC0415 - absent where Python was built without OpenSSL

        library = ctypes.CDLL(_hashlib.__file__)
        library.SHA256_Update.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)
        library.SHA256_Init.argtypes = (ctypes.c_void_p,)
        library.SHA256_Final.argtypes = (ctypes.c_void_p, ctypes.c_void_p)
    except (ImportError, OSError, AttributeError):
        logger.debug("OpenSSL's sha256 is out of reach: hashes cannot be resumed")
        return None
    return library if _fits(library) else None


def _fits(library: ctypes.CDLL) -> bool:
    """Whether a state taken in the middle of a block leads to hashlib's result."""
    first, second = b"concil" * 20, b"resumes" * 30
    begun = ResumableSha256(library)
    begun.update(first)
    resumed = ResumableSha256(library, begun.state)
    resumed.update(bytearray(second))
    return resumed.hexdigest() == hashlib.sha256(first + second).hexdigest()
