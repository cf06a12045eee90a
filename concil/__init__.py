"""A parallel transfer engine for OCI and Docker registries."""

from __future__ import annotations

import importlib
import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from concil.cancellation import SupportsIsSet
    from concil.config import HostLimits, RetryPolicy, Timeouts, TransferConfig
    from concil.content import Descriptor, Digest, Manifest, Platform
    from concil.dockerhub import DockerHub, parse_docker_url
    from concil.engine import Engine, Sides
    from concil.errors import ConcilError
    from concil.layer import LayerArchive
    from concil.progress import Event, ProgressSink, State
    from concil.registry.credentials import Credentials
    from concil.registry.http_session import TLSSettings
    from concil.registry.warning_header import RegistryWarning
    from concil.since import held_by
    from concil.store.held import Held
    from concil.stores import Access
    from concil.timeline import Timeline
    from concil.transfer.blob import Landed
    from concil.transfer.image import ForeignLayers, ImageResult
    from concil.transfer.journal import Journal
    from concil.transfer.mirror import MirrorItem, MirrorReport, Outcome
    from concil.transfer.prune import Pruned, Pruning, Removal
    from concil.verified import VerifiedResponse

__version__ = "2.0.0"

__all__ = [
    "Access",
    "ConcilError",
    "Credentials",
    "Descriptor",
    "Digest",
    "DockerHub",
    "Engine",
    "Event",
    "ForeignLayers",
    "Held",
    "HostLimits",
    "ImageResult",
    "Journal",
    "Landed",
    "LayerArchive",
    "Manifest",
    "MirrorItem",
    "MirrorReport",
    "Outcome",
    "Platform",
    "ProgressSink",
    "Pruned",
    "Pruning",
    "RegistryWarning",
    "Removal",
    "RetryPolicy",
    "Sides",
    "State",
    "SupportsIsSet",
    "TLSSettings",
    "Timeline",
    "Timeouts",
    "TransferConfig",
    "VerifiedResponse",
    "held_by",
    "parse_docker_url",
]

# Without a handler Python prints warnings of a library whose program has set up no logging.
logging.getLogger(__name__).addHandler(logging.NullHandler())

# Imported when they are asked for: the command line needs a part of them only, and a
# tenth of a second more for each command is felt.
_HOMES = {
    "cancellation": ("SupportsIsSet",),
    "config": ("HostLimits", "RetryPolicy", "Timeouts", "TransferConfig"),
    "content": ("Descriptor", "Digest", "Manifest", "Platform"),
    "dockerhub": ("DockerHub", "parse_docker_url"),
    "engine": ("Engine", "Sides"),
    "errors": ("ConcilError",),
    "layer": ("LayerArchive",),
    "progress": ("Event", "ProgressSink", "State"),
    "registry.credentials": ("Credentials",),
    "registry.http_session": ("TLSSettings",),
    "registry.warning_header": ("RegistryWarning",),
    "since": ("held_by",),
    "store.held": ("Held",),
    "stores": ("Access",),
    "timeline": ("Timeline",),
    "transfer.blob": ("Landed",),
    "transfer.image": ("ForeignLayers", "ImageResult"),
    "transfer.journal": ("Journal",),
    "transfer.mirror": ("MirrorItem", "MirrorReport", "Outcome"),
    "transfer.prune": ("Pruned", "Pruning", "Removal"),
    "verified": ("VerifiedResponse",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

# A checker that sees `__getattr__` takes every name for one that is there.
if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        """Import what is asked for."""
        if name not in _HOME_OF:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(importlib.import_module(f"concil.{_HOME_OF[name]}"), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    """Name what can be asked for."""
    return sorted({*globals(), *__all__})
