"""Decides how an upload continues after the registry refused some of its bytes."""

from __future__ import annotations

from typing import TypeAlias

import requests

from concil.errors import StatusError
from concil.runtime.dataclass import dataclass

MAX_500_AT_OFFSET = 3  # consecutive 500 answers to chunks at one offset; fewer may be an overload
# The offset of a chunk is not the one that the session expects, as far as the status says.
RESUMABLE_STATUSES = frozenset({409, 416})


@dataclass(frozen=True, slots=True)
class Refusal:
    """An error response to a request with bytes of a blob."""

    status: int
    length: int  # bytes of the refused body
    acknowledged: int  # offset at which the body began
    session_offset: int | None = None  # of the session, after a 416; None: it is gone
    is_monolithic: bool = False  # the body was the whole blob, in a PUT
    is_unsupported: bool = False  # the answer says that the method is not supported
    error_count: int = 0  # consecutive 500 answers at this offset, with this one


@dataclass(frozen=True, slots=True)
class ChunkLimits:
    """Sizes in bytes that decide whether a body may have been too large."""

    smallest: int  # no chunk is halved below it
    usual: int  # of a chunk to this host
    largest_accepted: int  # of the session


@dataclass(frozen=True, slots=True)
class Resume:
    """Continue in the same session."""

    offset: int | None  # bytes; None: the session has not been asked


@dataclass(frozen=True, slots=True)
class Restart:
    """Open a new session and send the blob in chunks from its start."""

    max_chunk_size: int | None  # bytes; None: the size stays as it is
    is_session_gone: bool  # there is no session to cancel


@dataclass(frozen=True, slots=True)
class Monolithic:
    """Open a new session and send the blob in one PUT: the registry takes no chunks."""


@dataclass(frozen=True, slots=True)
class Fail:
    """Report the refusal as it is: it does not concern the session or the size of the body."""


Decision: TypeAlias = Resume | Restart | Monolithic | Fail


def decide(refusal: Refusal, limits: ChunkLimits) -> Decision:
    """Decide how an upload continues after a refusal.

    Source: REGISTRIES.md 2.4 (416 for too large a chunk), 2.10, 2.11, 2.15, 2.19.
    """
    if refusal.is_monolithic:
        return _decide_monolithic(refusal, limits)
    is_too_large, is_gone = refusal.status == 413, refusal.status == 404
    if refusal.status == 416:
        is_gone = refusal.session_offset is None
        if not is_gone and refusal.session_offset != refusal.acknowledged:
            return Resume(refusal.session_offset)
        # Either the offset was right or it is unknown, so the size may be the reason.
        is_too_large = refusal.length > limits.largest_accepted
    if refusal.status in RESUMABLE_STATUSES and not is_gone and not is_too_large:
        return Resume(refusal.session_offset)
    # An interrupted body breaks a session of Gitea for good (REGISTRIES.md 2.15).
    is_gone = is_gone or refusal.error_count >= MAX_500_AT_OFFSET
    if is_too_large and refusal.length > limits.smallest:
        return Restart(max(limits.smallest, refusal.length // 2), is_gone)
    if refusal.is_unsupported:
        return Monolithic()
    return Restart(None, is_gone) if is_gone else Fail()


def _decide_monolithic(refusal: Refusal, limits: ChunkLimits) -> Decision:
    if refusal.status == requests.codes.not_found:
        return Restart(None, is_session_gone=True)
    if refusal.status != requests.codes.request_entity_too_large:
        return Fail()
    if refusal.length <= limits.smallest:
        return Fail()
    largest = min(refusal.length, limits.usual) // 2
    return Restart(max(limits.smallest, largest), is_session_gone=False)


def is_unsupported(error: StatusError) -> bool:
    """Return whether an answer says that the method is not supported.

    Source: REGISTRIES.md 2.10.
    """
    return error.status in (405, 501) or (error.status == 400 and "UNSUPPORTED" in error.args[0])
