"""Only what failed last time: a plan cut down to what an earlier report still wants."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from concil.errors import ConcilError, StoreError, UsageError, shown
from concil.plan.registries import registry_of
from concil.plan.rules import Rule
from concil.plan.tags import TagFilter
from concil.reference import Address, LayoutAddress, Reference, parse_address
from concil.strict_json import InvalidJson, check_nesting
from concil.transfer.mirror import MirrorItem

logger = logging.getLogger(__name__)

_LIMIT = 1024 * 1024 * 1024  # bytes; of five million images
_REMEDY = "name a JSON report that a mirror has written"


@dataclass(frozen=True, slots=True)
class Failures:
    """What an earlier run has left undone."""

    images: frozenset[tuple[str, str]]  # source and target, as a report has them
    unlisted: frozenset[str]  # repositories whose tags could not be listed

    @classmethod
    def read(cls, path: Path) -> Failures:
        """Read them from a report.

        Raises:
            UsageError: the file is no report.
            StoreError: it cannot be read.
        """
        document = _document(path)
        images, unlisted = set(), set()
        try:
            for entry in document["images"]:
                if entry["outcome"] in ("failed", "untried"):  # not what failed to be pruned
                    source, target = str(entry["source"]), entry.get("target")
                    if target is None:
                        unlisted.add(source)
                    else:
                        images.add((source, str(target)))
            complete = bool(document["summary"]["complete"])
        except (KeyError, TypeError) as error:
            raise UsageError(f"{shown(str(path))} is no report", remedy=_REMEDY) from error
        if not complete:
            logger.warning(
                "%s is of a run that was interrupted or ended early: what that had not begun is "
                "not in it; run the whole plan for that",
                shown(str(path)),
            )
        return cls(frozenset(images), frozenset(unlisted))

    def __bool__(self) -> bool:
        """Whether anything failed."""
        return bool(self.images or self.unlisted)

    def of(self, rules: Iterable[Rule]) -> Iterator[Rule]:
        """Yield the entries of a plan that failed images may be of, cut down to those.

        Nothing is listed for them: the report has their tags.
        """
        tags: dict[str, list[str]] = {}
        for source, _ in sorted(self.images):
            address = _parsed(source)
            if address is not None:
                tags.setdefault(_repository(address), []).append(_tag(address))
        whole = {source for source, _ in self.images}
        repositories = {*tags, *self.unlisted}
        for rule in rules:
            if rule.repositories is not None:
                registry = registry_of(rule.source)
                if any(f"{name}/".startswith(f"{registry}/") for name in repositories):
                    yield rule
                continue
            address = parse_address(rule.source)
            repository = _repository(address)
            if rule.tags is None:
                if str(address) in whole:
                    yield rule
            elif str(address) in self.unlisted:
                yield rule
            elif repository in tags:
                choice = TagFilter(tuple(tags[repository]), immutable=rule.tags.immutable)
                yield replace(rule, tags=choice)

    def has(self, item: MirrorItem) -> bool:
        """Whether an image is among them."""
        source, target = parse_address(item.source), parse_address(item.destination)
        if (str(source), str(target)) in self.images or _repository(source) in self.unlisted:
            return True
        return isinstance(source, Reference) and registry_of(item.source) in self.unlisted


def _repository(address: Address) -> str:
    if isinstance(address, LayoutAddress):
        return f"oci:{address.path}"
    return str(parse_address(address.repository_address))


def _tag(address: Address) -> str:
    if isinstance(address, LayoutAddress):
        return address.name or ""
    return address.tag or str(address.digest or "latest")


def _parsed(text: str) -> Address | None:
    try:
        return parse_address(text)
    except ConcilError:
        return None


def _document(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > _LIMIT:
            raise UsageError(f"{shown(str(path))} is larger than a report can be")
        with path.open("rb") as file:
            document = json.load(file)
        check_nesting(document)
    except OSError as error:
        raise StoreError(
            f"cannot read the report {shown(str(path))}: {error.strerror}", remedy=_REMEDY
        ) from error
    except (InvalidJson, RecursionError) as error:
        raise UsageError(
            f"{shown(str(path))} is no report: its JSON nests too deep", remedy=_REMEDY
        ) from error
    except ValueError as error:
        raise UsageError(f"{shown(str(path))} is no report", remedy=_REMEDY) from error
    if not isinstance(document, dict):
        raise UsageError(f"{shown(str(path))} is no report", remedy=_REMEDY)
    return document
