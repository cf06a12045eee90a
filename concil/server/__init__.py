"""Embedded OCI registry on an OCI image layout; standard library only."""

from __future__ import annotations

from concil.server.behavior import Chunk, Exchange, RegistryBehavior
from concil.server.errors import DropConnection, ErrorResponse
from concil.server.http import Request, Response
from concil.server.registry import EmbeddedRegistry
from concil.server.upload_store import Upload

__all__ = [
    "Chunk",
    "DropConnection",
    "EmbeddedRegistry",
    "ErrorResponse",
    "Exchange",
    "RegistryBehavior",
    "Request",
    "Response",
    "Upload",
]
