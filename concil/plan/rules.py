"""A plan as data: what is to be mirrored, wherever it was written down."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from concil.config import HostLimits
from concil.plan.tags import TagFilter
from concil.registry.http_session import TLSSettings


@dataclass(frozen=True, slots=True)
class NameFilter:
    """Which repositories of a registry are wanted: expressions for the whole name."""

    allow: tuple[re.Pattern[str], ...] = ()  # none: all
    deny: tuple[re.Pattern[str], ...] = ()

    def wants(self, name: str) -> bool:
        """Whether a repository is wanted."""
        if self.allow and not any(one.fullmatch(name) for one in self.allow):
            return False
        return not any(one.fullmatch(name) for one in self.deny)


@dataclass(frozen=True, slots=True)
class Rule:
    """One entry of a plan: an image, some tags of a repository, or of all of a registry's."""

    place: str  # file and line, for messages
    source: str  # an image; with ``tags`` a repository, without tag
    target: str | None = None  # an address, a name below the destination, or a template of one
    tags: TagFilter | None = None  # None: the one image that ``source`` names
    platforms: tuple[str, ...] = ()  # none: all
    referrers: bool | None = None  # None: as for all of the mirror
    prune: bool = False  # delete at the destination what is gone at the source
    below: bool = False  # the target is no whole address: there must be a destination
    # Then source and target are registries, and each repository goes to the same name.
    repositories: NameFilter | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """All that the file of a plan says."""

    rules: tuple[Rule, ...]
    hosts: Mapping[str, HostLimits] = field(default_factory=dict)
    tls: Mapping[str, TLSSettings] = field(default_factory=dict)  # of hosts, whichever side
