"""Parses the fields of a TOML plan that select tags by age and number, and repositories."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from concil.errors import ConcilError, UsageError, safe_repr
from concil.oci.address import LOCAL_SCHEMES, parse_address
from concil.plan.registry_rules import PLACEHOLDER_REPOSITORY
from concil.plan.rule import NameFilter
from concil.plan.selection.order import SortOrder
from concil.plan.tag_filter import TagFilter
from concil.runtime.durations import parse_duration
from concil.runtime.suggestions import did_you_mean

# Fields of a rule for a whole registry.
REGISTRY_FIELDS = ("repositories", "exclude_repositories")
_MAX_AGE = 100 * 366 * 24 * 3600.0  # seconds
_ORDERS = tuple(str(order) for order in SortOrder)


class FieldError(UsageError):
    """Fields of an entry contradict each other."""

    def __init__(self, field_name: str, message: str, *, remedy: str = "") -> None:
        """Describe the error at one of the fields."""
        super().__init__(message, remedy=remedy)
        self.field_name = field_name


def parse_age(value: Any) -> float:  # noqa: ANN401 - whatever TOML gives
    """Parse ``newer_than``; return seconds.

    Raises:
        UsageError: it is no duration of more than 0 and at most 100 years.
    """
    if not isinstance(value, str):
        raise UsageError("not a duration", remedy='write it in quotes: "90d"')
    seconds = parse_duration(value)
    if not 0 < seconds <= _MAX_AGE:
        raise UsageError("not between 1 second and 100 years", remedy='write "90d", for example')
    return seconds


def parse_sort(value: Any) -> SortOrder:  # noqa: ANN401 - whatever TOML gives
    """Parse ``sort``.

    Raises:
        UsageError: there is no such order.
    """
    if value not in _ORDERS:
        guess = did_you_mean(value, _ORDERS) if isinstance(value, str) else ""
        raise UsageError(
            f"not an order: {safe_repr(value)}",
            remedy=" ".join(filter(None, (guess, f"write one of {', '.join(_ORDERS)}"))),
        )
    return SortOrder(value)


def create_tag_filter(values: Mapping[str, Any]) -> TagFilter:
    """Return the filter that the fields of an entry describe.

    Raises:
        FieldError: fields contradict each other.
    """
    tag_filter = TagFilter(
        values["tags"] or (),
        values["match"],
        values["semver"],
        values["latest"],
        values["exclude"] or (),
        values["immutable"] or (),
        values["keep"],
        values["newer_than"],
        values["sort"],
    )
    if tag_filter.latest is not None and tag_filter.keep is not None:
        raise FieldError(
            "keep",
            "the entry has latest as well",
            remedy='omit one of them: latest = 5 is keep = 5 with sort = "semver"',
        )
    if tag_filter.sort is not None and not tag_filter.needs_listing:
        raise FieldError(
            "sort",
            "tags that are listed by name are copied in the order of the list",
            remedy="omit it",
        )
    return tag_filter


def create_repository_filter(values: Mapping[str, Any]) -> NameFilter | None:
    """Return the filter of the repositories of a registry; None: the entry is for no registry.

    Raises:
        FieldError: the source is no registry, or tags would be pruned.
    """
    allow, deny = (values[name] for name in REGISTRY_FIELDS)
    if allow is None and deny is None:
        return None
    source = values["source"]
    _check_registry(source)
    if values["prune"]:
        raise FieldError(
            "prune",
            "the repositories of a whole registry cannot be pruned",
            remedy="write an entry for each repository that is pruned",
        )
    return NameFilter(allow or (), deny or ())


def _check_registry(source: str) -> None:
    """Check that the source of an entry is a registry alone."""
    host = source.rpartition("://")[2].rpartition("@")[2]
    try:
        is_registry = not source.startswith(LOCAL_SCHEMES) and not re.search(r"[/\s]", host)
        if is_registry:
            parse_address(f"{source}/{PLACEHOLDER_REPOSITORY}")
    except ConcilError as error:
        raise FieldError("source", str(error), remedy=error.remedy) from error
    if not is_registry:
        raise FieldError(
            "source",
            "not a registry, whose repositories could be selected",
            remedy="write host[:port]; the patterns are for the whole names of repositories",
        )
