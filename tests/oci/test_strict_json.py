"""JSON of strangers: nothing ambiguous, nothing that fills the memory."""

from __future__ import annotations

import contextlib
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from concil.config import MIB
from concil.oci.strict_json import MAX_PARTS, MOST_NESTING, InvalidJSON, parse_json
from tests.support.quick_retries import UNTIMED


def test_a_document_is_read() -> None:
    assert parse_json(b'{"a": [1, 2.5, "\\u00e9", null, true]}') == {"a": [1, 2.5, "é", None, True]}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param(b"", "not JSON", id="nothing"),
        pytest.param(b"<html>", "not JSON", id="html"),
        pytest.param(b"{} {}", "not JSON", id="two documents"),
        pytest.param(b"\xef\xbb\xbf{}", "not JSON", id="byte order mark"),
        pytest.param('{"a": 1}'.encode("utf-16"), "not JSON", id="utf-16"),
        pytest.param(b'{"a": "\xff"}', "not JSON", id="not UTF-8"),
        pytest.param(b'{"a": NaN}', "NaN or Infinity", id="NaN"),
        pytest.param(b"[-Infinity]", "NaN or Infinity", id="infinity"),
        pytest.param(b"9" * 5000, "not JSON", id="a number of 5000 digits"),
        pytest.param(b'{"a": 1, "a": 2}', "a duplicate key", id="a duplicate key"),
        pytest.param(b'[{"b": {"a": 1, "\\u0061": 1}}]', "a duplicate key", id="written otherwise"),
        pytest.param(b"[" * 100_000, "nested too deeply", id="lists in lists"),
        pytest.param(b'{"a":' * 100_000, "nested too deeply", id="objects in objects"),
        pytest.param(b"[" + b"[]," * 1_300_000 + b"0]", "more than 300000 parts", id="lists"),
        pytest.param(b"[" + b"{}," * 1_300_000 + b"0]", "more than 300000 parts", id="objects"),
        pytest.param(b"[" + b"99," * 1_300_000 + b"0]", "more than 300000 parts", id="numbers"),
    ],
)
def test_what_is_not_taken(content: bytes, message: str) -> None:
    with pytest.raises(InvalidJSON, match=message):
        parse_json(content)


@pytest.mark.parametrize(("opening", "closing"), [(b"[", b"]"), (b'{"a":', b"}")])
def test_how_deep_a_document_may_nest(opening: bytes, closing: bytes) -> None:
    for beside in (b"", b"[],{},[],{}," * 100):
        most = opening * (MOST_NESTING - 1) + b"1" + closing * (MOST_NESTING - 1)

        assert parse_json(b"[" + beside + most + b"]") is not None
        with pytest.raises(InvalidJSON, match="nested too deeply"):
            parse_json(b"[[" + beside + most + b"]]")


@pytest.mark.parametrize("piece", [b"[],", b"{},", '"\u4e00",'.encode(), b"1.5,", b'{"a":0},'])
def test_the_most_that_is_taken_is_small(piece: bytes) -> None:
    count = min(4 * MIB // len(piece), MAX_PARTS // sum(map(piece.count, (b"[", b"{", b","))) - 2)
    content = b"[" + piece * count + b"0]"
    tracemalloc.start()
    try:
        parse_json(content)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert peak < 60 * MIB


@pytest.mark.parametrize("opening", [b"[", b'{"a":', b'["\\"]", {"[": [', b'[{"]]]]}}}}":'])
def test_deep_nesting_is_seen_before_it_is_parsed(opening: bytes) -> None:
    with pytest.raises(InvalidJSON, match="nested too deeply") as caught:
        parse_json(opening * 60_000)

    # At the limit of recursion, what the garbage collector finalizes fails too.
    assert caught.value.__context__ is None


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b'{"a": "' + b"[" * 1000 + b'"}', id="string"),
        pytest.param(b'["\\"' + b"[" * 1000 + b'\\\\"]', id="escapes"),
        pytest.param(b"[" + b"[{}]," * 1000 + b"0]", id="side by side"),
    ],
)
def test_brackets_that_do_not_nest_are_not_counted(content: bytes) -> None:
    assert parse_json(content) is not None


@UNTIMED
@given(st.binary(max_size=60) | st.text('{}[]",:01NaI\\u ', max_size=60).map(str.encode))
def test_no_bytes_raise_anything_else(content: bytes) -> None:
    with contextlib.suppress(InvalidJSON):
        parse_json(content)
