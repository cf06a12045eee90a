"""A plan that changes while a service runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from concil.errors import UsageError
from concil.plan.rule import ParsedPlan
from concil.service.plan_file import PlanFile

GOOD = "r.example/a:1 -> oci:out:a\n"
BETTER = GOOD + "r.example/b:1 -> oci:out:b\n"


def refuse_odd(plan: ParsedPlan) -> None:
    if any("odd" in rule.source for rule in plan.rules):
        raise UsageError("odd")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "list"
    path.write_text(GOOD)
    return path


def sources(file: PlanFile) -> list[str]:
    return [rule.source for rule in file.plan.rules]


def test_a_plan_that_has_changed_is_read_again(path: Path) -> None:
    file = PlanFile(str(path), refuse_odd)
    assert not file.reload()

    path.write_text(BETTER)

    assert file.reload()
    assert sources(file) == ["r.example/a:1", "r.example/b:1"]
    assert not file.reload()


def test_a_plan_that_was_replaced_by_renaming_is_read_again(path: Path) -> None:
    file = PlanFile(str(path), refuse_odd)
    other = path.with_name("other")
    other.write_text(BETTER)
    other.rename(path)

    assert file.reload()


@pytest.mark.parametrize("content", [b"\xff\xfe", b"odd.example/x:1 -> oci:out:x\n", None])
def test_a_plan_that_cannot_be_used_is_said_once_and_the_last_one_stays(
    path: Path, content: bytes | None, caplog: pytest.LogCaptureFixture
) -> None:
    file = PlanFile(str(path), refuse_odd)
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)

    assert not file.reload()
    assert not file.reload()

    assert sources(file) == ["r.example/a:1"]
    assert caplog.text.count("the last good one goes on") == 1
    assert file.problem
    path.write_text(GOOD)
    assert not file.reload()
    assert not file.problem
    path.write_text(BETTER)
    assert file.reload()


def test_a_broken_plan_at_the_beginning_is_an_error(path: Path) -> None:
    path.write_text("odd.example/x:1\n")

    with pytest.raises(UsageError):
        PlanFile(str(path), refuse_odd)


def test_a_forced_reload_reads_a_file_whose_times_are_the_same(path: Path) -> None:
    file = PlanFile(str(path), refuse_odd)

    assert not file.reload(is_forced=True)  # nothing new in it
    assert sources(file) == ["r.example/a:1"]
