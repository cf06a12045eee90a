"""Restricts a plan to the failures of an earlier report."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from concil.errors import ConcilError, StoreError, UsageError, safe_repr
from concil.oci.address import Address, LayoutAddress, parse_address
from concil.oci.reference import Reference
from concil.oci.strict_json import InvalidJSON, check_nesting
from concil.plan.registry_rules import registry_of
from concil.plan.report_schema import check_schema_version
from concil.plan.rule import Rule
from concil.plan.tag_filter import TagFilter
from concil.runtime.dataclass import dataclass
from concil.transfer.mirror.report import MirrorItem

logger = logging.getLogger(__name__)

_MAX_REPORT_SIZE = 1024 * 1024 * 1024  # bytes; enough for five million images
_REMEDY = "give a JSON report that a mirror has written"


@dataclass(frozen=True, slots=True)
class FailedImages:
    """The images and listings that an earlier run failed to copy."""

    images: frozenset[tuple[str, str]]  # source and target, as in the report
    failed_listings: frozenset[str]  # repositories whose tags could not be listed

    @classmethod
    def from_report(cls, path: Path) -> FailedImages:
        """Read the failures from a report.

        Raises:
            UsageError: the file is not a report.
            StoreError: it cannot be read.
        """
        document = _read_document(path)
        images, unlisted = set(), set()
        try:
            for entry in document["images"]:
                if entry["outcome"] in ("failed", "not_tried"):  # without failed deletions
                    source, target = str(entry["source"]), entry.get("target")
                    if target is None:
                        unlisted.add(source)
                    else:
                        images.add((source, str(target)))
            complete = bool(document["summary"]["complete"])
        except (KeyError, TypeError) as error:
            raise UsageError(f"{safe_repr(str(path))} is not a report", remedy=_REMEDY) from error
        if not complete:
            logger.warning(
                "%s is the report of a run that was interrupted or ended early: it does not list "
                "the images that were not started; mirror the whole plan to copy those",
                safe_repr(str(path)),
            )
        return cls(frozenset(images), frozenset(unlisted))

    def __bool__(self) -> bool:
        """Return whether anything failed."""
        return bool(self.images or self.failed_listings)

    def filter_rules(self, rules: Iterable[Rule]) -> Iterator[Rule]:
        """Yield the rules that failed images may belong to, restricted to those images.

        Needs no listing: the report has the tags.
        """
        tags: dict[str, list[str]] = {}
        for source, _ in sorted(self.images):
            address = _parse_or_none(source)
            if address is not None:
                tags.setdefault(_repository_address(address), []).append(_tag_or_name(address))
        failed_sources = {source for source, _ in self.images}
        repositories = {*tags, *self.failed_listings}
        for rule in rules:
            if rule.repository_filter is not None:
                registry = registry_of(rule.source)
                if any(f"{name}/".startswith(f"{registry}/") for name in repositories):
                    yield rule
                continue
            address = parse_address(rule.source)
            repository = _repository_address(address)
            if rule.tag_filter is None:
                if str(address) in failed_sources:
                    yield rule
            elif str(address) in self.failed_listings:
                yield rule
            elif repository in tags:
                tag_filter = TagFilter(tuple(tags[repository]), immutable=rule.tag_filter.immutable)
                yield replace(rule, tag_filter=tag_filter)

    def is_failed(self, item: MirrorItem) -> bool:
        """Return whether an image failed in the earlier run."""
        source, target = parse_address(item.source), parse_address(item.destination)
        if (str(source), str(target)) in self.images or _repository_address(
            source
        ) in self.failed_listings:
            return True
        return isinstance(source, Reference) and registry_of(item.source) in self.failed_listings


def _repository_address(address: Address) -> str:
    if isinstance(address, LayoutAddress):
        return f"oci:{address.path}"
    return str(parse_address(address.repository_address))


def _tag_or_name(address: Address) -> str:
    if isinstance(address, LayoutAddress):
        return address.name or ""
    return address.tag or str(address.digest or "latest")


def _parse_or_none(text: str) -> Address | None:
    try:
        return parse_address(text)
    except ConcilError:
        return None


def _read_document(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > _MAX_REPORT_SIZE:
            raise UsageError(f"{safe_repr(str(path))} is larger than the limit for reports")
        with path.open("rb") as file:
            text = file.read().decode()
        check_nesting(text)
        document = json.loads(text)
    except OSError as error:
        raise StoreError(
            f"cannot read the report {safe_repr(str(path))}: {error.strerror}", remedy=_REMEDY
        ) from error
    except InvalidJSON as error:
        raise UsageError(
            f"{safe_repr(str(path))} is not a report: its JSON is nested too deeply", remedy=_REMEDY
        ) from error
    except ValueError as error:
        raise UsageError(f"{safe_repr(str(path))} is not a report", remedy=_REMEDY) from error
    if not isinstance(document, dict):
        raise UsageError(f"{safe_repr(str(path))} is not a report", remedy=_REMEDY)
    if "images" in document:
        check_schema_version(document, safe_repr(str(path)))
    return document
