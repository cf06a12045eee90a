"""What the engine asks of a place that content is read from and written to."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from concil.content import Body, Descriptor, Digest, Manifest
from concil.errors import UsageError


class BlobReader(Protocol):
    """An open blob, from some byte on. One thread at a time; whoever opened it closes it."""

    @property
    def start(self) -> int:
        """Where the body really begins: 0 if the place cannot begin elsewhere."""
        ...

    def readinto(self, buffer: memoryview, /) -> int:
        """Fill some of ``buffer``; return the number of bytes, 0 at the end.

        Raises:
            ConnectionLost: the bytes broke off; open it again at the next byte.
        """
        ...

    def close(self) -> None:
        """Let go of the connection or file, also in the middle."""
        ...


@dataclass(frozen=True, slots=True)
class WriterState:
    """What a later process needs to go on with a writer. The location may be a secret."""

    location: str = field(repr=False)  # an upload session's, or the path of a partial file
    offset: int  # bytes acknowledged, or filled
    chunk_size: int  # bytes; 0 where there are no chunks
    stretches: tuple[tuple[int, int], ...] = ()  # filled, half-open, of a RangeWriter
    hashed: str = ""  # `Verifier.saved` at `offset`, while the digest is not known


class DigestNeeded(UsageError):
    """A place takes a blob only under a digest that is known before; it may learn that late."""


@runtime_checkable
class BlobWriter(Protocol):
    """A blob that is being written in order, invisible until it is committed.

    One thread at a time. After any error of `append` the place must be asked by
    `resync` before anything else; after `close` the bytes stay for a later
    `begin_blob(resume=...)`, after `abort` they are gone.
    """

    @property
    def offset(self) -> int:
        """Bytes the place has acknowledged."""
        ...

    @property
    def chunk_size(self) -> int:
        """Bytes of one `append`; it changes only where a new start does too."""
        ...

    def append(self, body: Body, /) -> None:
        """Write the next stretch, which begins at ``offset``.

        Raises:
            ConnectionLost, StatusError: some of it may have arrived; `resync` tells.
            SessionLost: nothing is kept; `resync` begins again at 0.
        """
        ...

    def resync(self) -> int:
        """Ask where to go on; set and return ``offset``. It may be 0: a new start."""
        ...

    def state(self) -> WriterState | None:
        """What to remember, or None where nothing can be gone on with."""
        ...

    def commit(self, digest: Digest, /) -> None:
        """Make the blob visible under its digest.

        Raises:
            DigestMismatch: the place computed another digest; nothing is visible.
            SessionLost: nothing is kept; `resync` begins again at 0.
        """
        ...

    def close(self) -> None:
        """Keep what is there and let go."""
        ...

    def abort(self) -> None:
        """Throw away what is there, errors or not; `resync` then begins again at 0."""
        ...


@runtime_checkable
class RangeWriter(Protocol):
    """A blob that is filled in any order, by any thread, invisible until it is committed.

    The one implementation is `store.partial.PartialFile`.
    """

    @property
    def size(self) -> int:
        """Bytes it will have."""
        ...

    @property
    def filled(self) -> int:
        """Bytes that are there."""
        ...

    def take(self, most: int, /) -> tuple[int, int] | None:
        """Hand out the next stretch nobody has, half-open, at most ``most`` bytes; None: none."""
        ...

    def give_back(self, start: int, stop: int, /) -> None:
        """Return a stretch that was taken and not filled."""
        ...

    def write_at(self, offset: int, piece: memoryview, /) -> None:
        """Write bytes of a stretch that was taken."""
        ...

    def restart(self) -> None:
        """Throw the bytes away and begin again."""
        ...

    def state(self) -> WriterState:
        """What to remember of it."""
        ...

    def commit(self) -> None:
        """Verify size and digest, then make the blob visible.

        Raises:
            SizeMismatch, DigestMismatch: nothing is visible; `restart` or `abort` it.
        """
        ...

    def close(self) -> None:
        """Keep what is there and let go."""
        ...

    def abort(self) -> None:
        """Throw away what is there."""
        ...


class Source(Protocol):
    """A place content is read from. Any thread may call any method."""

    @property
    def name(self) -> str:
        """What people call it, without secrets."""
        ...

    @property
    def host(self) -> str:
        """What its limits belong to: host[:port], "" for local places."""
        ...

    def find_manifest(self, reference: str) -> Descriptor | None:
        """Ask by tag or digest what is there, without fetching it.

        Returns:
            What it is, or None. A digest that the place would not tell is fetched
            and computed; it is a hint until the manifest itself was read.
        """
        ...

    def get_manifest(self, reference: str) -> Manifest:
        """Fetch by tag or digest; a digest is verified.

        Raises:
            NotFound, DigestMismatch, InvalidManifest.
        """
        ...

    def open_blob(self, blob: Descriptor, start: int = 0, stop: int | None = None) -> BlobReader:
        """Open the bytes from ``start`` up to ``stop``, half-open; unverified.

        Raises:
            NotFound: the place has no such blob.
        """
        ...


class Destination(Protocol):
    """A place content is written to. Any thread may call any method."""

    @property
    def name(self) -> str:
        """What people call it, without secrets."""
        ...

    @property
    def host(self) -> str:
        """What its limits belong to: host[:port], "" for local places."""
        ...

    @property
    def realm(self) -> str:
        """What it shares blobs with: stores of one realm can at least mount from one another."""
        ...

    def find_manifest(self, reference: str) -> Descriptor | None:
        """Ask by tag or digest what is there already. As in `Source`."""
        ...

    def has_blob(self, blob: Descriptor) -> bool:
        """Whether the blob is there, with its size."""
        ...

    def begin_blob(
        self, size: int, digest: Digest | None = None, resume: WriterState | None = None
    ) -> BlobWriter | RangeWriter:
        """Begin to write a blob, or go on with one.

        Args:
            size: bytes.
            digest: None where it becomes known only with the last byte; a place
                that names what it writes from the start (a RangeWriter) needs it.
        Raises:
            UsageError: the digest is missing and needed.
        """
        ...

    def put_manifest(self, manifest: Manifest, reference: str) -> None:
        """Write a manifest under a tag or under its digest; bytes unchanged."""
        ...


@runtime_checkable
class Mounter(Protocol):
    """A destination that can take a blob from a sibling of the same realm without its bytes."""

    @property
    def repository(self) -> str:
        """What `mount` of a sibling wants to know."""
        ...

    def mount(self, blob: Descriptor, source: str) -> bool:
        """Take ``blob`` from the repository ``source``; False if it did not work for any reason."""
        ...


@runtime_checkable
class Narrow(Protocol):
    """A destination that bears only so many uploads at once."""

    @property
    def uploads_at_once(self) -> int | None:
        """How many; None: as many as there are jobs."""
        ...


@runtime_checkable
class Guarded(Protocol):
    """A place that lets not everybody in."""

    def is_shut(self) -> bool:
        """Whether it has refused this user altogether; a right that is missing is not that."""
        ...


@runtime_checkable
class TagLister(Protocol):
    """A place that can tell the names of what it holds."""

    def tags(self) -> Iterator[str]:
        """The tags, as they come, page by page."""
        ...


@runtime_checkable
class Referring(Protocol):
    """A place that knows what is about a manifest: signatures, attestations, SBOMs.

    A manifest with a ``subject`` that is put there is listed from then on.
    """

    def get_manifest(self, reference: str) -> Manifest:
        """Fetch by tag or digest. As in `Source`."""
        ...

    def referrers(self, subject: Digest, beside: str = "", /) -> Sequence[Descriptor]:
        """The manifests whose ``subject`` it is said to be, each once; they may be gone.

        Args:
            beside: the reference of an image of the same repository, where names have
                that in them.
        """
        ...

    def digest_tags(self, subject: Digest, beside: str = "", /) -> Sequence[str]:
        """References that are named by its digest and a suffix, as cosign does; perhaps there."""
        ...


@runtime_checkable
class Choosy(Protocol):
    """A destination that does not take every image."""

    def check(self, manifest: Manifest) -> None:
        """Refuse an image before any of it is moved.

        Raises:
            UsageError: what it is that cannot be held there.
        """
        ...


@runtime_checkable
class Lacking(Protocol):
    """A source that may lack blobs, because the destination is to have them."""

    def check_blob(self, blob: Descriptor) -> None:
        """See that it has a blob, before the destination begins to write it.

        Raises:
            NotFound: it has not; what to do about it.
        """
        ...


@runtime_checkable
class Promising(Protocol):
    """A destination that counts an image as there which an earlier run has taken elsewhere."""

    def is_promised(self, reference: str) -> bool:
        """Whether an image is up to date by that alone, and not here."""
        ...

    def promise(self, reference: str, blobs: Iterable[Digest]) -> None:
        """Let the blobs of such an image count as there, too."""
        ...
