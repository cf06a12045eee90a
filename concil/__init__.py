"""A parallel transfer engine for OCI and Docker registries."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from concil.config import RetryPolicy, Timeouts, TransferConfig
    from concil.content import Descriptor, Digest, Manifest, Platform
    from concil.dockerhub import DockerHub, parse_docker_url
    from concil.engine import Engine, Sides
    from concil.errors import ConcilError
    from concil.progress import Event, State
    from concil.timeline import Timeline
    from concil.transfer.image import ImageResult
    from concil.transfer.journal import Journal
    from concil.transfer.mirror import MirrorItem, MirrorReport

__version__ = "2.0.0"

__all__ = [
    "ConcilError",
    "Descriptor",
    "Digest",
    "DockerHub",
    "Engine",
    "Event",
    "ImageResult",
    "Journal",
    "Manifest",
    "MirrorItem",
    "MirrorReport",
    "Platform",
    "RetryPolicy",
    "Sides",
    "State",
    "Timeline",
    "Timeouts",
    "TransferConfig",
    "parse_docker_url",
]

# Imported when they are asked for: the command line needs a part of them only, and a
# tenth of a second more for each command is felt.
_HOMES = {
    "config": ("RetryPolicy", "Timeouts", "TransferConfig"),
    "content": ("Descriptor", "Digest", "Manifest", "Platform"),
    "dockerhub": ("DockerHub", "parse_docker_url"),
    "engine": ("Engine", "Sides"),
    "errors": ("ConcilError",),
    "progress": ("Event", "State"),
    "timeline": ("Timeline",),
    "transfer.image": ("ImageResult",),
    "transfer.journal": ("Journal",),
    "transfer.mirror": ("MirrorItem", "MirrorReport"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}


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
