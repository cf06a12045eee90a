"""Response bodies that verify size and digest while they are read."""

from __future__ import annotations

from typing import Any, Self

import requests

from concil.engine.verified import MAX_REST, VerifiedReader, logger
from concil.errors import ConnectionLost, SizeMismatch
from concil.http.transport import content_length
from concil.oci.blob_reader import BlobReader
from concil.oci.manifest import Digest
from concil.progress.events import Meter, ProgressSink
from concil.store.registry.blob_body import RegistryBlobReader
from concil.transfer.blob.resuming_reader import Opener, ResumingReader
from concil.transfer.context import TransferContext

__all__ = ["VerifiedBody", "VerifiedResponse", "wrap_response"]

# Methods of urllib3's response that would bypass the verification.
_UNVERIFIED_METHODS = frozenset({"read_chunked", "json", "drain_conn", "getbuffer"})


class VerifiedBody(VerifiedReader):
    """Replaces ``Response.raw``; resumes with a Range request after a lost connection."""

    def __init__(
        self,
        response: requests.Response,
        digest: Digest,
        opener: Opener,
        meter: Meter,
        context: TransferContext,
    ) -> None:
        """Read the body of ``response``, and after a lost connection the readers of ``opener``."""
        self._raw = response.raw
        name, size = f"blob {digest}", content_length(response)
        body = RegistryBlobReader(response, 0)
        # Without a length there is no way to tell a lost connection from the end.
        source = body if size is None else _ResumingBody(body, opener, size, context, name)
        super().__init__(source, digest, size, meter, name)

    def release_conn(self) -> None:
        """Close the body; requests calls this when a response is closed."""
        self.close()

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever urllib3's response has
        """Return other attributes of urllib3's response, such as headers and status."""
        if name.startswith("_") or name in _UNVERIFIED_METHODS:
            raise AttributeError(name)
        return getattr(self._raw, name)


class VerifiedResponse(requests.Response):
    """A streamed response whose ``with`` block verifies a short unread rest at its end."""

    raw: VerifiedBody

    @classmethod
    def wrap(cls, response: requests.Response, body: VerifiedBody) -> Self:
        """Return a copy of ``response`` with another body."""
        verified = cls()
        vars(verified).update(vars(response))
        verified.raw = body
        return verified

    @property
    def verified(self) -> bool:
        """Whether all bytes were read and verified."""
        return self.raw.verified

    def verify(self) -> None:
        """Read the rest, whatever its length, and verify it.

        Raises:
            DigestMismatch, SizeMismatch: the bytes are not the blob's.
            ConnectionLost, StatusError: reading failed permanently.
            ValueError: it was closed before.
        """
        body = self.raw
        if not body.verify_rest():
            raise body.error or ValueError(f"{body.display_name}: closed before it was verified")

    def __enter__(self) -> Self:
        """Return itself."""
        self.raw.keep_source_open()
        return self

    def __exit__(self, *raised: object) -> None:
        """Verify the rest if it is short and the block raised no error; then close.

        Raises:
            DigestMismatch, SizeMismatch: the bytes are not the blob's.
        """
        try:
            if not raised or raised[0] is None:
                self._verify_rest()
        finally:
            self.close()

    def close(self) -> None:
        """Close the response without verifying an unread rest."""
        self.raw.release()
        super().close()

    def _verify_rest(self) -> None:
        body = self.raw
        if body.verify_rest(MAX_REST) or body.is_finished:
            return
        logger.warning(
            "%s was closed at byte %d of %s: it is not verified",
            body.display_name,
            body.position,
            "unknown" if body.size is None else body.size,
        )


class _ResumingBody:
    """A body of known length that is reopened after a lost connection."""

    def __init__(
        self,
        first_reader: BlobReader,
        opener: Opener,
        size: int,
        context: TransferContext,
        name: str,
    ) -> None:
        self._first_reader: BlobReader | None = first_reader
        self._opener = opener
        self._size = size
        self._name = name
        self._reader = ResumingReader(self._open, size, context, name)

    def readinto(self, buffer: memoryview, /) -> int:
        try:
            return self._reader.readinto(buffer)
        except ConnectionLost as error:
            truncation = SizeMismatch(
                f"{self._name}: only {self._reader.position} of {self._size} bytes were "
                f"received: {error}"
            )
            truncation.is_truncated = True
            raise truncation from error

    def close(self) -> None:
        self._reader.close()
        if self._first_reader is not None:
            self._first_reader.close()

    def _open(self, start: int, /) -> BlobReader:
        first_reader, self._first_reader = self._first_reader, None
        return first_reader if first_reader is not None and start == 0 else self._opener(start)


def wrap_response(
    response: requests.Response,
    digest: Digest,
    opener: Opener,
    progress: ProgressSink | None,
    context: TransferContext,
) -> VerifiedResponse:
    """Return the response with a body that is verified and resumes after a lost connection.

    Args:
        opener: reopens the content at a byte offset.
    """
    total = content_length(response)
    meter = Meter(progress, kind="blob", subject=str(digest), target="", total=total)
    return VerifiedResponse.wrap(response, VerifiedBody(response, digest, opener, meter, context))
