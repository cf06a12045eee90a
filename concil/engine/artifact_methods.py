"""ArtifactMethods: the methods of Engine for artifacts, that is files with a manifest."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from concil.engine.artifacts.files import FileLike, to_file, to_files
from concil.engine.artifacts.puller import ArtifactPuller, PulledArtifact, StreamOpener
from concil.engine.artifacts.pusher import (
    ArtifactOptions,
    ArtifactPusher,
    PushedArtifact,
    put_manifest,
)
from concil.engine.components import EngineComponents
from concil.engine.images.reader import ImageManifest, ImageReader
from concil.engine.store_factory import SourceStore, reference_in_store
from concil.errors import ContentError, UsageError
from concil.oci.address import DOCKER_ARCHIVE, Address, LayoutAddress, parse_address
from concil.oci.descriptor import Descriptor
from concil.oci.manifest import Manifest
from concil.oci.platform import Platform
from concil.runtime import arguments
from concil.runtime.cancellation import SupportsIsSet, call_scope
from concil.runtime.quantities import count_of
from concil.runtime.redaction import without_user
from concil.transfer.journal import Journal
from concil.transfer.signatures.verified_images import VerifiedImages
from concil.transfer.signatures.verifier import ImageVerifier, SignatureReader


class ArtifactMethods:
    """Pushes, pulls, attaches and lists artifacts; a base class of `Engine`."""

    _components: EngineComponents

    def push_files(  # noqa: PLR0913 - each an option of its own
        self,
        files: FileLike | Iterable[FileLike],
        destination: str,
        *,
        artifact_type: str = "",
        annotations: Mapping[str, str] | None = None,
        config: FileLike | None = None,
        cancel: SupportsIsSet | None = None,
    ) -> PushedArtifact:
        """Push files and directories as an artifact, with the manifest that oras writes.

        Files are uploaded in parallel; those that the destination has are not sent. A directory
        is packed as tar+gzip first, into a temporary file.

        Args:
            files: paths, or `ArtifactFile` for bytes, streams, titles and media types.
            destination: a store address; the default tag is ``latest``.
            artifact_type: media type of the artifact; "": ``application/vnd.unknown.artifact.v1``.
            annotations: of the manifest. The time of creation is added unless it is among them:
                set ``org.opencontainers.image.created`` for a digest that does not change.
            config: file whose blob is the config, with its media type and annotations; None: the
                empty one. Its media type stands for an artifact type that is not given.
            cancel: when set, cancels this call only.
        Raises:
            UsageError: a file does not exist, two have the same title, or an option is invalid.
            FileChanged: a file was written to meanwhile; nothing was tagged.
            Cancelled: the call was cancelled; push again to resume.
        """
        address = parse_address(arguments.check_str("destination", destination))
        if address.digest is not None:
            raise UsageError(
                f"{address} has a digest, which follows from the files", remedy="give a tag"
            )
        chosen = ArtifactOptions(
            artifact_type,
            dict(annotations or {}),
            config=None if config is None else to_file("config", config),
        )
        return self._push(files, address, reference_in_store(address), chosen, cancel)

    def attach(  # noqa: PLR0913 - each an option of its own
        self,
        files: FileLike | Iterable[FileLike],
        subject: str,
        artifact_type: str,
        *,
        annotations: Mapping[str, str] | None = None,
        config: FileLike | None = None,
        platform: str | None = None,
        cancel: SupportsIsSet | None = None,
    ) -> PushedArtifact:
        """Push files as an artifact that refers to an image or another artifact.

        It has no tag; `referrers` lists it.

        Args:
            files: as in `push_files`; may be empty if there are annotations.
            subject: address of the image.
            artifact_type: media type of the artifact, such as ``application/spdx+json``.
            platform: ``os/architecture[/variant]``: attach to this image of an index.
            annotations, config, cancel: as in `push_files`.
        Raises:
            NotFound: there is no such image or platform.
            UsageError, FileChanged, Cancelled: as `push_files`.
        """
        if not arguments.check_str("artifact_type", artifact_type):
            raise UsageError(
                "no artifact type is given", remedy="give one, such as application/spdx+json"
            )
        config_file = None if config is None else to_file("config", config)
        chosen = ArtifactOptions(artifact_type, dict(annotations or {}), config=config_file)
        address = parse_address(arguments.check_str("subject", subject))
        with call_scope(cancel):
            _, descriptor = self._read_manifest(address, platform)
        return self._push(files, address, "", replace(chosen, subject=descriptor), cancel)

    def pull_files(
        self,
        address: str,
        output: str | os.PathLike[str] | StreamOpener,
        *,
        platform: str | None = None,
        verifier: ImageVerifier | None = None,
        cancel: SupportsIsSet | None = None,
    ) -> PulledArtifact:
        """Write the files of an artifact into a directory.

        Each file appears when its content is verified; parallel ranges are used, and interrupted
        downloads are resumed. All titles are checked before anything is written, and no link
        below ``output`` is followed. Existing files are replaced. A file with the right content
        is not downloaded again.

        Args:
            address: store address of the artifact.
            output: directory, created if it is missing; or a function that is called with the
                title of each file, in order, and returns a binary stream to write it to, or None
                to leave it out. The stream is not closed. A directory is written as its archive.
            platform: ``os/architecture[/variant]``: pull this artifact of an index.
            verifier: a `TrustPolicy`, which accepts the artifact, or the index that lists it, by
                its signatures; None: it is not verified.
            cancel: when set, cancels this call only.
        Raises:
            NotFound: there is no such artifact or platform.
            UntrustedImage: it has no signature that the verifier accepts; nothing was written.
            ContentError: it has no files, or a title or an archive is unsafe.
            UsageError: something else is in the way of a file.
            Cancelled: the call was cancelled; pull again to resume.
        """
        reference = parse_address(arguments.check_str("address", address))
        if not callable(output):
            arguments.to_path("output", output)
        components = self._components
        puller = ArtifactPuller(
            components.file_blobs, components.transfer_context, components.progress
        )
        with call_scope(cancel):
            manifest, descriptor = self._read_manifest(reference, platform, verifier)
            if manifest.is_index:
                raise _index_error(address, manifest)
            store = components.image_resolver.open_source(reference)
            if callable(output):
                return puller.write(store, manifest, descriptor, output, address)
            return puller.pull(store, manifest, descriptor, Path(output), address)

    def referrers(
        self, address: str, *, artifact_type: str = "", platform: str | None = None
    ) -> tuple[Descriptor, ...]:
        """Return the descriptors of what refers to an image: signatures, SBOMs, attached files.

        Args:
            address: store address of the image.
            artifact_type: return only those of this type.
            platform: ``os/architecture[/variant]``: what refers to this image of an index.
        Raises:
            NotFound: there is no such image or platform.
        """
        reference = parse_address(arguments.check_str("address", address))
        arguments.check_str("artifact_type", artifact_type)
        with call_scope(None):
            _, descriptor = self._read_manifest(reference, platform)
            store = self._components.image_resolver.open_source(reference)
            found = store.referrers(descriptor.digest, reference_in_store(reference))
        return tuple(
            referrer
            for referrer in found
            if not artifact_type or referrer.artifact_type == artifact_type
        )

    def push_manifest(
        self,
        content: bytes,
        destination: str,
        *,
        media_type: str = "",
        cancel: SupportsIsSet | None = None,
    ) -> Descriptor:
        """Write a manifest or index, bytes unchanged.

        Args:
            destination: a store address; the default tag is ``latest``. If it has a digest and no
                tag, the manifest is not tagged.
            media_type: "": that which the manifest states.
            cancel: when set, cancels this call only.
        Raises:
            InvalidManifest: it is not a manifest.
            UsageError: its digest is not that of the address.
            StatusError: the registry refuses it; most require its blobs and manifests first.
        """
        address = parse_address(arguments.check_str("destination", destination))
        manifest = Manifest.parse(bytes(content), media_type)
        if address.digest is not None and address.digest != manifest.digest:
            raise UsageError(
                f"the manifest hashes to {manifest.digest}, not to {address.digest}",
                remedy="give a tag, or the digest of the file",
            )
        reference = "" if address.digest is not None else reference_in_store(address)
        with self._components.archive_call(cancel) as archives:
            store = self._components.image_resolver.open_destination(address, archives)
            put_manifest(store, manifest, reference)
            archives.commit(strict=True)
        return manifest.descriptor

    def _push(
        self,
        files: FileLike | Iterable[FileLike],
        address: Address,
        reference: str,
        options: ArtifactOptions,
        cancel: SupportsIsSet | None,
    ) -> PushedArtifact:
        checked = to_files("files", files)
        if not checked and not options.annotations and options.config is None:
            raise UsageError("no files and no annotations are given", remedy="give a file")
        if isinstance(address, LayoutAddress) and address.scheme == DOCKER_ARCHIVE:
            raise UsageError(
                f"{address}: a docker-archive can only contain images",
                remedy="use oci:DIR or oci-archive:FILE",
            )
        components = self._components
        pusher = ArtifactPusher(components.file_blobs, components.transfer_context)
        with components.archive_call(cancel) as archives:
            store = components.image_resolver.open_destination(address, archives)
            pushed = pusher.push(checked, store, reference, options)
            archives.commit(strict=True)
        return pushed

    def _read_manifest(
        self, address: Address, platform: str | None, verifier: ImageVerifier | None = None
    ) -> tuple[Manifest, Descriptor]:
        """Fetch and verify the manifest at an address, or that of one platform."""
        store: SourceStore = self._components.image_resolver.open_source(address)
        manifest = store.get_manifest(reference_in_store(address))
        image = ImageManifest(address, store, address.digest or manifest.digest, manifest)
        if platform is not None:
            images = ImageReader(self._components.image_resolver, self._components.pool)
            image = images.select(image, Platform.parse(platform))
            if manifest.is_index and image.manifest is manifest:
                raise UsageError(
                    f"{address} has several images for {platform}",
                    remedy="choose one by its digest",
                )
        if verifier is not None:
            reader = SignatureReader(
                store,
                reference_in_store(address),
                str(address),
                self._components.transfer_context,
                store.may_read_unannounced(is_single=True),
            )
            digests = address.digest or manifest.digest, image.digest
            VerifiedImages(Journal(None)).verify(verifier, reader, digests, is_present=False)
        found = image.manifest
        return found, Descriptor(found.media_type, image.digest, len(found.body))


def _index_error(address: str, index: Manifest) -> ContentError:
    """Return the error for an index in place of an artifact; it names the platforms."""
    children = index.children()
    platforms = dict.fromkeys(str(child.platform) for child in children if child.platform)
    names = f", for {', '.join(platforms)}" if platforms else ""
    return ContentError(
        f"{without_user(address)} is an index of {count_of(len(children), 'artifact')}{names}",
        remedy="choose one with platform=, or by its digest" if platforms else "give its digest",
    )
