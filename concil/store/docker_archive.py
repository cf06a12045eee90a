"""What ``docker save`` and ``podman save`` write, as a place that images are read from."""

from __future__ import annotations

import json
import os
import tempfile
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from concil.config import MIB
from concil.content import DOCKER_CONFIG, DOCKER_MANIFEST, Descriptor, Digest, Manifest, Verifier
from concil.errors import (
    Cancelled,
    DigestMismatch,
    InvalidManifest,
    NotFound,
    SizeMismatch,
    StoreError,
    UsageError,
    shown,
)
from concil.reference import DOCKER_ARCHIVE, OCI_ARCHIVE
from concil.store.decompress import GZIP, MAGIC_SIZE, Inflater, Packing, packing_of
from concil.store.docker_manifest import DAMAGED, Image, diff_ids_of, parse_images
from concil.store.files import FileBlob
from concil.store.tar_draft import State
from concil.store.tar_file import TarFile, write_temporary
from concil.store.tar_members import Member

MANIFEST = "manifest.json"
LAYER = "application/vnd.docker.image.rootfs.diff.tar"
CONFIG_LIMIT = 8 * MIB  # bytes
_LIST_LIMIT = 32 * MIB  # bytes of a manifest.json


class DockerArchive:
    """A docker-archive as a source. Any thread may call any method.

    It has no manifests of the kind that registries have; they are made of what it holds,
    always the same for the same archive: schema 2, config and layers as they lie there, but
    for layers packed in a way that registries do not know: those are unpacked.
    A reference is a tag in full, ``@0`` for the first image, a digest, or "": the only image.
    """

    host = ""

    def __init__(self, path: Path, cancel: threading.Event | None = None) -> None:
        """Open an archive.

        Args:
            cancel: ends what takes long.
        Raises:
            NotFound: there is none.
            StoreError, InvalidManifest: it is no such archive, or damaged.
        """
        self.name = f"{DOCKER_ARCHIVE}:{path}"
        self.realm = f"{DOCKER_ARCHIVE}:{os.path.realpath(path)}"
        self._tar = TarFile(path, cancel)
        self._cancel = cancel
        # Guards those below; held while layers are hashed or unpacked.
        self._lock = threading.Lock()
        self._made: dict[int, Manifest] = {}  # by the number of the image
        self._digests: dict[str, list[Digest]] = {}  # of the first manifests, by algorithm
        self._by_digest: dict[Digest, Manifest] = {}
        self._blobs: dict[Digest, Member] = {}
        self._hashed: dict[tuple[Member, Digest], Digest] = {}  # layers in gzip, by diff ID
        self._unpacked: IO[bytes] | None = None  # layers, one behind the other
        self._unpacked_layers: dict[Digest, Member] = {}  # their places in it
        self._tagged: dict[str, list[int]] = {}  # the numbers of images
        try:
            self._images = self._listed()
        except BaseException:  # raised again: nobody else could close it
            self._tar.close()
            raise
        for number, image in enumerate(self._images):
            for tag in dict.fromkeys(image.tags):
                self._tagged.setdefault(tag, []).append(number)

    def find_manifest(self, reference: str) -> Descriptor | None:
        """Ask what is there; None also where several images could be meant.

        Raises:
            StoreError, InvalidManifest: the archive is damaged.
        """
        try:
            return self.get_manifest(reference).descriptor
        except (NotFound, UsageError):
            return None

    def get_manifest(self, reference: str) -> Manifest:
        """Make the manifest of an image.

        Raises:
            NotFound: there is no such image.
            UsageError: several could be meant; it lists them.
            StoreError, InvalidManifest: the archive is damaged.
        """
        if reference.startswith(("sha256:", "sha512:")):
            found = self._find_digest(Digest.parse(reference))
            if found is not None:
                return found
            raise self._missing(reference)
        return self._manifest(self._find(reference))

    def open_blob(self, blob: Descriptor, start: int = 0, stop: int | None = None) -> FileBlob:
        """Open the bytes from ``start`` up to ``stop``, half-open; unverified.

        Raises:
            NotFound: no manifest that was made has it.
            SizeMismatch: it has not the size that the descriptor says.
        """
        with self._lock:
            unpacked = self._unpacked_layers.get(blob.digest)
            member = unpacked or self._blobs.get(blob.digest)
        if member is None:
            raise NotFound(f"{shown(self.name)} has no blob {blob.digest}", remedy=DAMAGED)
        if member.size != blob.size:
            raise SizeMismatch(
                f"{shown(self.name)}@{blob.digest} has {member.size} bytes instead of {blob.size}",
                remedy=DAMAGED,
            )
        if unpacked is None or self._unpacked is None:
            return self._tar.open_member(member).between(start, stop)
        inside = unpacked.offset, unpacked.size
        descriptor = os.dup(self._unpacked.fileno())
        return FileBlob(descriptor, self._tar.path, inside=inside).between(start, stop)

    def blob_size(self, digest: Digest) -> int | None:
        """Bytes of a blob; None: not there. Makes every manifest, to know."""
        for number in range(len(self._images)):
            self._manifest(number)
        with self._lock:
            member = self._unpacked_layers.get(digest) or self._blobs.get(digest)
        return member.size if member is not None else None

    def tags(self) -> Iterator[str]:
        """Yield the tags in full."""
        yield from dict.fromkeys(tag for image in self._images for tag in image.tags)

    @property
    def state(self) -> State | None:
        """What tells this state of the file from another."""
        return self._tar.state

    @property
    def untagged(self) -> int:
        """Images without any tag."""
        return sum(not image.tags for image in self._images)

    def delete_manifest(self, reference: str) -> None:
        """Refuse: an archive is written once.

        Raises:
            UsageError: always.
        """
        raise UsageError(
            f"{shown(self.name)} is not changed in place, so {shown(reference)} stays",
            remedy="copy what you want to keep into a new one",
        )

    def close(self) -> None:
        """Let go of the file."""
        self._tar.close()
        if self._unpacked is not None:
            self._unpacked.close()

    def _find(self, reference: str) -> int:
        """Return the number of an image."""
        if reference.startswith("@"):
            number = int(reference[1:])
            if number >= len(self._images):
                raise NotFound(
                    f"{shown(self.name)} has {len(self._images)} images, no {reference}",
                    remedy="the first one is @0",
                )
            return number
        found: Sequence[int] = range(len(self._images))
        if reference:
            found = self._tagged.get(reference, ())
        if not found:
            raise self._missing(reference)
        if any(self._images[number] != self._images[found[0]] for number in found):
            which = f"several under {shown(reference)}" if reference else f"{len(found)} images"
            raise UsageError(
                f"{shown(self.name)} holds {which}: {self._told()}",
                remedy="name one of them: docker-archive:FILE:TAG, or :@0 for the first",
            )
        return found[0]

    def _find_digest(self, digest: Digest) -> Manifest | None:
        """Return the manifest of a digest; those before it are made and hashed for that, once."""
        known = self._digests.setdefault(digest.algorithm, [])
        found = self._by_digest.get(digest)
        while found is None and len(known) < len(self._images):
            number = len(known)
            manifest = self._manifest(number)
            own = Digest.of(manifest.body, digest.algorithm)
            with self._lock:
                self._by_digest.setdefault(own, manifest)
                if len(known) == number:  # another thread may have come first
                    known.append(own)
            found = self._by_digest.get(digest)
        return found

    def _missing(self, reference: str) -> NotFound:
        what = shown(reference) if reference else "image"
        return NotFound(f"{shown(self.name)} has no {what}", remedy=f"it has {self._told()}")

    def _told(self) -> str:
        names = (image.tags[0] if image.tags else f"@{n}" for n, image in enumerate(self._images))
        return shown(", ".join(names), 400)

    def _manifest(self, number: int) -> Manifest:
        """Make the manifest of an image, once; packed layers have to be hashed for it."""
        with self._lock:
            made = self._made.get(number)
            if made is None:
                made = self._made[number] = self._make(self._images[number])
            return made

    def _make(self, image: Image) -> Manifest:
        config = self._tar.members.get(image.config)
        content = self._tar.read(image.config, CONFIG_LIMIT)
        diff_ids = diff_ids_of(content, f"{shown(image.config)} in {self._tar.subject}")
        if len(diff_ids) != len(image.layers):
            raise InvalidManifest(
                f"{shown(image.config)} in {self._tar.subject} is for {len(diff_ids)} layers, and "
                f"the image has {len(image.layers)}",
                remedy=DAMAGED,
            )
        digest = Digest.of(content)
        self._blobs[digest] = config
        layers = [self._layer(*pair) for pair in zip(image.layers, diff_ids, strict=True)]
        document = {
            "schemaVersion": 2,
            "mediaType": DOCKER_MANIFEST,
            "config": _described(DOCKER_CONFIG, len(content), digest),
            "layers": layers,
        }
        return Manifest.parse(json.dumps(document, separators=(",", ":")).encode())

    def _layer(self, name: str, diff_id: Digest) -> dict[str, Any]:
        """Describe a layer: what is not packed has the digest that the config knows."""
        member = self._tar.members.get(name)
        packing = packing_of(self._tar.start_of(member, MAGIC_SIZE))
        if packing is GZIP:
            digest = self._hash(name, member, diff_id)
            self._blobs[digest] = member
            return _described(f"{LAYER}.gzip", member.size, digest)
        if packing is not None:
            if diff_id not in self._unpacked_layers:
                self._unpacked_layers[diff_id] = self._unpack(name, packing, diff_id)
            return _described(LAYER, self._unpacked_layers[diff_id].size, diff_id)
        self._blobs[diff_id] = member
        return _described(LAYER, member.size, diff_id)

    def _hash(self, name: str, member: Member, diff_id: Digest) -> Digest:
        """Return the digest of a layer in gzip; images share layers."""
        digest = self._hashed.get((member, diff_id))
        if digest is None:
            packed = Verifier()
            for _ in self._decompressed(name, GZIP, diff_id, packed):
                pass  # one that is truncated, or not the layer of the config, is an error here
            digest = self._hashed[member, diff_id] = packed.digest()
        return digest

    def _unpack(self, name: str, packing: Packing, diff_id: Digest) -> Member:
        """Unpack a layer into a file without name; return its place there."""
        if self._unpacked is None:
            self._unpacked = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `close`
        descriptor = self._unpacked.fileno()
        start = size = os.lseek(descriptor, 0, os.SEEK_END)
        for out in self._decompressed(name, packing, diff_id, Verifier()):
            write_temporary(descriptor, out, packing)
            size += len(out)
        return Member(start, size - start)

    def _decompressed(
        self, name: str, packing: Packing, diff_id: Digest, packed: Verifier
    ) -> Iterator[bytes]:
        """Yield the content of a layer, which has to be what the config says.

        Args:
            packed: takes the bytes that are in the archive.
        """
        otherwise = "save the image again without a compression, or with gzip"
        subject = f"layer {name} in {self._tar.path}"
        member, plain = self._tar.members.get(name), Verifier(diff_id.algorithm)
        inflater = Inflater(packing, subject, size=member.size, otherwise=otherwise)
        buffer = memoryview(bytearray(MIB))
        with self._tar.open_member(member) as blob:
            while count := blob.readinto(buffer):
                packed.update(buffer[:count])
                for out in inflater.feed(buffer[:count]):
                    if self._cancel is not None and self._cancel.is_set():
                        raise Cancelled(f"stopped while {subject} was unpacked")
                    plain.update(out)
                    yield out
        inflater.end()
        if plain.digest() != diff_id:
            raise DigestMismatch(
                f"{shown(subject)} is not the one that its config names", remedy=DAMAGED
            )

    def _listed(self) -> list[Image]:
        try:
            body = self._tar.read(MANIFEST, _LIST_LIMIT)
        except NotFound as error:
            remedy = "it holds manifest.json at its top, as docker save writes it"
            if self._tar.members.find("oci-layout") is not None:
                remedy = f"read it as {OCI_ARCHIVE}:FILE"
            raise StoreError(f"not a docker-archive: {error}", remedy=remedy) from error
        return parse_images(body, f"{MANIFEST} in {self._tar.subject}")


def _described(media_type: str, size: int, digest: Digest) -> dict[str, Any]:
    return {"mediaType": media_type, "size": size, "digest": str(digest)}
