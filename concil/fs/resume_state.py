"""State with which a later process resumes an upload or download."""

from __future__ import annotations

from dataclasses import field

from concil.runtime.dataclass import dataclass

__all__ = ["WriterState"]


@dataclass(frozen=True, slots=True)
class WriterState:
    """State that another process needs to resume a writer. The location may be a secret."""

    location: str = field(repr=False)  # of an upload session, or the path of a partial file
    offset: int  # bytes acknowledged, or filled
    chunk_size: int  # bytes; 0 if there are no chunks
    ranges: tuple[tuple[int, int], ...] = ()  # filled ranges of a PartialFile, half-open
    hash_state: str = ""  # `Verifier.hash_state` at `offset` while the digest is unknown
