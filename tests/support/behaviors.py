"""Behaviours of the embedded registry that tests of several folders need."""

from __future__ import annotations

from concil.server import Chunk, ErrorResponse, RegistryBehavior


class FirstChunkOnly(RegistryBehavior):
    """Takes the first chunk of an upload and answers 503 to the others until `is_mended`."""

    def __init__(self) -> None:
        super().__init__()
        self.is_mended = False

    def check_chunk(self, chunk: Chunk) -> None:
        """Refuse each chunk that does not begin at 0."""
        if chunk.start and not self.is_mended:
            raise ErrorResponse("UNAVAILABLE", "later", status=503)
