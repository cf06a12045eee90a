"""Tables that are printed while their rows are found."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from concil.cli.output.tables import print_table, stream_table


def test_a_short_table_is_aligned_as_a_whole(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [("a", "1"), ("longer", "22")]
    print_table(("NAME", "SIZE"), rows, "SIZE")
    expected = capsys.readouterr().out
    stream_table(("NAME", "SIZE"), iter(rows), "SIZE")

    assert capsys.readouterr().out == expected == "NAME    SIZE\na          1\nlonger    22\n"


def test_rows_are_printed_before_the_last_one_is_known(
    capsys: pytest.CaptureFixture[str],
) -> None:
    counts = []

    def rows() -> Iterator[tuple[str, str]]:
        printed = 0
        for number in range(60):
            yield (f"{number:02}" + "x" * (number == 50), "x")
            printed += capsys.readouterr().out.count("\n")
            counts.append(printed)

    stream_table(("N", "X"), rows())

    # The header and twenty rows together, then each row at once.
    assert counts[19:] == [*range(21, 62)]


def test_a_column_becomes_wider_where_a_later_row_needs_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    names = [*(f"{number:02}" for number in range(30)), "a long name", "b"]
    stream_table(("N", "X"), ((name, "x") for name in names))

    lines = capsys.readouterr().out.splitlines()
    assert {line.index("x") for line in lines[1:31]} == {4}
    assert {line.rindex("x") for line in lines[31:]} == {13}


def test_a_table_without_rows_has_a_header(capsys: pytest.CaptureFixture[str]) -> None:
    stream_table(("N", "X"), iter(()))

    assert capsys.readouterr().out == "N  X\n"
