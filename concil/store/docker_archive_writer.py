"""A docker-archive as a place that images are written to: what ``docker load`` takes."""

from __future__ import annotations

import json
import os
import threading
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from concil.content import DOCKER_CONFIG, OCI_CONFIG, Descriptor, Digest, Manifest
from concil.errors import DigestMismatch, NotFound, StoreError, UsageError, shown
from concil.fs.path_lock import PathLock
from concil.reference import DOCKER_ARCHIVE
from concil.store.archive_lock import acquire
from concil.store.docker_archive import CONFIG_LIMIT, MANIFEST
from concil.store.docker_blob import DockerBlobWriter, Stored
from concil.store.docker_manifest import diff_ids_of
from concil.store.protocol import WriterState
from concil.store.tar_draft import (
    Draft,
    State,
    changed_meanwhile,
    check_place,
    is_changed,
    state_of,
    sweep,
)
from concil.store.tar_file import whole

_TAKEN = "remove it, name another file, or use oci-archive:FILE"
# Seconds to wait for another writer. Only if it fails can this one write to the same file.
_LOCK_WAIT = 10.0


@dataclass(slots=True)
class _Image:
    """One image of the archive."""

    manifest: Descriptor  # as it was at its source; the archive does not keep it
    config: str
    layers: list[str]
    tags: dict[str, None] = field(default_factory=dict)  # in the order in which they came


def is_taken(path: Path) -> UsageError:
    """What is said of a docker-archive that is there already."""
    return UsageError(
        f"{shown(str(path))} is there already, and a docker-archive is not added to",
        remedy=_TAKEN,
    )


class DockerArchiveWriter:
    """A new docker-archive as a destination. Any thread may call any method.

    The archive appears with `finish`. Configs stay as they are, and with them the ID of
    an image; layers are unpacked, and manifests with their digests and annotations are
    not kept.
    """

    host = ""

    def __init__(self, path: Path) -> None:
        """Begin an archive.

        Raises:
            UsageError: it cannot be written there, or one is there already.
        """
        check_place(path)
        self.name = f"{DOCKER_ARCHIVE}:{path}"
        self.realm = f"{DOCKER_ARCHIVE}:{os.path.realpath(path)}"
        self._path = path
        self._final = Path(os.path.realpath(path))
        self._before = self._checked()
        self._writing: PathLock | None = None
        self._lock = threading.Lock()  # guards the fields below
        self._draft: Draft | None = None
        self._over = False  # blobs of an image that failed may still want to begin
        self._blobs: dict[Digest, Stored] = {}
        self._members: dict[str, Stored] = {}  # by name
        self._images: dict[str, _Image] = {}  # by the name of the config
        self._tagged: dict[str, _Image] = {}  # by tag
        self._copied: dict[str, _Image] = {}  # by the digest at the source

    def claim(self, cancel: threading.Event | None = None) -> None:
        """Keep every other writer from the file until `close`, before anything is fetched for it.

        Raises:
            UsageError: another run is writing it, or has written it.
            StoreError: the directory does not take the file.
        """
        sweep(self._final)
        self._writing = acquire(self._final, _LOCK_WAIT, cancel)
        if self._writing is None:
            raise UsageError(
                f"another process is writing {shown(str(self._path))}, and a docker-archive is "
                "not added to",
                remedy="name another file, or use oci-archive:FILE",
            )
        try:
            self._before = self._checked()
        except UsageError:
            self.close()
            raise

    def check(self, manifest: Manifest) -> None:
        """Refuse an image that such an archive cannot hold, before a blob moves.

        Raises:
            UsageError: it is for several platforms, no image of containers, or has layers
                that are not in registries.
        """
        if manifest.is_index:
            there = sorted({str(c.platform) for c in manifest.children() if c.platform})
            raise UsageError(
                "a docker-archive holds images of one platform, and this one is for "
                f"{', '.join(there) or 'several'}",
                remedy="choose one with platforms=, or copy all to oci-archive:FILE",
            )
        blobs = manifest.blobs()
        if not blobs or blobs[0].media_type not in (DOCKER_CONFIG, OCI_CONFIG):
            raise UsageError(
                f"{shown(manifest.artifact_type)} is no image that docker could load",
                remedy="copy it to oci-archive:FILE, which holds anything",
            )
        foreign = next((blob for blob in blobs if blob.is_foreign), None)
        if foreign is not None:
            raise UsageError(
                f"layer {foreign.digest} is not in the registry, so docker could not load it",
                remedy="copy the image to oci-archive:FILE",
            )

    def find_manifest(self, reference: str) -> Descriptor | None:
        """Ask what this run has put there, by tag or by the digest at the source.

        Raises:
            UsageError: it is the number of an image.
        """
        if reference.startswith("@"):
            raise UsageError(
                f"{reference} is no tag for an image of {shown(self.name)}",
                remedy="write docker-archive:FILE:REPOSITORY:TAG",
            )
        with self._lock:
            image = self._tagged.get(reference) or self._copied.get(reference)
        return image.manifest if image is not None else None

    def has_blob(self, blob: Descriptor) -> bool:
        """Whether this run has put it there."""
        with self._lock:
            return blob.digest in self._blobs

    def begin_blob(
        self, size: int, digest: Digest | None = None, resume: WriterState | None = None
    ) -> DockerBlobWriter:
        """Begin to write a blob; there is never one to go on with.

        Raises:
            UsageError: there is no digest.
            StoreError: the disk is full or refuses.
        """
        del resume
        if digest is None:
            raise UsageError(
                f"a blob for {shown(self.name)} needs its digest before the first byte",
                remedy="hash the file first",
            )
        return DockerBlobWriter(self._growing(), size, digest, partial(self._landed, digest))

    def put_manifest(self, manifest: Manifest, reference: str) -> None:
        """Add an image under a tag; "" for none.

        Raises:
            NotFound: a blob of it was not written.
            DigestMismatch: a layer is not what the config says.
        """
        self.check(manifest)
        config, *layers = [self._stored(blob) for blob in manifest.blobs()]
        with self._growing().open(config.region) as blob:
            subject = f"config of {shown(self.name)}"
            expected = diff_ids_of(whole(blob, CONFIG_LIMIT, subject), subject)
        if [layer.plain for layer in layers] != expected:
            raise DigestMismatch(
                f"the layers of {manifest.digest} are not those that its config names",
                remedy="docker would not load it; build the image again",
            )
        image = _Image(manifest.descriptor, config.name, [layer.name for layer in layers])
        with self._lock:
            image = self._images.setdefault(config.name, image)
            self._copied.setdefault(str(image.manifest.digest), image)
            if reference and reference != str(manifest.digest):
                # A tag that another image had goes over to this one.
                other = self._tagged.pop(reference, None)
                if other is not None:
                    del other.tags[reference]
                self._tagged[reference] = image
                image.tags[reference] = None

    def finish(self) -> None:
        """Let the archive appear, if there is an image for it.

        Raises:
            StoreError: the disk refuses, or somebody else wrote the file meanwhile.
        """
        if not self._images:
            return
        document = [
            {"Config": image.config, "RepoTags": list(image.tags) or None, "Layers": image.layers}
            for image in self._images.values()
        ]
        draft = self._growing()
        with self._lock:
            self._over = True
        draft.add(MANIFEST, json.dumps(document, separators=(",", ":")).encode())
        if is_changed(self._final, self._before):
            raise changed_meanwhile(self._path, _TAKEN)
        with self._lock:
            self._draft = None
        draft.commit()

    def close(self) -> None:
        """Let go; what is not finished is thrown away."""
        with self._lock:
            draft, self._draft, self._over = self._draft, None, True
        if draft is not None:
            draft.discard()
        if self._writing is not None:
            self._writing.release()

    def _checked(self) -> State | None:
        """Return the state of the file; it may be there without content, as mktemp makes it.

        Raises:
            UsageError: there is an archive, or something else.
        """
        state = state_of(self._final)
        if state is not None and state[1]:
            raise is_taken(self._path)
        return state

    def _growing(self) -> Draft:
        with self._lock:
            if self._over:
                raise StoreError(f"{shown(self.name)} is closed")
            if self._draft is None:
                self._draft = Draft(self._path)
            return self._draft

    def _landed(self, digest: Digest, stored: Stored) -> None:
        with self._lock:
            # Two gzips may be of one layer; what comes after the end is of a failed image.
            stored.region.whole = stored.name not in self._members and not self._over
            self._blobs[digest] = self._members.setdefault(stored.name, stored)

    def _stored(self, blob: Descriptor) -> Stored:
        with self._lock:
            stored = self._blobs.get(blob.digest)
        if stored is None:
            raise NotFound(f"{shown(self.name)} has no blob {blob.digest}", remedy="run it again")
        return stored
