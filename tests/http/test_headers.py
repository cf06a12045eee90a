"""Headers of plain exchanges, compared with those of requests."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from requests.structures import CaseInsensitiveDict

from concil.http.headers import Headers

NAMES = st.sampled_from(["Range", "range", "RANGE", "Location", "location", "X-Other"])
VALUES = st.text(max_size=3)
STEPS = st.one_of(
    st.tuples(st.sampled_from(["__setitem__", "setdefault"]), NAMES, VALUES),
    st.tuples(st.sampled_from(["__delitem__", "pop", "__getitem__"]), NAMES),
)


def run(headers: Any, name: str, *arguments: str) -> Any:  # noqa: ANN401 - of either kind
    """What a method returns, or the error."""
    try:
        return getattr(headers, name)(*arguments)
    except KeyError as error:
        return str(error)


def contents(headers: Any) -> tuple[Any, ...]:  # noqa: ANN401 - of either kind
    """What can be read from headers."""
    return (
        list(headers),
        len(headers),
        repr(headers),
        list(headers.items()),
        list(headers.lower_items()),
        list(headers.values()),
        [(name in headers, headers.get(name), headers.get(name, "-")) for name in ("rAnGe", "no")],
    )


@given(st.lists(st.tuples(NAMES, VALUES), max_size=3), st.lists(STEPS, max_size=8))
def test_headers_do_what_those_of_requests_do(
    initial: list[tuple[str, str]], steps: list[tuple[str, ...]]
) -> None:
    ours: Any = Headers(initial)
    theirs: Any = CaseInsensitiveDict(initial)

    for step in steps:
        assert run(ours, *step) == run(theirs, *step)

    assert contents(ours) == contents(theirs)
    assert contents(ours.copy()) == contents(pickle.loads(pickle.dumps(ours))) == contents(ours)
    assert ours == theirs
    assert theirs == ours


def test_a_copy_is_changed_alone() -> None:
    headers = Headers({"Range": "0-1"})

    copy = headers.copy()
    copy["range"] = "0-2"

    assert (headers["Range"], copy["Range"]) == ("0-1", "0-2")


def test_a_missing_header_is_a_key_error() -> None:
    with pytest.raises(KeyError):
        Headers()["Range"]
