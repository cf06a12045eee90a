"""How an upload continues after each kind of refusal."""

from __future__ import annotations

import pytest

from concil.store.registry.refusal import (
    MAX_500_AT_OFFSET,
    ChunkLimits,
    Decision,
    Fail,
    Monolithic,
    Refusal,
    Restart,
    Resume,
    decide,
)

OFFSET = 1000  # where the refused chunk began
FRESH = ChunkLimits(smallest=10, usual=80, largest_accepted=0)
PROVEN = ChunkLimits(smallest=10, usual=80, largest_accepted=100)


def chunk(
    status: int,
    *,
    length: int = 100,
    session: int | None = None,
    unsupported: bool = False,
    errors: int = 0,
) -> Refusal:
    """A refused chunk; ``session`` is the offset of the session after a 416."""
    return Refusal(status, length, OFFSET, session, is_unsupported=unsupported, error_count=errors)


def whole(status: int, length: int = 100) -> Refusal:
    """A refused PUT of a whole blob."""
    return Refusal(status, length, 0, is_monolithic=True)


@pytest.mark.parametrize(
    ("refusal", "limits", "expected"),
    [
        # 416: the session is elsewhere, whatever the size of the chunk
        (chunk(416, session=1030), FRESH, Resume(1030)),
        (chunk(416, session=1030), PROVEN, Resume(1030)),
        # 416: the offset was right
        (chunk(416, session=OFFSET), FRESH, Restart(50, is_session_gone=False)),
        (chunk(416, session=OFFSET), PROVEN, Resume(OFFSET)),
        (chunk(416, length=10, session=OFFSET), FRESH, Fail()),
        (chunk(416, length=19, session=OFFSET), FRESH, Restart(10, is_session_gone=False)),
        # 416: the session is gone
        (chunk(416), FRESH, Restart(50, is_session_gone=True)),
        (chunk(416), PROVEN, Restart(None, is_session_gone=True)),
        (chunk(416, length=10), FRESH, Restart(None, is_session_gone=True)),
        # other statuses
        (chunk(409), FRESH, Resume(None)),
        (chunk(413), PROVEN, Restart(50, is_session_gone=False)),
        (chunk(413, length=10), PROVEN, Fail()),
        (chunk(404), PROVEN, Restart(None, is_session_gone=True)),
        (chunk(405, unsupported=True), FRESH, Monolithic()),
        (chunk(400, unsupported=True), FRESH, Monolithic()),
        (chunk(400), FRESH, Fail()),
        (chunk(429), FRESH, Fail()),
        (chunk(500, errors=MAX_500_AT_OFFSET - 1), FRESH, Fail()),
        (chunk(500, errors=MAX_500_AT_OFFSET), FRESH, Restart(None, is_session_gone=True)),
        (chunk(503), FRESH, Fail()),
        # a whole blob in one PUT
        (whole(413), FRESH, Restart(40, is_session_gone=False)),
        (whole(413, length=30), FRESH, Restart(15, is_session_gone=False)),
        (whole(413, length=12), FRESH, Restart(10, is_session_gone=False)),
        (whole(413, length=10), FRESH, Fail()),
        (whole(404), FRESH, Restart(None, is_session_gone=True)),
        (whole(400), FRESH, Fail()),
        (whole(500), FRESH, Fail()),
    ],
)
def test_each_refusal_has_its_answer(
    refusal: Refusal, limits: ChunkLimits, expected: Decision
) -> None:
    assert decide(refusal, limits) == expected
