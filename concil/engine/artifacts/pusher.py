"""Pushes files as an artifact."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import field, replace
from pathlib import Path

from concil.engine.artifacts.files import ArtifactFile
from concil.engine.artifacts.pack import packed_directory
from concil.engine.blobs.open_file import start_push_open_file
from concil.engine.file_blobs import FileBlobTransfers
from concil.engine.store_factory import DestinationStore
from concil.errors import UsageError
from concil.fs.local_file import LocalFile
from concil.oci.artifact import (
    EMPTY_BLOB,
    UNKNOWN_CONFIG,
    build_manifest,
    check_annotations,
    check_media_type,
    layer_descriptor,
)
from concil.oci.descriptor import Descriptor
from concil.oci.digest import Digest
from concil.oci.manifest import Manifest
from concil.oci.media_types import OCI_EMPTY, UNKNOWN_ARTIFACT
from concil.runtime.dataclass import dataclass
from concil.transfer.blob.memory import memory_source
from concil.transfer.context import TransferContext
from concil.transfer.worker_pool import wait_for

EMPTY_CONFIG_FILE = ArtifactFile(EMPTY_BLOB, "config", OCI_EMPTY)


@dataclass(frozen=True, slots=True)
class PushedArtifact:
    """The result of `Engine.push_files` and `Engine.attach`."""

    descriptor: Descriptor  # of the manifest
    artifact_type: str
    files: tuple[Descriptor, ...]  # of the files, in order; each has its title as annotation


@dataclass(frozen=True, slots=True)
class ArtifactOptions:
    """What a manifest says of an artifact besides its files."""

    artifact_type: str = ""  # "": that of an unknown artifact
    annotations: Mapping[str, str] = field(default_factory=dict)
    subject: Descriptor | None = None  # the manifest to which it is attached
    config: ArtifactFile | None = None  # None: the empty config

    def __post_init__(self) -> None:
        """Check the fields, before anything is uploaded.

        Raises:
            UsageError: the artifact type or an annotation is invalid.
        """
        check_media_type("artifact type", self.artifact_type or UNKNOWN_ARTIFACT)
        check_annotations(self.annotations)
        if self.config is not None and self.config.path is not None and self.config.path.is_dir():
            raise UsageError(f"the config {self.config.path} is a directory", remedy="give a file")


@dataclass(frozen=True, slots=True)
class ArtifactPusher:
    """Pushes artifacts. Any thread but a worker may call `push`."""

    blobs: FileBlobTransfers
    context: TransferContext = field(repr=False)

    def push(
        self,
        files: Sequence[ArtifactFile],
        store: DestinationStore,
        reference: str,
        options: ArtifactOptions,
    ) -> PushedArtifact:
        """Upload all files, then the manifest.

        Args:
            reference: tag, or "" to write the manifest by its digest only.
        """
        with contextlib.ExitStack() as stack:
            uploads = [self._start(file, store, stack) for file in files]
            chosen = options.config or EMPTY_CONFIG_FILE
            config, _ = self._start(chosen, store, stack)
            layers = []
            for file, (upload, content_digest) in zip(files, uploads, strict=True):
                blob = wait_for(upload, self.context.cancel)
                layer = layer_descriptor(
                    blob, file.title, file.media_type, content_digest=content_digest
                )
                annotations = {**layer.annotations, **file.annotations}
                layers.append(replace(layer, annotations=dict(sorted(annotations.items()))))
            config_blob = wait_for(config, self.context.cancel)
        manifest = build_manifest(
            layers,
            artifact_type=options.artifact_type,
            annotations=options.annotations,
            subject=options.subject,
            config=replace(
                config_blob,
                media_type=chosen.media_type or UNKNOWN_CONFIG,
                annotations=dict(sorted(chosen.annotations.items())),
            ),
        )
        put_manifest(store, manifest, reference)
        return PushedArtifact(manifest.descriptor, manifest.artifact_type, tuple(layers))

    def _start(
        self, file: ArtifactFile, store: DestinationStore, stack: contextlib.ExitStack
    ) -> tuple[Future[Descriptor], Digest | None]:
        """Start the upload of a file; return its future, and the digest of a directory's tar."""
        content = file.content
        if isinstance(content, str | os.PathLike):
            path = Path(content)
            if not path.is_dir():
                return self.blobs.start_push(LocalFile(path), store), None
            packing = packed_directory(path, file.title, self.context.cancel)
            packed = stack.enter_context(packing)
            return self.blobs.start_push_source(packed.source, store), packed.content_digest
        if isinstance(content, bytes | bytearray | memoryview):
            digest = Digest.from_bytes(bytes(content))
            source = memory_source(content, file.title, digest=digest)
            return self.blobs.start_push_source(source, store), None
        return start_push_open_file(self.blobs, content, store, file.title), None


def put_manifest(store: DestinationStore, manifest: Manifest, reference: str) -> None:
    """Write a manifest under a tag, or by its digest if ``reference`` is ""."""
    store.check(manifest)
    store.put_manifest(manifest, reference or str(manifest.digest))
