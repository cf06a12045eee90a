"""Pulls the files of an artifact into a directory."""

from __future__ import annotations

import stat
from concurrent.futures import Future
from dataclasses import field
from pathlib import Path

from concil.engine.artifacts.titles import TitledBlob, read_titles
from concil.engine.artifacts.unpack import remove_archive, unpack
from concil.engine.file_blobs import FileBlobTransfers
from concil.engine.store_factory import SourceStore
from concil.errors import ConcilError, ContentError, UsageError, safe_repr
from concil.fs.local_file import LocalFile, disk_error
from concil.fs.nofollow_tree import PRIVATE_DIRECTORY, NoFollowTree
from concil.oci.descriptor import Descriptor
from concil.oci.manifest import Manifest
from concil.runtime.dataclass import dataclass
from concil.transfer.context import TransferContext
from concil.transfer.worker_pool import wait_for


@dataclass(frozen=True, slots=True)
class PulledFile:
    """A file or directory that was written."""

    title: str
    path: Path
    descriptor: Descriptor  # of its blob


@dataclass(frozen=True, slots=True)
class PulledArtifact:
    """The result of `Engine.pull_files`."""

    descriptor: Descriptor  # of the manifest
    artifact_type: str
    files: tuple[PulledFile, ...]
    untitled_count: int = 0  # blobs without a title, which were not pulled


@dataclass(frozen=True, slots=True)
class ArtifactPuller:
    """Pulls artifacts. Any thread but a worker may call `pull`."""

    blobs: FileBlobTransfers
    context: TransferContext = field(repr=False)

    def pull(
        self,
        store: SourceStore,
        manifest: Manifest,
        descriptor: Descriptor,
        output: Path,
        name: str,
    ) -> PulledArtifact:
        """Write all files below ``output``, which is created if it is missing.

        Names are checked before anything is written. Links are never followed below ``output``.
        A file that is already there with the right content is not downloaded again.

        Args:
            name: of the artifact in messages.
        Raises:
            ContentError: it has no files, or a title cannot become a path.
            UsageError: a file is in the way of a directory, or the reverse.
        """
        files, untitled_count = read_titles(manifest, name)
        if not files:
            raise ContentError(
                f"{name} contains no files: none of its blobs has a title",
                remedy="copy an image with `concil copy`, or pull a blob with `concil blob pull`",
            )
        tree = NoFollowTree(output)
        try:
            output.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise disk_error("cannot create", output, error) from error
        for file in files:
            _check_target(tree, file)
        downloads = [self._start(store, tree, file) for file in files]
        for download in downloads:
            wait_for(download, self.context.cancel)
        for file in files:
            if file.is_directory:
                unpack(tree, _archive_name(file), file, self.context.cancel)
                remove_archive(output, PRIVATE_DIRECTORY, _archive_name(file))
        pulled = tuple(PulledFile(file.title, output / file.title, file.blob) for file in files)
        return PulledArtifact(descriptor, manifest.artifact_type, pulled, untitled_count)

    def _start(
        self, store: SourceStore, tree: NoFollowTree, file: TitledBlob
    ) -> Future[Descriptor]:
        name = _archive_name(file) if file.is_directory else file.title
        parent = name.rpartition("/")[0]
        if parent:
            tree.make_directory(parent)
        path = tree.root / name
        return self.blobs.start_pull(
            store,
            file.blob,
            path,
            lambda: self._has_content(path, file.blob),
            str(tree.root / file.title),
        )

    def _has_content(self, path: Path, blob: Descriptor) -> bool:
        """Return whether a file has the content of a blob; it is hashed unless it is known."""
        if not path.is_file() or path.is_symlink() or path.stat().st_size != blob.size:
            return False
        try:
            file = LocalFile(path)
            known = self.context.journal.find_digest(file.identity.path, file.identity.to_text)
            if known is None or known.algorithm != blob.digest.algorithm:
                known = file.compute_digest(blob.digest.algorithm, cancel=self.context.cancel)
                self.context.journal.save_digest(file.identity.path, file.identity.to_text, known)
        except ConcilError:
            if self.context.cancel.is_set():
                raise
            return False
        return known == blob.digest


def _archive_name(file: TitledBlob) -> str:
    """Return the path of the archive of a directory while it is downloaded and unpacked."""
    return f"{PRIVATE_DIRECTORY}/{file.blob.digest.hex}.tar"


def _check_target(tree: NoFollowTree, file: TitledBlob) -> None:
    """Check that a file or directory can be written where its title says."""
    mode = tree.mode(file.title)
    if mode is None or (stat.S_ISDIR(mode) if file.is_directory else stat.S_ISREG(mode)):
        return
    kind = "not a regular file"
    if stat.S_ISDIR(mode):
        kind = "a directory"
    elif stat.S_ISLNK(mode):
        kind = "a symbolic link"
    elif file.is_directory:
        kind = "not a directory"
    raise UsageError(
        f"{safe_repr(str(tree.root / file.title))} is {kind}",
        remedy="remove it, or pull into another directory",
    )
