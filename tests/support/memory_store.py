"""A registry in memory whose losses are asked for by name."""

from __future__ import annotations

import itertools
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import requests

from concil.config import MIB
from concil.errors import (
    ConcilError,
    ConnectionLost,
    DigestMismatch,
    NotFound,
    ProtocolViolation,
    SessionLost,
    StatusError,
)
from concil.fs.resume_state import WriterState
from concil.oci.descriptor import Descriptor
from concil.oci.manifest import Body, Digest, Manifest
from concil.store.base_store import BaseStore
from concil.store.protocols import MountResult
from tests.support.store_faults import Fault


class MemoryHost:
    """What the repositories of one registry share: sessions, faults, a request log."""

    def __init__(self, name: str = "memory:5000", *, chunk_size: int = 1 * MIB) -> None:
        self.name = name
        self.chunk_size = chunk_size  # bytes
        self.lock = threading.RLock()
        self.faults: list[Fault] = []
        self.requests: Counter[str] = Counter()  # by verb
        self.received = 0  # bytes of chunks, also of those that were thrown away
        self.served = 0  # bytes of blobs
        self.repositories: dict[str, MemoryStore] = {}
        self.sessions: dict[str, Session] = {}
        self._numbers = itertools.count(1)

    def repository(self, name: str) -> MemoryStore:
        """Return the repository of a name, made when it is first asked for."""
        with self.lock:
            if name not in self.repositories:
                self.repositories[name] = MemoryStore(self, name)
            return self.repositories[name]

    def asked(self, verb: str) -> None:
        """Count a request, or lose it."""
        with self.lock:
            self.requests[verb] += 1
            for fault in self.faults:
                error = fault.request(verb) if fault.left else None
                if error is not None:
                    fault.left -= 1
                    raise error

    def open_session(self) -> Session:
        """Begin an upload."""
        with self.lock:
            session = Session(f"memory/{next(self._numbers)}")
            self.sessions[session.location] = session
            return session


@dataclass(slots=True)
class Session:
    """An upload that is not visible yet."""

    location: str
    content: bytearray = field(default_factory=bytearray)


class MemoryStore(BaseStore):
    """A repository: all that a store can be. Any thread may call any method."""

    lists_referrers = True

    def __init__(self, host: MemoryHost | None = None, repository: str = "memory") -> None:
        self.registry = host or MemoryHost()
        self.registry.repositories.setdefault(repository, self)
        self.repository = repository
        self.host = self.mount_scope = self.registry.name
        self.name = f"{self.host}/{repository}"
        self.blobs: dict[Digest, bytes] = {}
        self.manifests: dict[Digest, Manifest] = {}
        self.names: dict[str, Digest] = {}
        self.listed: dict[Digest, list[Descriptor]] = {}  # referrers that are none, by subject
        self.subjects_first = False  # against the specification, as some registries want it

    def find_manifest(self, reference: str) -> Descriptor | None:
        self.registry.asked("HEAD manifest")
        with self.registry.lock:
            digest = self._resolve(reference)
            manifest = self.manifests.get(digest) if digest else None
        if digest is None or manifest is None:
            return None
        return Descriptor(manifest.media_type, digest, len(manifest.body))

    def get_manifest(self, reference: str) -> Manifest:
        self.registry.asked("GET manifest")
        with self.registry.lock:
            digest = self._resolve(reference)
            if digest is None or digest not in self.manifests:
                raise NotFound(f"{self.name} has no manifest {reference!r}")
            return self.manifests[digest]

    def put_manifest(self, manifest: Manifest, reference: str) -> None:
        self.registry.asked("PUT manifest")
        pinned = _digest(reference)
        digest = pinned or manifest.digest
        if Digest.from_bytes(manifest.body, digest.algorithm) != digest:
            raise DigestMismatch(f"{self.name}: the manifest is not {reference}")
        with self.registry.lock:
            # What real registries refuse too: it shows an engine that puts things out of order.
            missing = [b.digest for b in manifest.blobs() if b.digest not in self.blobs]
            missing += [c.digest for c in manifest.children() if c.digest not in self.manifests]
            subject = manifest.subject
            if self.subjects_first and subject and subject.digest not in self.manifests:
                raise refusal(400, f"{self.name}: there is no {subject.digest}")
            if missing:
                raise ProtocolViolation(f"{self.name}: {reference} refers to unknown {missing[0]}")
            self.manifests[digest] = manifest
            if pinned is None:
                self.names[reference or "latest"] = digest

    def referrers(self, subject: Digest, _beside: str = "", /) -> Sequence[Descriptor]:
        self.registry.asked("GET referrers")
        with self.registry.lock:
            found = [
                manifest.referrer_descriptor(digest)
                for digest, manifest in self.manifests.items()
                if manifest.subject is not None and manifest.subject.digest == subject
            ]
            return found + self.listed.get(subject, [])

    def digest_tags(self, subject: Digest, _beside: str = "", /) -> Sequence[str]:
        with self.registry.lock:
            return [n for n in self.names if n.startswith(f"{subject.algorithm}-{subject.hex}.")]

    def delete_manifest(self, reference: str) -> None:
        self.registry.asked("DELETE manifest")
        with self.registry.lock:
            digest = self._resolve(reference)
            if digest is None or digest not in self.manifests:
                raise NotFound(f"{self.name} has no manifest {reference!r}")
            if _digest(reference):
                del self.manifests[digest]
                self.names = {n: d for n, d in self.names.items() if d != digest}
            else:
                del self.names[reference or "latest"]

    def delete_tag(self, tag: str) -> None:
        self.delete_manifest(tag)

    def tags(self) -> Iterator[str]:
        self.registry.asked("GET tags")
        with self.registry.lock:
            return iter(sorted(self.names))

    def has_blob(self, blob: Descriptor) -> bool:
        self.registry.asked("HEAD blob")
        with self.registry.lock:
            content = self.blobs.get(blob.digest)
        return content is not None and len(content) == blob.size

    def open_blob(self, blob: Descriptor, start: int = 0, stop: int | None = None) -> MemoryReader:
        self.registry.asked("GET blob")
        with self.registry.lock:
            if blob.digest not in self.blobs:
                raise NotFound(f"{self.name} has no blob {blob.digest}")
            return MemoryReader(self.registry, self.blobs[blob.digest], start, stop)

    def begin_blob(
        self, size: int, digest: Digest | None = None, resume: WriterState | None = None
    ) -> MemoryWriter:
        self.registry.asked("POST upload")
        session = self.registry.sessions.get(resume.location) if resume else None
        return MemoryWriter(self, session or self.registry.open_session(), size)

    def mount(self, blob: Descriptor, source: str) -> MountResult:
        try:
            self.registry.asked("POST mount")
        except ConcilError:
            return MountResult(is_mounted=False)
        with self.registry.lock:
            sibling = self.registry.repositories.get(source)
            if sibling is None or blob.digest not in sibling.blobs:
                return MountResult(is_mounted=False)
            self.blobs[blob.digest] = sibling.blobs[blob.digest]
        return MountResult(is_mounted=True)

    def _resolve(self, reference: str) -> Digest | None:
        return _digest(reference) or self.names.get(reference or "latest")


class MemoryReader:
    """A body on its way. One thread at a time."""

    def __init__(self, host: MemoryHost, content: bytes, start: int, stop: int | None) -> None:
        self._host = host
        self._content = content
        self._stop = len(content) if stop is None else stop
        self._breaks = len(content) + 1
        for fault in filter(lambda each: each.left, host.faults):
            begin, end = fault.begins_at(start), fault.read_until(start)
            if begin is not None:
                start, self._stop = begin, len(content)
                fault.left -= 1
            if end is not None:
                self._breaks = end
                fault.left -= 1
        self.start = self._position = start
        self.closed = False

    def readinto(self, buffer: memoryview, /) -> int:
        assert not self.closed, "read after close"
        stop = min(self._stop, self._breaks)
        piece = self._content[self._position : min(stop, self._position + len(buffer))]
        if not piece and self._position == self._breaks:
            raise ConnectionLost(f"the body broke off at byte {self._position}")
        view = buffer[: len(piece)]
        view[:] = piece
        with self._host.lock:
            self._host.served += len(piece)
            for fault in self._host.faults:
                if fault.left and fault.serve(self._position, view):
                    fault.left -= 1
        self._position += len(piece)
        return len(piece)

    def close(self) -> None:
        self.closed = True


class MemoryWriter:
    """An upload in chunks, as strict as the strictest registry. One thread at a time."""

    def __init__(self, store: MemoryStore, session: Session, size: int) -> None:
        self._store = store
        self._host = store.registry
        self._session = session
        self._size = size
        self._uncertain = False
        self.offset = len(session.content)
        self.chunk_size = self._host.chunk_size

    def append(self, body: Body, /) -> None:
        assert not self._uncertain, "append after an error without resync"
        length = len(body)
        expected = min(self.chunk_size, self._size - self.offset)
        assert length == expected, f"a chunk of {length} bytes instead of {expected}"
        self._uncertain = True
        self._host.asked("PATCH upload")
        kept = self._admit(length)
        self._receive(body, length if kept is None else kept)
        if kept is not None:
            raise ConnectionLost(f"the connection broke after {kept} bytes of a chunk")
        self.offset += length
        self._uncertain = False

    def resync(self) -> int:
        self._host.asked("GET upload")
        with self._host.lock:
            if self._session.location not in self._host.sessions:
                self._session = self._host.open_session()
            self.offset = len(self._session.content)
        self._uncertain = False
        return self.offset

    def state(self) -> WriterState | None:
        return WriterState(self._session.location, self.offset, self.chunk_size)

    def commit(self, digest: Digest, /) -> None:
        assert not self._uncertain, "commit after an error without resync"
        self._host.asked("PUT upload")
        with self._host.lock:
            if self._host.sessions.pop(self._session.location, None) is None:
                self._uncertain = True
                raise SessionLost("the upload session is gone")
            content = bytes(self._session.content)
            if Digest.from_bytes(content, digest.algorithm) != digest:
                raise DigestMismatch(f"{self._store.name}: the bytes are not {digest}")
            self._store.blobs[digest] = content
            lost = next((f for f in self._host.faults if f.left and f.commit_lost()), None)
            if lost is not None:
                lost.left -= 1
        if lost is not None:
            self._uncertain = True
            raise ConnectionLost("no answer to the commit")

    def close(self) -> None:
        """Leave the session open."""

    def abort(self) -> None:
        with self._host.lock:
            self._host.sessions.pop(self._session.location, None)

    def _admit(self, length: int) -> int | None:
        """Let faults decide what becomes of the next chunk: None, or the bytes that are kept."""
        with self._host.lock:
            for fault in self._host.faults:
                if fault.left and fault.session_gone(self.offset):
                    fault.left -= 1
                    self._host.sessions.pop(self._session.location, None)
            if self._session.location not in self._host.sessions:
                raise SessionLost("the upload session is gone")
            for fault in self._host.faults:
                kept = fault.kept(self.offset, length) if fault.left else None
                if kept is not None:
                    fault.left -= 1
                    return kept
        return None

    def _receive(self, body: Body, count: int) -> None:
        while count and (piece := body.read(count)):
            with self._host.lock:
                self._session.content += piece
                self._host.received += len(piece)
            count -= len(piece)
        assert count == 0, "the body ended before its length"


def refusal(status: int, text: str) -> StatusError:
    """Return the error that an answer with a status is."""
    response = requests.Response()
    response.status_code = status
    return StatusError(f"{status} {text}", response=response)


def _digest(reference: str) -> Digest | None:
    return Digest.parse(reference) if reference.startswith(("sha256:", "sha512:")) else None
