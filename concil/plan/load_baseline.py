"""Loads the baseline of `--since` from a report, layout or archive."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from concil.config import MIB
from concil.errors import ConcilError, InvalidDigest, NotFound, StoreError, UsageError, safe_repr
from concil.fs.local_file import disk_error
from concil.oci.address import (
    DOCKER_ARCHIVE,
    LAYOUT,
    LOCAL_SCHEMES,
    LayoutAddress,
    parse_address,
)
from concil.oci.foreign_address import translate_address
from concil.oci.manifest import Digest
from concil.oci.strict_json import InvalidJSON, parse_json
from concil.plan.report_schema import check_schema_version
from concil.plan.target_names import DestinationPrefix
from concil.store.airgap.baseline import Baseline, read_baseline
from concil.store.archive.oci import OCIArchive
from concil.store.layout.store import LayoutDirectory

_LIMIT = 256 * MIB  # bytes of a report
_MOST_PARTS = 10_000_000  # JSON values in a report
_REMEDY = "give a JSON report of a mirror, oci:DIR or oci-archive:FILE"


def load_baseline(runs: Iterable[str]) -> Baseline:
    """Merge the baselines of several earlier runs.

    Args:
        runs: a report file, a layout directory, ``oci:DIR`` or ``oci-archive:FILE`` each.
    Raises:
        NotFound: there is no such file or directory.
        UsageError, StoreError, ContentError: it is none of these, or it is damaged.
    """
    merged = Baseline()
    for run in runs:
        baseline = _load_run(run)
        merged.images |= baseline.images
        for subject, referrers in baseline.referrers.items():
            merged.referrers[subject] = (*merged.referrers.get(subject, ()), *referrers)
        for digest, repositories in baseline.blobs.items():
            merged_repositories = merged.blobs.get(digest, ())
            merged.blobs[digest] = tuple(dict.fromkeys((*merged_repositories, *repositories)))[:3]
    return merged


def _load_run(run: str) -> Baseline:
    run = translate_address(run)
    if run.startswith(LOCAL_SCHEMES):
        return _load_layout(parse_address(run))
    if Path(run).is_dir():
        return read_baseline(LayoutDirectory(run))
    return _load_report(Path(run))


def _load_layout(address: object) -> Baseline:
    if (
        not isinstance(address, LayoutAddress)
        or address.scheme == DOCKER_ARCHIVE
        or address.name
        or address.digest
    ):
        raise UsageError(f"{address} cannot be the baseline of an export", remedy=_REMEDY)
    if address.scheme == LAYOUT:
        return read_baseline(LayoutDirectory(address.path))
    with contextlib.closing(OCIArchive(Path(address.path))) as archive:
        return read_baseline(archive)


def _load_report(path: Path) -> Baseline:
    name = safe_repr(str(path))
    try:
        with path.open("rb") as file:
            content = file.read(_LIMIT + 1)
    except FileNotFoundError as error:
        raise NotFound(f"there is no report or layout at {name}", remedy=_REMEDY) from error
    except (OSError, ValueError) as error:
        if isinstance(error, OSError):
            raise disk_error("cannot read", path, error) from error
        raise UsageError(f"not a valid path: {name}", remedy=_REMEDY) from error
    if len(content) > _LIMIT:
        raise StoreError(f"{name} is larger than the limit for reports", remedy=_REMEDY)
    try:
        document = parse_json(content, max_parts=_MOST_PARTS)
    except InvalidJSON as error:
        raise UsageError(f"{name} is not a report: it is {error}", remedy=_REMEDY) from error
    images = document.get("images") if isinstance(document, dict) else None
    if not isinstance(images, list):
        raise UsageError(f"{name} is not a report of a mirror", remedy=_REMEDY)
    check_schema_version(document, name)
    baseline = Baseline()
    for entry in images:
        _add_image(entry, baseline)
    return baseline


def _add_image(entry: Any, baseline: Baseline) -> None:  # noqa: ANN401 - whatever JSON gives
    """Add an image of a report if it was copied; invalid entries are skipped."""
    if not isinstance(entry, dict) or entry.get("outcome") not in ("copied", "present"):
        return
    # An entry that cannot be read is not in the baseline: its image is copied again.
    with contextlib.suppress(ConcilError, TypeError):
        name = _layout_name(str(entry.get("source")), str(entry.get("target")))
        blobs = []
        for text in entry.get("blob_digests") or ():
            with contextlib.suppress(InvalidDigest):
                blobs.append(Digest.parse(text))
        baseline.add_image(name, Digest.parse(entry.get("digest", "")), blobs)


def _layout_name(source: str, destination: str) -> str:
    """Return the name of an image in a layout, from its source and destination."""
    address = parse_address(destination)
    if not isinstance(address, LayoutAddress):
        address = parse_address(
            DestinationPrefix("oci:layout").resolve(parse_address(source), None)
        )
    if not isinstance(address, LayoutAddress) or not address.name:
        raise UsageError(f"{address} has no name")
    return address.name
