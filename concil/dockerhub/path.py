"""DockerPath and ResponseStream: blobs as file-like objects."""

from __future__ import annotations

from collections.abc import Iterator
from types import TracebackType
from typing import Protocol, Self

import requests

from concil.errors import InvalidDigest
from concil.oci.digest import Digest
from concil.runtime import arguments


class BlobOpener(Protocol):
    """The method of DockerHub that a DockerPath uses."""

    def open_blob(self, digest: str) -> requests.Response:
        """Open a blob as a streaming response."""
        ...


class ResponseStream:
    """A file-like object on the body of a streamed response."""

    def __init__(self, response: requests.Response) -> None:
        """Read ``response``, which is closed with the stream."""
        self._response = response
        self._blocks: Iterator[bytes] = response.iter_content(64 * 1024)
        self._buffered = b""

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
        """Leave the ``with`` block of the response, which verifies a short unread rest.

        Raises:
            DigestMismatch, SizeMismatch: the bytes are not the blob's.
        """
        self._response.__exit__(kind, error, trace)

    def close(self) -> None:
        """Close the response."""
        self._response.close()

    def read(self, size: int | None = None) -> bytes:
        """Return ``size`` bytes, fewer only at the end; None or negative: the rest.

        Raises:
            DigestMismatch, SizeMismatch: the bytes are not the blob's.
        """
        blocks, count = [self._buffered], len(self._buffered)
        self._buffered = b""
        while size is None or size < 0 or count < size:
            block = next(self._blocks, b"")
            if not block:
                break
            blocks.append(block)
            count += len(block)
        content = b"".join(blocks)
        if size is not None and 0 <= size < count:
            content, self._buffered = content[:size], content[size:]
        return content


class DockerPath:
    """A blob of a hub, or the hub itself, with some methods of `pathlib.Path`."""

    def __init__(self, hub: BlobOpener, digest: str | Digest | None = None) -> None:
        """Refer to the blob ``digest``, with or without ``sha256:``; None: to the hub itself."""
        self.hub = hub
        self.digest = None if digest is None else _digest_text(digest)

    def __truediv__(self, digest: str | Digest) -> DockerPath:
        """Return the path of a blob in the same hub."""
        return DockerPath(self.hub, _digest_text(digest))

    def read_bytes(self) -> bytes:
        """Return the content of the blob, verified."""
        with self.hub.open_blob(self._blob_digest()) as response:
            return response.content

    def open(self, mode: str = "rb") -> ResponseStream:
        """Open the blob for reading; it is verified at its end.

        Raises:
            ValueError: the mode is not ``rb``.
        """
        if mode != "rb":
            raise ValueError("mode have to be 'rb'")
        return ResponseStream(self.hub.open_blob(self._blob_digest()))

    def _blob_digest(self) -> str:
        if self.digest is None:
            raise InvalidDigest("this path does not name a blob", remedy="write path / digest")
        return self.digest if ":" in self.digest else f"sha256:{self.digest}"


def _digest_text(digest: str | Digest) -> str:
    if isinstance(digest, Digest):
        return str(digest)
    return arguments.check_instance("digest", digest, str, "str or Digest")
