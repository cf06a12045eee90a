"""ParsedPlan, Rule and NameFilter: a parsed plan."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import field

from concil.config import HostLimits
from concil.http.requests_session import TLSSettings
from concil.plan.notify_settings import NotifySettings
from concil.plan.tag_filter import TagFilter
from concil.runtime.dataclass import dataclass
from concil.transfer.signatures.verifier import ImageVerifier


@dataclass(frozen=True, slots=True)
class NameFilter:
    """Selects repositories of a registry by patterns for the whole name."""

    allow: tuple[re.Pattern[str], ...] = ()  # empty: all
    deny: tuple[re.Pattern[str], ...] = ()

    def matches(self, name: str) -> bool:
        """Return whether a repository is selected."""
        if self.allow and not any(pattern.fullmatch(name) for pattern in self.allow):
            return False
        return not any(pattern.fullmatch(name) for pattern in self.deny)


@dataclass(frozen=True, slots=True)
class Verification:
    """What an entry says of the signatures of its images, whatever the default is."""

    verifier: ImageVerifier | None  # None: the images are not verified


@dataclass(frozen=True, slots=True)
class Rule:
    """One entry of a plan: an image, or tags of one repository or of all those of a registry."""

    location: str  # file and line, for messages
    source: str  # an image; with ``tags`` a repository, without tag
    target: str | None = None  # an address, a name below the destination, or a template of either
    tag_filter: TagFilter | None = None  # None: the one image that ``source`` names
    platforms: tuple[str, ...] = ()  # empty: all
    referrers: bool | None = None  # None: the default of the mirror
    verification: Verification | None = None  # None: the default of the mirror
    prune: bool = False  # delete tags at the destination that the source no longer has
    needs_destination: bool = False  # the target is only a name: a destination is required
    # If set, source and target are registries, and repositories keep their names.
    repository_filter: NameFilter | None = None
    more_targets: tuple[str, ...] = ()  # each image is copied to these as well

    @property
    def targets(self) -> tuple[str | None, ...]:
        """All targets; None: the name of the source."""
        return (self.target, *self.more_targets)


@dataclass(frozen=True, slots=True)
class ParsedPlan:
    """The parsed content of a plan file."""

    rules: tuple[Rule, ...]
    host_limits: Mapping[str, HostLimits] = field(default_factory=dict)
    tls_by_host: Mapping[str, TLSSettings] = field(default_factory=dict)  # by host
    notify: NotifySettings | None = None  # None: there are no notifications
