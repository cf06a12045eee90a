"""Blobs as something like files: the documented DockerPath and ResponseStream."""

from __future__ import annotations

from collections.abc import Iterator
from types import TracebackType
from typing import Protocol, Self

import requests

from concil import arguments
from concil.digest import Digest
from concil.errors import InvalidDigest


class BlobOpener(Protocol):
    """What a DockerPath asks of its hub."""

    def open_blob(self, digest: str) -> requests.Response:
        """Open a blob: a streaming response."""
        ...


class ResponseStream:
    """A file-like object on the body of a streamed response."""

    def __init__(self, response: requests.Response) -> None:
        """Read ``response``; closes it."""
        self._response = response
        self._pieces: Iterator[bytes] = response.iter_content(64 * 1024)
        self._rest = b""

    def __enter__(self) -> Self:
        """Return itself."""
        self._response.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End the ``with`` of the response: of a blob, a short rest is verified.

        Raises:
            DigestMismatch, SizeMismatch: the bytes are not the blob's.
        """
        self._response.__exit__(kind, error, trace)

    def close(self) -> None:
        """Close the response."""
        self._response.close()

    def read(self, size: int | None = None) -> bytes:
        """Return ``size`` bytes, fewer only at the end; None or negative: all that is left.

        Raises:
            DigestMismatch, SizeMismatch: the bytes are not the blob's.
        """
        pieces, got = [self._rest], len(self._rest)
        self._rest = b""
        while size is None or size < 0 or got < size:
            piece = next(self._pieces, b"")
            if not piece:
                break
            pieces.append(piece)
            got += len(piece)
        content = b"".join(pieces)
        if size is not None and 0 <= size < got:
            content, self._rest = content[:size], content[size:]
        return content


class DockerPath:
    """A blob of a hub, or the place its blobs are in, with a bit of what a Path can do."""

    def __init__(self, hub: BlobOpener, digest: str | Digest | None = None) -> None:
        """Name the blob ``digest``, with or without ``sha256:``."""
        self.hub = hub
        self.digest = None if digest is None else _text(digest)

    def __truediv__(self, digest: str | Digest) -> DockerPath:
        """The blob of that digest in the same hub."""
        return DockerPath(self.hub, _text(digest))

    def read_bytes(self) -> bytes:
        """Return the content of the blob, verified."""
        with self.hub.open_blob(self._named()) as response:
            return response.content

    def open(self, mode: str = "rb") -> ResponseStream:
        """Open the blob for reading, verified at its end.

        Raises:
            ValueError: another mode than ``rb``.
        """
        if mode != "rb":
            raise ValueError("mode have to be 'rb'")
        return ResponseStream(self.hub.open_blob(self._named()))

    def _named(self) -> str:
        if self.digest is None:
            raise InvalidDigest("this path names no blob", remedy="write path / digest")
        return self.digest if ":" in self.digest else f"sha256:{self.digest}"


def _text(digest: str | Digest) -> str:
    if isinstance(digest, Digest):
        return str(digest)
    return arguments.instance("digest", digest, str, "str or Digest")
