"""A parallel transfer engine for OCI and Docker registries."""

from __future__ import annotations

from concil.config import RetryPolicy, Timeouts, TransferConfig
from concil.content import Descriptor, Digest, Manifest, Platform
from concil.dockerhub import DockerHub, parse_docker_url
from concil.engine import Engine, Sides
from concil.errors import ConcilError
from concil.progress import Event, State
from concil.transfer.image import ImageResult
from concil.transfer.mirror import MirrorItem, MirrorReport

__all__ = [
    "ConcilError",
    "Descriptor",
    "Digest",
    "DockerHub",
    "Engine",
    "Event",
    "ImageResult",
    "Manifest",
    "MirrorItem",
    "MirrorReport",
    "Platform",
    "RetryPolicy",
    "Sides",
    "State",
    "Timeouts",
    "TransferConfig",
    "parse_docker_url",
]
