"""What an earlier run has carried over: out of its layout, or out of its report."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from concil.config import MIB
from concil.content import Digest
from concil.errors import ConcilError, InvalidDigest, NotFound, StoreError, UsageError, shown
from concil.plan.targets import Below
from concil.reference import (
    DOCKER_ARCHIVE,
    LAYOUT,
    LOCAL_SCHEMES,
    LayoutAddress,
    parse_address,
)
from concil.store.files import disk_error
from concil.store.held import Held, held_in
from concil.store.layout import Layout
from concil.store.oci_archive import OCIArchive
from concil.strict_json import InvalidJson, read_json

_LIMIT = 256 * MIB  # bytes of a report
_MOST_PARTS = 10_000_000  # of its JSON
_REMEDY = "give a JSON report of a mirror, oci:DIR or oci-archive:FILE"


def held_by(runs: Iterable[str]) -> Held:
    """Add up what several runs have carried over.

    Args:
        runs: each the file of a report, a layout directory, ``oci:DIR`` or ``oci-archive:FILE``.
    Raises:
        NotFound: there is no such file or directory.
        UsageError, StoreError, ContentError: it is none of these, or damaged.
    """
    held = Held()
    for run in runs:
        one = _held(run)
        held.images |= one.images
        for subject, referrers in one.referrers.items():
            held.referrers[subject] = (*held.referrers.get(subject, ()), *referrers)
        for digest, repositories in one.blobs.items():
            known = held.blobs.get(digest, ())
            held.blobs[digest] = tuple(dict.fromkeys((*known, *repositories)))[:3]
    return held


def _held(run: str) -> Held:
    if run.startswith(LOCAL_SCHEMES):
        return _local(parse_address(run))
    if Path(run).is_dir():
        return held_in(Layout(run))
    return _reported(Path(run))


def _local(address: object) -> Held:
    if (
        not isinstance(address, LayoutAddress)
        or address.kind == DOCKER_ARCHIVE
        or address.name
        or address.digest
    ):
        raise UsageError(f"{address} tells nothing of an earlier run", remedy=_REMEDY)
    if address.kind == LAYOUT:
        return held_in(Layout(address.path))
    with contextlib.closing(OCIArchive(Path(address.path))) as archive:
        return held_in(archive)


def _reported(path: Path) -> Held:
    name = shown(str(path))
    try:
        with path.open("rb") as file:
            content = file.read(_LIMIT + 1)
    except FileNotFoundError as error:
        raise NotFound(f"there is no report or layout {name}", remedy=_REMEDY) from error
    except (OSError, ValueError) as error:
        if isinstance(error, OSError):
            raise disk_error("cannot read", path, error) from error
        raise UsageError(f"not a path: {name}", remedy=_REMEDY) from error
    if len(content) > _LIMIT:
        raise StoreError(f"{name} is larger than a report can be", remedy=_REMEDY)
    try:
        document = read_json(content, most=_MOST_PARTS)
    except InvalidJson as error:
        raise UsageError(f"{name} is no report: it is {error}", remedy=_REMEDY) from error
    images = document.get("images") if isinstance(document, dict) else None
    if not isinstance(images, list):
        raise UsageError(f"{name} is no report of a mirror", remedy=_REMEDY)
    held = Held()
    for entry in images:
        _take(entry, held)
    return held


def _take(entry: Any, held: Held) -> None:  # noqa: ANN401 - whatever JSON gives
    """Add an image of a report, if it came to its target; what has no sense is left out."""
    if not isinstance(entry, dict) or entry.get("outcome") not in ("copied", "present"):
        return
    # What cannot be read is not held for sure: then it is carried over again.
    with contextlib.suppress(ConcilError, TypeError):
        name = _name_of(str(entry.get("source")), str(entry.get("target")))
        blobs = []
        for text in entry.get("contents") or ():
            with contextlib.suppress(InvalidDigest):
                blobs.append(Digest.parse(text))
        held.add(name, Digest.parse(entry.get("digest", "")), blobs)


def _name_of(source: str, target: str) -> str:
    """What a layout calls an image that went from one place to another."""
    address = parse_address(target)
    if not isinstance(address, LayoutAddress):
        address = parse_address(Below("oci:layout").of(parse_address(source), None))
    if not isinstance(address, LayoutAddress) or not address.name:
        raise UsageError(f"{address} has no name")
    return address.name
