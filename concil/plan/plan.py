"""Plan: which images to copy, read from a file, for programs."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

from concil.config import HostLimits
from concil.errors import ConcilError
from concil.http.requests_session import TLSSettings
from concil.oci.platform import Platform
from concil.plan.expand import PlanExpansion
from concil.plan.loader import load_plan
from concil.plan.registry_rules import display_name
from concil.plan.rule import ParsedPlan
from concil.plan.target_names import DestinationPrefix
from concil.runtime import arguments
from concil.transfer.image.job import ForeignLayers
from concil.transfer.mirror.report import MirrorItem
from concil.transfer.signatures.verifier import ImageVerifier


class SupportsListing(Protocol):
    """Lists tags and repositories: an `Engine`."""

    def list_tags(self, address: str, /) -> Iterator[str]:
        """Yield the tags of a repository."""
        ...

    def list_repositories(self, registry: str, /) -> Iterator[str]:
        """Yield the repositories of a registry."""
        ...

    def find_creation_times(
        self, address: str, tags: Sequence[str], platforms: Sequence[str], /
    ) -> Sequence[float | None]:
        """Return when images were created, in seconds since the epoch; None: unknown."""
        ...


class PlanItems:
    """The images of a plan. They are listed while they are iterated, by one thread at a time."""

    def __init__(self, expansion: PlanExpansion) -> None:
        """Use `Plan.items`, which checks the plan."""
        self._expansion = expansion

    def __iter__(self) -> Iterator[MirrorItem]:
        """Yield the images; a repository that cannot be listed goes to `failures`."""
        return iter(self._expansion)

    @property
    def is_static(self) -> bool:
        """Whether the images are known without listing any repository."""
        return self._expansion.is_static

    @property
    def failures(self) -> list[tuple[str, ConcilError]]:
        """Repositories and registries that could not be listed so far, with the reasons."""
        return [(display_name(rule.source), error) for rule, error in self._expansion.failures]


class Plan:
    """A plan or list of images, as `concil mirror` reads it."""

    def __init__(self, parsed: ParsedPlan) -> None:
        """Use `read`."""
        self._parsed = parsed

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> Plan:
        """Read a plan: TOML or YAML by its suffix, otherwise a list with one image per line.

        Args:
            path: a file; ``-`` reads a list from standard input.
        Raises:
            UsageError: it is not a file, not text, or has an invalid entry; the message names
                file and line.
            StoreError: it cannot be read.
        """
        return cls(load_plan(arguments.to_path("path", path)))

    @property
    def host_limits(self) -> Mapping[str, HostLimits]:
        """Limits of single hosts, for `TransferConfig`."""
        return self._parsed.host_limits

    @property
    def tls_by_host(self) -> Mapping[str, TLSSettings]:
        """TLS settings of single hosts, for `Endpoints`."""
        return self._parsed.tls_by_host

    def items(  # noqa: PLR0913 - each an option of its own
        self,
        engine: SupportsListing,
        destination: str | Sequence[str] | None = None,
        *,
        platforms: Sequence[str] = (),
        referrers: bool = False,
        foreign_layers: ForeignLayers | str = ForeignLayers.SKIP,
        recheck: bool = False,
        verifier: ImageVerifier | None = None,
    ) -> PlanItems:
        """Return the images of the plan, for `Engine.mirror` and `Engine.check`.

        Args:
            engine: lists tags and repositories, where the plan selects from them.
            destination: ``host[:port][/prefix]``, ``oci:DIR`` or an archive, or several of them;
                None: the entries of the plan have complete targets.
            platforms: for entries without platforms of their own; empty: all.
            referrers: for entries that do not set it.
            foreign_layers, recheck: as for `Engine.copy`.
            verifier: for entries that do not say whom they trust; None: images are not verified.
        Raises:
            UsageError: the plan has an invalid entry, or two images with the same target.
        """
        names = arguments.to_str_tuple("platforms", platforms)
        for name in names:
            Platform.parse(name)
        if destination is None or isinstance(destination, str):
            destination = () if destination is None else (destination,)
        destinations = arguments.to_str_tuple("destination", destination)
        expansion = PlanExpansion(
            self._parsed.rules,
            engine.list_tags,
            tuple(map(DestinationPrefix, destinations)),
            names,
            referrers,
            ForeignLayers.parse("foreign_layers", foreign_layers),
            recheck,
            list_repositories=engine.list_repositories,
            find_creation_times=engine.find_creation_times,
            verifier=verifier,
        )
        expansion.check()
        return PlanItems(expansion)
