"""A plan as data: what is to be mirrored, wherever it was written down."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from concil.config import HostLimits
from concil.plan.tags import TagFilter


@dataclass(frozen=True, slots=True)
class Rule:
    """One entry of a plan: an image, or some tags of a repository."""

    place: str  # file and line, for messages
    source: str  # an image; with ``tags`` a repository, without tag
    target: str | None = None  # an address, a name below the destination, or a template of one
    tags: TagFilter | None = None  # None: the one image that ``source`` names
    platforms: tuple[str, ...] = ()  # none: all
    referrers: bool | None = None  # None: as for all of the mirror
    prune: bool = False  # delete at the destination what is gone at the source
    below: bool = False  # the target is no whole address: there must be a destination


@dataclass(frozen=True, slots=True)
class Plan:
    """All that the file of a plan says."""

    rules: tuple[Rule, ...]
    hosts: Mapping[str, HostLimits] = field(default_factory=dict)
