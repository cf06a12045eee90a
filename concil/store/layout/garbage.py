"""Finds and removes the files of a layout that no image needs."""

from __future__ import annotations

import os
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import nullcontext, suppress
from dataclasses import field

from concil.config import MIB
from concil.errors import (
    ContentError,
    InvalidDigest,
    NotFound,
    StoreError,
    UsageError,
    safe_repr,
)
from concil.fs.nofollow_tree import PRIVATE_DIRECTORY, NoFollowTree
from concil.oci.address import LAYOUT, LayoutAddress, parse_address
from concil.oci.digest import Digest
from concil.oci.manifest import Manifest
from concil.runtime.dataclass import dataclass
from concil.store.layout.directory import LayoutDirectory
from concil.store.layout.usage_lock import UsageLock

DEFAULT_MIN_AGE = 3600.0  # seconds
_MAX_MANIFEST_SIZE = 32 * MIB  # bytes; other programs may have written large manifests
_REPOSITORIES = f"{PRIVATE_DIRECTORY}/repositories"  # markers of `concil serve`
_ALGORITHMS = ("sha256", "sha512")


@dataclass(frozen=True, slots=True)
class Garbage:
    """A file that no image needs."""

    digest: Digest
    size: int  # bytes


@dataclass(slots=True)
class GarbageReport:
    """What a garbage collection has removed, or would remove."""

    layout: str  # its address
    garbage: list[Garbage] = field(default_factory=list)  # removed, unless it was a dry run
    is_dry_run: bool = True
    needed_count: int = 0  # files that images need
    recent: list[Garbage] = field(default_factory=list)  # kept only because of their age

    @property
    def size(self) -> int:
        """Bytes of the garbage."""
        return sum(each.size for each in self.garbage)

    @property
    def recent_size(self) -> int:
        """Bytes of the files that were kept because of their age."""
        return sum(each.size for each in self.recent)


def open_layout(text: str) -> LayoutDirectory:
    """Open the layout at an address.

    Raises:
        UsageError: it is not the address of a layout directory.
        NotFound, StoreError, InvalidManifest: there is none, or it is damaged.
    """
    address = parse_address(text)
    if not isinstance(address, LayoutAddress) or address.scheme != LAYOUT:
        raise UsageError(
            f"{address} is not a layout directory",
            remedy="write oci:DIR; a registry has a garbage collection of its own",
        )
    if address.name or address.digest:
        raise UsageError(
            f"{address} is a single image, and garbage belongs to none",
            remedy=f"write {address.store_address}",
        )
    return LayoutDirectory(address.path)


def collect_garbage(
    layout: LayoutDirectory, *, dry_run: bool = True, min_age: float = DEFAULT_MIN_AGE
) -> GarbageReport:
    """Remove the blobs of a layout that cannot be reached from its index.

    Manifests that clients of `concil serve` have pushed by digest count as named. Files below
    ``blobs`` that are not named like a digest are kept.

    Args:
        min_age: seconds; younger files are kept, because another program may be about to name
            them.
    Raises:
        StoreError: the layout is being written to, or a manifest that it names is damaged, so
            that nobody can tell what it needs.
    """
    report = GarbageReport(f"oci:{layout.path}", is_dry_run=dry_run)
    tree = NoFollowTree(layout.path)
    with nullcontext() if dry_run else UsageLock.exclusive(layout.path):
        needed: set[Digest] = set()
        signature = None
        # Other programs do not know the lock: what they have named meanwhile is kept, too.
        while signature != (signature := tree.stat_signature("index.json")):
            needed = _find_needed(layout, tree)
        _list_garbage(tree, needed, time.time() - min_age, report)
        if not dry_run:
            _remove(tree, report.garbage)
    return report


def _find_needed(layout: LayoutDirectory, tree: NoFollowTree) -> set[Digest]:
    """Return every digest that can be reached from the index and the served repositories."""
    entries = layout.entries()
    needed = {entry.digest for entry in entries}
    # An index may name any blob; a type that is missing is that of a manifest.
    pending = [entry.digest for entry in entries if entry.is_manifest or not entry.media_type]
    pending += [digest for kind, digest, _ in _markers(tree) if kind == "_manifests"]
    read: set[Digest] = set()
    while pending:
        digest = pending.pop()
        needed.add(digest)
        if digest in read:
            continue
        read.add(digest)
        try:
            manifest = Manifest.parse(layout.read_blob(digest, _MAX_MANIFEST_SIZE))
            children = manifest.children()
            needed.update(blob.digest for blob in manifest.blobs())
        except NotFound:
            continue  # an index of which only some platforms were copied
        except (ContentError, InvalidDigest) as error:
            raise StoreError(
                f"{safe_repr(str(layout.path))}: what {digest} needs is unknown: {error}",
                remedy="repair it, or delete the image, before removing garbage",
            ) from error
        needed.update(child.digest for child in children)
        pending += [child.digest for child in children if child.is_manifest]
    return needed


def _list_garbage(
    tree: NoFollowTree, needed: set[Digest], newest: float, report: GarbageReport
) -> None:
    """Add the files that are not needed, the largest first; ``newest``: seconds since 1970."""
    for algorithm in _ALGORITHMS:
        for name in tree.names(f"blobs/{algorithm}"):
            try:
                digest = Digest.parse(f"{algorithm}:{name}")
            except InvalidDigest:
                continue
            path = _blob_path(digest)
            size, signature = tree.file_size(path), tree.stat_signature(path)
            if size is None or signature is None:
                continue  # no regular file
            if digest in needed:
                report.needed_count += 1
                continue
            # A file that was renamed, as a finished download is, has a new time of change.
            changed = max(signature[-2:]) / 1e9
            (report.recent if changed > newest else report.garbage).append(Garbage(digest, size))
    for files in (report.garbage, report.recent):
        files.sort(key=lambda each: (-each.size, str(each.digest)))


def _remove(tree: NoFollowTree, garbage: list[Garbage]) -> None:
    """Remove files, and before them what says that a served repository has them."""
    digests = {each.digest for each in garbage}
    for kind, digest, path in _markers(tree):
        if kind == "_blobs" and digest in digests:
            tree.remove(path)
    names: dict[str, list[str]] = defaultdict(list)
    for digest in digests:
        directory, _, name = _blob_path(digest).rpartition("/")
        names[directory].append(name)
    for directory, leaves in names.items():
        tree.remove_all(directory, leaves)


def _markers(tree: NoFollowTree) -> Iterator[tuple[str, Digest, str]]:
    """Yield the kind, digest and path of every marker of a served repository."""
    root = tree.root / _REPOSITORIES
    for directory, _, names in os.walk(root):
        parts = directory.split("/")[-2:]
        if len(parts) < 2 or parts[0] not in ("_blobs", "_manifests"):
            continue
        kind, algorithm = parts
        for name in names:
            with suppress(InvalidDigest):
                digest = Digest.parse(f"{algorithm}:{name}")
                yield kind, digest, f"{os.path.relpath(directory, tree.root)}/{name}"


def _blob_path(digest: Digest) -> str:
    return f"blobs/{digest.algorithm}/{digest.hex}"
