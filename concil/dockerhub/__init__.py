"""The documented client of one repository; import everything documented from here."""

from __future__ import annotations

from concil.dockerhub.client import DockerHub
from concil.dockerhub.path import BlobOpener, DockerPath, ResponseStream
from concil.dockerhub.url import DockerSplitResult, parse_docker_url
from concil.engine.layer import LayerArchive
from concil.engine.verified_response import VerifiedResponse

__all__ = [
    "BlobOpener",
    "DockerHub",
    "DockerPath",
    "DockerSplitResult",
    "LayerArchive",
    "ResponseStream",
    "VerifiedResponse",
    "parse_docker_url",
]
