"""Writes docker-archives for ``docker load``."""

from __future__ import annotations

import json
import os
import threading
from dataclasses import field
from functools import partial
from pathlib import Path

from concil.errors import DigestMismatch, NotFound, StoreError, UsageError, safe_repr
from concil.fs.path_lock import PathLock
from concil.fs.resume_state import WriterState
from concil.oci.address import DOCKER_ARCHIVE
from concil.oci.descriptor import Descriptor
from concil.oci.manifest import Digest, Manifest
from concil.oci.media_types import DOCKER_CONFIG, OCI_CONFIG
from concil.runtime.dataclass import dataclass
from concil.store.archive.docker_blob_writer import DockerBlobWriter, StoredBlob
from concil.store.archive.docker_manifest import parse_diff_ids
from concil.store.archive.docker_reader import MANIFEST_NAME, MAX_CONFIG_SIZE
from concil.store.archive.tar_builder import (
    StatSignature,
    TarBuilder,
    check_writable,
    concurrent_write_error,
    is_changed,
    remove_stale_files,
    stat_signature,
)
from concil.store.archive.tar_reader import read_all
from concil.store.archive.writer_lock import acquire_lock
from concil.store.base_store import BaseStore

_EXISTS_REMEDY = "remove it, choose another file, or use oci-archive:FILE"
# Seconds to wait for another writer. This one can write the file only if the other fails.
_LOCK_TIMEOUT = 10.0


@dataclass(slots=True)
class _Image:
    """One image of the archive."""

    manifest: Descriptor  # descriptor at the source; the archive does not keep the manifest
    config: str
    layers: list[str]
    tags: dict[str, None] = field(default_factory=dict)  # in the order in which they were added


def already_exists_error(path: Path) -> UsageError:
    """Return the error for a docker-archive that already exists."""
    return UsageError(
        f"{safe_repr(str(path))} already exists, and images cannot be added to a docker-archive",
        remedy=_EXISTS_REMEDY,
    )


class DockerArchiveWriter(BaseStore):
    """A new docker-archive as a destination. Any thread may call any method.

    The archive becomes visible with `commit`. Configs, and with them image IDs, are kept as
    they are. Layers are decompressed. Manifests are not kept, nor are their digests and
    annotations.
    """

    host = ""

    def __init__(self, path: Path) -> None:
        """Prepare to write an archive.

        Raises:
            UsageError: the path cannot be written, or an archive already exists there.
        """
        check_writable(path)
        self.name = f"{DOCKER_ARCHIVE}:{path}"
        self.mount_scope = f"{DOCKER_ARCHIVE}:{os.path.realpath(path)}"
        self._path = path
        self._final_path = Path(os.path.realpath(path))
        self._initial_signature = self._check_absent()
        self._path_lock: PathLock | None = None
        self._lock = threading.Lock()  # guards the fields below
        self._builder: TarBuilder | None = None
        self._is_closed = False  # workers of a failed image may still try to begin blobs
        self._blobs: dict[Digest, StoredBlob] = {}
        self._members: dict[str, StoredBlob] = {}  # by name
        self._images: dict[str, _Image] = {}  # by config name
        self._tagged: dict[str, _Image] = {}  # by tag
        self._copied: dict[str, _Image] = {}  # by digest at the source

    def acquire_lock(self, cancel: threading.Event | None = None) -> None:
        """Lock the file against other writers until `close`, before anything is fetched.

        Raises:
            UsageError: another run is writing the file, or has written it.
            StoreError: the directory is not writable.
        """
        remove_stale_files(self._final_path)
        self._path_lock = acquire_lock(self._final_path, _LOCK_TIMEOUT, cancel)
        if self._path_lock is None:
            raise UsageError(
                f"another process is writing {safe_repr(str(self._path))}, and images cannot be "
                "added to a docker-archive",
                remedy="choose another file, or use oci-archive:FILE",
            )
        try:
            self._initial_signature = self._check_absent()
        except UsageError:
            self.close()
            raise

    def check(self, manifest: Manifest) -> None:
        """Reject an image that a docker-archive cannot hold, before a blob is copied.

        Raises:
            UsageError: it is for several platforms, not a container image, or has layers
                that are not in registries.
        """
        if manifest.is_index:
            platforms = sorted({str(c.platform) for c in manifest.children() if c.platform})
            raise UsageError(
                "an image in a docker-archive has one platform, and this one is for "
                f"{', '.join(platforms) or 'several'}",
                remedy="choose one with platforms=, or copy all to oci-archive:FILE",
            )
        blobs = manifest.blobs()
        if not blobs or blobs[0].media_type not in (DOCKER_CONFIG, OCI_CONFIG):
            raise UsageError(
                f"{safe_repr(manifest.artifact_type)} is not an image that docker can load",
                remedy="copy it to oci-archive:FILE, which can store any artifact",
            )
        foreign = next((blob for blob in blobs if blob.is_foreign), None)
        if foreign is not None:
            raise UsageError(
                f"layer {foreign.digest} is not in the registry, so docker could not load the "
                "image",
                remedy="copy the image to oci-archive:FILE",
            )

    def find_manifest(self, reference: str) -> Descriptor | None:
        """Look up an image that this run has written, by tag or by its digest at the source.

        Raises:
            UsageError: the reference is the number of an image.
        """
        if reference.startswith("@"):
            raise UsageError(
                f"{reference} is not a valid tag for an image in {safe_repr(self.name)}",
                remedy="write docker-archive:FILE:REPOSITORY:TAG",
            )
        with self._lock:
            image = self._tagged.get(reference) or self._copied.get(reference)
        return image.manifest if image is not None else None

    def has_blob(self, blob: Descriptor) -> bool:
        """Return whether this run has written the blob."""
        with self._lock:
            return blob.digest in self._blobs

    def begin_blob(
        self, size: int, digest: Digest | None = None, resume: WriterState | None = None
    ) -> DockerBlobWriter:
        """Begin to write a blob; a write is never resumed.

        Raises:
            UsageError: there is no digest.
            StoreError: the disk is full or the write fails.
        """
        del resume
        if digest is None:
            raise UsageError(
                f"a blob for {safe_repr(self.name)} needs its digest before the first byte",
                remedy="give its digest",
            )
        return DockerBlobWriter(self._get_builder(), size, digest, partial(self._add_blob, digest))

    def put_manifest(self, manifest: Manifest, reference: str) -> None:
        """Add an image under a tag; "" for no tag.

        Raises:
            NotFound: one of its blobs was not written.
            DigestMismatch: a layer differs from the config.
        """
        self.check(manifest)
        config, *layers = [self._find_blob(blob) for blob in manifest.blobs()]
        with self._get_builder().open_region(config.region) as blob:
            subject = f"config of {safe_repr(self.name)}"
            expected = parse_diff_ids(read_all(blob, MAX_CONFIG_SIZE, subject), subject)
        if [layer.diff_id for layer in layers] != expected:
            raise DigestMismatch(
                f"the layers of {manifest.digest} do not match its config",
                remedy="docker could not load it; build the image again",
            )
        image = _Image(manifest.descriptor, config.name, [layer.name for layer in layers])
        with self._lock:
            image = self._images.setdefault(config.name, image)
            self._copied.setdefault(str(image.manifest.digest), image)
            if reference and reference != str(manifest.digest):
                # The tag may belong to another image; move it to this one.
                other = self._tagged.pop(reference, None)
                if other is not None:
                    del other.tags[reference]
                self._tagged[reference] = image
                image.tags[reference] = None

    def commit(self) -> None:
        """Complete the archive and make it visible, if it has an image.

        Raises:
            StoreError: the write fails, or another program wrote the file meanwhile.
        """
        if not self._images:
            return
        document = [
            {"Config": image.config, "RepoTags": list(image.tags) or None, "Layers": image.layers}
            for image in self._images.values()
        ]
        builder = self._get_builder()
        with self._lock:
            self._is_closed = True
        builder.add_file(MANIFEST_NAME, json.dumps(document, separators=(",", ":")).encode())
        if is_changed(self._final_path, self._initial_signature):
            raise concurrent_write_error(self._path, _EXISTS_REMEDY)
        with self._lock:
            self._builder = None
        builder.commit()

    def close(self) -> None:
        """Release the resources; an archive that was not committed is deleted."""
        with self._lock:
            builder, self._builder, self._is_closed = self._builder, None, True
        if builder is not None:
            builder.abort()
        if self._path_lock is not None:
            self._path_lock.release()

    def _check_absent(self) -> StatSignature | None:
        """Return the signature of the file, which may exist but be empty, as mktemp creates it.

        Raises:
            UsageError: an archive, or another file with content, already exists.
        """
        state = stat_signature(self._final_path)
        if state is not None and state[1]:
            raise already_exists_error(self._path)
        return state

    def _get_builder(self) -> TarBuilder:
        with self._lock:
            if self._is_closed:
                raise StoreError(f"{safe_repr(self.name)} is closed")
            if self._builder is None:
                self._builder = TarBuilder(self._path)
            return self._builder

    def _add_blob(self, digest: Digest, stored: StoredBlob) -> None:
        with self._lock:
            # Two gzips may hold one layer, and blobs of a failed image may come after `commit`.
            stored.region.is_complete = stored.name not in self._members and not self._is_closed
            self._blobs[digest] = self._members.setdefault(stored.name, stored)

    def _find_blob(self, blob: Descriptor) -> StoredBlob:
        with self._lock:
            stored = self._blobs.get(blob.digest)
        if stored is None:
            raise NotFound(
                f"{safe_repr(self.name)} has no blob {blob.digest}",
                remedy="try again",
            )
        return stored
