"""BlobMethods: the methods of Engine for single blobs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TypeAlias

from concil.engine import layer
from concil.engine.blobs.blob_file import BlobFile, open_blob_file
from concil.engine.blobs.blob_stream import SupportsWrite, write_blob, write_function
from concil.engine.blobs.open_file import start_push_open_file
from concil.engine.components import EngineComponents
from concil.engine.file_blobs import check_digest, find_blob
from concil.errors import NotFound, RegistryError, UsageError
from concil.fs.local_file import LocalFile, check_writable
from concil.oci.address import LayoutAddress, parse_address
from concil.oci.descriptor import Descriptor
from concil.oci.digest import Digest
from concil.progress.events import Meter, report_transfer
from concil.runtime import arguments
from concil.runtime.cancellation import SupportsIsSet, call_scope
from concil.transfer.blob.memory import memory_source
from concil.transfer.blob.stream import SupportsRead
from concil.transfer.worker_pool import wait_for

BlobContent: TypeAlias = str | os.PathLike[str] | bytes | bytearray | memoryview | SupportsRead


class BlobMethods:
    """Pushes, pulls, opens, mounts and deletes blobs; a base class of `Engine`."""

    _components: EngineComponents

    def push_blob(
        self,
        content: BlobContent,
        repository: str,
        *,
        digest: Digest | str | None = None,
        cancel: SupportsIsSet | None = None,
    ) -> Descriptor:
        """Upload a local file, bytes or a stream as a blob.

        Args:
            content: the path of a file; the bytes; or a binary stream, such as a pipe, which is
                read once from its current position and sent by chunks while it is read. Only the
                upload of a file can be resumed by another process: of a path, or of a file object
                of which nothing was read.
            repository: ``[docker://|http://]host[:port]/name``.
            digest: expected digest, which is always verified; None: compute it. In that case
                a file that was pushed before and has not changed is not read if the registry
                has the blob.
            cancel: when set, cancels this call only.
        Returns:
            A descriptor of the blob, of type application/octet-stream.
        Raises:
            UsageError: the file does not exist, the stream is empty, or the address is not of a
                registry.
            DigestMismatch, FileChanged: nothing was committed.
            SessionLost: the registry lost bytes of a stream, which cannot be read again.
            StoreError: a stream cannot be read (OSError); nothing was committed.
            Cancelled: the call was cancelled; push a file again to resume.
            Exception: what ``read`` of the stream raised; nothing was committed.
        """
        name = arguments.check_str("repository", repository)
        expected_digest = None if digest is None else Digest.from_argument("digest", digest)
        blobs = self._components.file_blobs
        with call_scope(cancel):
            if isinstance(content, bytes | bytearray | memoryview):
                algorithm = "sha256" if expected_digest is None else expected_digest.algorithm
                actual = Digest.from_bytes(bytes(content), algorithm)
                check_digest(actual, expected_digest, "the content")
                store = self._components.image_resolver.open_repository(name)
                upload = blobs.start_push_source(
                    memory_source(content, str(actual), digest=actual), store
                )
            elif isinstance(content, SupportsRead):
                store = self._components.image_resolver.open_repository(name)
                upload = start_push_open_file(
                    blobs, content, store, stream_name(content), expected_digest
                )
            else:
                expected = "a path, bytes or a binary stream"
                file = LocalFile(
                    arguments.check_instance("content", content, (str, os.PathLike), expected)
                )
                store = self._components.image_resolver.open_repository(name)
                upload = blobs.start_push(file, store, expected_digest)
            return wait_for(upload, self._components.transfer_context.cancel)

    def pull_blob(
        self,
        address: str,
        target: str | os.PathLike[str] | SupportsWrite,
        *,
        cancel: SupportsIsSet | None = None,
    ) -> Descriptor:
        """Download a blob into a local file by parallel ranges, verified before it appears.

        Args:
            address: ``[docker://|http://]host[:port]/name@digest``.
            target: the path of a file; or a binary stream, such as a pipe, which gets the bytes
                in order. Its last block is written after the whole blob was verified. What its
                ``write`` raises is raised by the call.
            cancel: when set, cancels this call only.
        Raises:
            UsageError: the address has no digest, or the path is a directory.
            NotFound, DigestMismatch, StoreError: no file was created.
            Cancelled: the call was cancelled; pull again to resume.
        """
        components = self._components
        reference = parse_address(address)
        if reference.digest is None:
            raise UsageError(f"{address} has no digest", remedy="write REPOSITORY@sha256:...")
        with call_scope(cancel):
            store = components.image_resolver.open_source(reference)
            if not isinstance(target, SupportsWrite):
                expected = "a path or a binary stream"
                arguments.check_instance("target", target, (str, os.PathLike), expected)
                path = check_writable(Path(target))
                return components.file_blobs.pull(store, reference, path)
            blob = find_blob(store, reference)
            meter = Meter(
                components.progress,
                kind="blob",
                subject=str(blob.digest),
                target=stream_name(target),
                total=blob.size,
            )
            with report_transfer(meter, blob.size):
                context = components.transfer_context
                write_blob(store, blob, write_function(target, context.cancel), context, meter)
            return blob

    def open_blob(self, address: str) -> BlobFile:
        """Open a blob as a binary file that can be read and sought; the caller closes it.

        Only the parts that are read are requested, by ranges. Read from its first to its last
        byte, it is verified on the way: its last block is returned only if the digest is right.
        After a seek, `BlobFile.verify` checks all bytes that were returned. One thread at a time.

        Args:
            address: ``[docker://|http://]host[:port]/name@digest`` or ``oci:DIR@digest``.
        Raises:
            NotFound, UsageError: there is no such blob, or the address has no digest.
        """
        reference = parse_address(arguments.check_str("address", address))
        store = self._components.image_resolver.open_source(reference)
        return open_blob_file(store, find_blob(store, reference), self._components.transfer_context)

    def delete_blob(self, address: str) -> None:
        """Delete a blob from a repository.

        Args:
            address: ``[docker://|http://]host[:port]/name@digest``.
        Raises:
            NotFound: the repository does not have it.
            UsageError: the address has no digest, or is not of a registry.
            StatusError: the registry does not support it; many do not.
        """
        reference = parse_address(arguments.check_str("address", address))
        if reference.digest is None:
            raise UsageError(f"{address} has no digest", remedy="write REPOSITORY@sha256:...")
        store = self._components.image_resolver.open_repository(address)
        with call_scope(None):
            if store.blob_size(reference.digest) is None:
                raise NotFound(
                    f"{address} does not exist", remedy="check the repository and digest"
                )
            store.client.delete_blob(reference.digest)

    def mount_blob(self, address: str, repository: str) -> Descriptor:
        """Mount a blob into another repository of the same registry, without moving its bytes.

        Args:
            address: ``[docker://|http://]host[:port]/name@digest``.
            repository: ``[docker://|http://]host[:port]/name``.
        Raises:
            NotFound: the repository does not have the blob.
            RegistryError: the registry did not mount it.
            UsageError: the repositories are of two registries, or one is not of a registry.
        """
        source = parse_address(arguments.check_str("address", address))
        if isinstance(source, LayoutAddress):
            raise UsageError(f"{address} is not a registry", remedy="write host[:port]/repository")
        store = self._components.image_resolver.open_repository(
            arguments.check_str("repository", repository)
        )
        with call_scope(None):
            origin = self._components.image_resolver.open_source(source)
            if origin.host != store.host:
                raise UsageError(
                    f"{origin.host} and {store.host} are two registries",
                    remedy="a blob can be mounted within one registry only; copy the image",
                )
            blob = find_blob(origin, source)
            result = store.mount(blob, source.repository)
            if result.writer is not None:
                result.writer.abort()
            if not result.is_mounted:
                raise RegistryError(
                    f"{store.host} did not mount {blob.digest} from {source.repository}",
                    remedy="it may need the right to pull from there; push or copy the content",
                )
        return blob

    def open_layer(self, address: str) -> layer.LayerArchive:
        """Open a layer as a `tarfile.TarFile` in stream mode; closing it verifies all bytes.

        Use it in a ``with`` block, in the calling thread; no worker is used.

        Args:
            address: ``[docker://|http://]host[:port]/name@digest`` or ``oci:DIR@digest``.
        Raises:
            NotFound, UsageError: there is no such blob, or the address has no digest.
            ContentError: it is not a tar archive.
        """
        reference = parse_address(address)
        return layer.open_layer(
            self._components.image_resolver.open_source(reference),
            reference,
            self._components.transfer_context,
            self._components.progress,
        )


def stream_name(stream: object) -> str:
    """Return the name of a stream in messages."""
    name = getattr(stream, "name", None)
    if isinstance(name, int):
        name = {0: "standard input", 1: "standard output"}.get(name)
    return name if isinstance(name, str) and name else f"a {type(stream).__name__}"
