"""Reads docker-archives: what ``docker save`` and ``podman save`` write."""

from __future__ import annotations

import json
import os
import tempfile
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from concil.config import MIB
from concil.errors import (
    Cancelled,
    DigestMismatch,
    InvalidManifest,
    NotFound,
    SizeMismatch,
    StoreError,
    UsageError,
    safe_repr,
)
from concil.fs.local_file import FileBlobReader
from concil.oci.address import DOCKER_ARCHIVE, OCI_ARCHIVE
from concil.oci.descriptor import Descriptor
from concil.oci.manifest import Digest, Manifest, Verifier
from concil.oci.media_types import DOCKER_CONFIG, DOCKER_MANIFEST
from concil.store.archive.decompress import (
    GZIP_MAGIC,
    MAGIC_SIZE,
    BoundedDecompressor,
    Compression,
    detect_compression,
)
from concil.store.archive.docker_manifest import DAMAGED, Image, parse_diff_ids, parse_images
from concil.store.archive.tar_builder import StatSignature
from concil.store.archive.tar_headers import Member
from concil.store.archive.tar_reader import TarReader, write_temporary
from concil.store.base_store import BaseStore

MANIFEST_NAME = "manifest.json"
LAYER_MEDIA_TYPE = "application/vnd.docker.image.rootfs.diff.tar"
MAX_CONFIG_SIZE = 8 * MIB  # bytes
_MAX_MANIFEST_SIZE = 32 * MIB  # bytes of a manifest.json


class DockerArchiveReader(BaseStore):
    """A docker-archive as a source. Any thread may call any method.

    The archive has no registry manifests, so they are built from its content. The result is
    always the same for the same archive: schema 2, with the config and layers as they are
    stored. Only layers in a compression that registries do not support are decompressed.
    A reference is a full tag, ``@0`` for the first image, a digest, or "" for the only image.
    """

    host = ""

    def __init__(self, path: Path, cancel: threading.Event | None = None) -> None:
        """Open an archive.

        Args:
            cancel: stops long operations.
        Raises:
            NotFound: there is no archive.
            StoreError, InvalidManifest: it is not a docker-archive, or damaged.
        """
        self.name = f"{DOCKER_ARCHIVE}:{path}"
        self.mount_scope = f"{DOCKER_ARCHIVE}:{os.path.realpath(path)}"
        self._tar = TarReader(path, cancel)
        self._cancel = cancel
        # Guards the fields below; held while layers are hashed or decompressed.
        self._lock = threading.Lock()
        self._manifests: dict[int, Manifest] = {}  # by image number
        self._digests: dict[str, list[Digest]] = {}  # of the first manifests, by algorithm
        self._by_digest: dict[Digest, Manifest] = {}
        self._blobs: dict[Digest, Member] = {}
        self._hashed: dict[tuple[Member, Digest], Digest] = {}  # gzip layers
        self._decompressed_file: IO[bytes] | None = None  # decompressed layers, one after the other
        self._decompressed_layers: dict[Digest, Member] = {}  # their positions in that file
        self._tagged: dict[str, list[int]] = {}  # image numbers by tag
        try:
            self._images = self._read_images()
        except BaseException:  # raised again: no caller could close the archive
            self._tar.close()
            raise
        for number, image in enumerate(self._images):
            for tag in dict.fromkeys(image.tags):
                self._tagged.setdefault(tag, []).append(number)

    def find_manifest(self, reference: str) -> Descriptor | None:
        """Look up an image; return None also if the reference is ambiguous.

        Raises:
            StoreError, InvalidManifest: the archive is damaged.
        """
        try:
            return self.get_manifest(reference).descriptor
        except (NotFound, UsageError):
            return None

    def get_manifest(self, reference: str) -> Manifest:
        """Return the manifest that is built for an image.

        Raises:
            NotFound: there is no such image.
            UsageError: the reference is ambiguous; the message lists the images.
            StoreError, InvalidManifest: the archive is damaged.
        """
        if reference.startswith(("sha256:", "sha512:")):
            manifest = self._find_digest(Digest.parse(reference))
            if manifest is not None:
                return manifest
            raise self._not_found_error(reference)
        return self._get_manifest(self._find_image(reference))

    def open_blob(
        self, blob: Descriptor, start: int = 0, stop: int | None = None
    ) -> FileBlobReader:
        """Open the bytes from ``start`` up to ``stop``, half-open; they are not verified.

        Raises:
            NotFound: the blob is in no manifest that was built so far.
            SizeMismatch: its size differs from the descriptor.
        """
        with self._lock:
            unpacked = self._decompressed_layers.get(blob.digest)
            member = unpacked or self._blobs.get(blob.digest)
        if member is None:
            raise NotFound(f"{safe_repr(self.name)} has no blob {blob.digest}", remedy=DAMAGED)
        if member.size != blob.size:
            raise SizeMismatch(
                f"{safe_repr(self.name)}@{blob.digest} has {member.size} bytes instead of "
                f"{blob.size}",
                remedy=DAMAGED,
            )
        if unpacked is None or self._decompressed_file is None:
            return self._tar.open_member(member).set_range(start, stop)
        section = unpacked.offset, unpacked.size
        descriptor = os.dup(self._decompressed_file.fileno())
        return FileBlobReader(descriptor, self._tar.path, section=section).set_range(start, stop)

    def blob_size(self, digest: Digest) -> int | None:
        """Return the size of a blob in bytes, None if it is missing. Builds every manifest."""
        for number in range(len(self._images)):
            self._get_manifest(number)
        with self._lock:
            member = self._decompressed_layers.get(digest) or self._blobs.get(digest)
        return member.size if member is not None else None

    def tags(self) -> Iterator[str]:
        """Yield the full tags."""
        yield from dict.fromkeys(tag for image in self._images for tag in image.tags)

    @property
    def stat_signature(self) -> StatSignature | None:
        """Signature of the opened file, to detect changes."""
        return self._tar.stat_signature

    @property
    def untagged_count(self) -> int:
        """Number of images without a tag."""
        return sum(not image.tags for image in self._images)

    def delete_manifest(self, reference: str) -> None:
        """Raise UsageError: an archive is never changed in place.

        Raises:
            UsageError: always.
        """
        raise UsageError(
            f"{safe_repr(self.name)} cannot be changed in place, so {safe_repr(reference)} "
            "cannot be deleted",
            remedy="copy the images that you want to keep to a new archive",
        )

    def close(self) -> None:
        """Close the file."""
        self._tar.close()
        if self._decompressed_file is not None:
            self._decompressed_file.close()

    def _find_image(self, reference: str) -> int:
        """Return the number of the image that a reference names."""
        if reference.startswith("@"):
            number = int(reference[1:])
            if number >= len(self._images):
                raise NotFound(
                    f"{safe_repr(self.name)} has {len(self._images)} images, and not {reference}",
                    remedy="the first one is @0",
                )
            return number
        numbers: Sequence[int] = range(len(self._images))
        if reference:
            numbers = self._tagged.get(reference, ())
        if not numbers:
            raise self._not_found_error(reference)
        if any(self._images[number] != self._images[numbers[0]] for number in numbers):
            which = (
                f"several images named {safe_repr(reference)}"
                if reference
                else f"{len(numbers)} images"
            )
            raise UsageError(
                f"{safe_repr(self.name)} contains {which}: {self._format_names()}",
                remedy="choose one of them: docker-archive:FILE:TAG, or :@0 for the first",
            )
        return numbers[0]

    def _find_digest(self, digest: Digest) -> Manifest | None:
        """Return the manifest with a digest; builds and hashes the manifests before it once."""
        digests = self._digests.setdefault(digest.algorithm, [])
        result = self._by_digest.get(digest)
        while result is None and len(digests) < len(self._images):
            number = len(digests)
            manifest = self._get_manifest(number)
            manifest_digest = Digest.from_bytes(manifest.body, digest.algorithm)
            with self._lock:
                self._by_digest.setdefault(manifest_digest, manifest)
                if len(digests) == number:  # another thread may have come first
                    digests.append(manifest_digest)
            result = self._by_digest.get(digest)
        return result

    def _not_found_error(self, reference: str) -> NotFound:
        what = safe_repr(reference) if reference else "image"
        return NotFound(
            f"{safe_repr(self.name)} has no {what}", remedy=f"it contains {self._format_names()}"
        )

    def _format_names(self) -> str:
        names = (image.tags[0] if image.tags else f"@{n}" for n, image in enumerate(self._images))
        return safe_repr(", ".join(names), 400)

    def _get_manifest(self, number: int) -> Manifest:
        """Return the manifest of an image, built once; compressed layers are hashed for that."""
        with self._lock:
            manifest = self._manifests.get(number)
            if manifest is None:
                manifest = self._manifests[number] = self._build_manifest(self._images[number])
            return manifest

    def _build_manifest(self, image: Image) -> Manifest:
        config = self._tar.members.get(image.config)
        content = self._tar.read(image.config, MAX_CONFIG_SIZE)
        diff_ids = parse_diff_ids(content, f"{safe_repr(image.config)} in {self._tar.display_name}")
        if len(diff_ids) != len(image.layers):
            raise InvalidManifest(
                f"{safe_repr(image.config)} in {self._tar.display_name} lists {len(diff_ids)} "
                f"layers, and the image has {len(image.layers)}",
                remedy=DAMAGED,
            )
        digest = Digest.from_bytes(content)
        self._blobs[digest] = config
        layers = [self._describe_layer(*pair) for pair in zip(image.layers, diff_ids, strict=True)]
        document = {
            "schemaVersion": 2,
            "mediaType": DOCKER_MANIFEST,
            "config": _descriptor_json(DOCKER_CONFIG, len(content), digest),
            "layers": layers,
        }
        return Manifest.parse(json.dumps(document, separators=(",", ":")).encode())

    def _describe_layer(self, name: str, diff_id: Digest) -> dict[str, Any]:
        """Return the descriptor of a layer; an uncompressed layer has its diff ID as digest."""
        member = self._tar.members.get(name)
        compression = detect_compression(self._tar.read_start(member, MAGIC_SIZE))
        if compression is GZIP_MAGIC:
            digest = self._hash_member(name, member, diff_id)
            self._blobs[digest] = member
            return _descriptor_json(f"{LAYER_MEDIA_TYPE}.gzip", member.size, digest)
        if compression is not None:
            if diff_id not in self._decompressed_layers:
                self._decompressed_layers[diff_id] = self._decompress_layer(
                    name, compression, diff_id
                )
            return _descriptor_json(
                LAYER_MEDIA_TYPE, self._decompressed_layers[diff_id].size, diff_id
            )
        self._blobs[diff_id] = member
        return _descriptor_json(LAYER_MEDIA_TYPE, member.size, diff_id)

    def _hash_member(self, name: str, member: Member, diff_id: Digest) -> Digest:
        """Return the digest of a gzip layer, cached because images share layers."""
        digest = self._hashed.get((member, diff_id))
        if digest is None:
            packed = Verifier()
            for _ in self._decompressed(name, GZIP_MAGIC, diff_id, packed):
                pass  # raises an error if the layer is truncated or differs from the config
            digest = self._hashed[member, diff_id] = packed.digest()
        return digest

    def _decompress_layer(self, name: str, compression: Compression, diff_id: Digest) -> Member:
        """Decompress a layer into an unnamed file; return its position there."""
        if self._decompressed_file is None:
            self._decompressed_file = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `close`
        descriptor = self._decompressed_file.fileno()
        start = size = os.lseek(descriptor, 0, os.SEEK_END)
        for out in self._decompressed(name, compression, diff_id, Verifier()):
            write_temporary(descriptor, out, compression)
            size += len(out)
        return Member(start, size - start)

    def _decompressed(
        self, name: str, packing: Compression, diff_id: Digest, packed: Verifier
    ) -> Iterator[bytes]:
        """Yield the decompressed content of a layer and check its diff ID.

        Args:
            packed: is updated with the compressed bytes.
        """
        remedy = "save the image again without compression, or with gzip"
        subject = f"layer {name} in {self._tar.path}"
        member, verifier = self._tar.members.get(name), Verifier(diff_id.algorithm)
        decompressor = BoundedDecompressor(packing, subject, size=member.size, remedy=remedy)
        buffer = memoryview(bytearray(MIB))
        with self._tar.open_member(member) as blob:
            while count := blob.readinto(buffer):
                packed.update(buffer[:count])
                for out in decompressor.feed(buffer[:count]):
                    if self._cancel is not None and self._cancel.is_set():
                        raise Cancelled(f"stopped while {subject} was decompressed")
                    verifier.update(out)
                    yield out
        decompressor.check_complete()
        if verifier.digest() != diff_id:
            raise DigestMismatch(
                f"{safe_repr(subject)} does not match its diff ID in the config", remedy=DAMAGED
            )

    def _read_images(self) -> list[Image]:
        try:
            body = self._tar.read(MANIFEST_NAME, _MAX_MANIFEST_SIZE)
        except NotFound as error:
            remedy = (
                "a docker-archive has a manifest.json at its top level, as docker save writes it"
            )
            if self._tar.members.find("oci-layout") is not None:
                remedy = f"read it as {OCI_ARCHIVE}:FILE"
            raise StoreError(f"not a docker-archive: {error}", remedy=remedy) from error
        return parse_images(body, f"{MANIFEST_NAME} in {self._tar.display_name}")


def _descriptor_json(media_type: str, size: int, digest: Digest) -> dict[str, Any]:
    return {"mediaType": media_type, "size": size, "digest": str(digest)}
