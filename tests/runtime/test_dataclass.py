"""`concil.runtime.dataclass` beside the original of the standard library."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import pickle
import re
from collections.abc import Callable
from dataclasses import field
from pathlib import Path
from typing import Any

import pytest

import concil
from concil.runtime.dataclass import dataclass

DECORATORS: tuple[Callable[..., Any], ...] = (dataclass, dataclasses.dataclass)


@dataclass(frozen=True, slots=True)
class Value:
    """A value with every kind of field."""

    name: str
    secret: str = field(default="", repr=False)
    note: str = field(default="", compare=False)
    tags: dict[str, int] = field(default_factory=dict, hash=False)


@dataclass(slots=True)
class Counter:
    """A value that changes."""

    count: int = 0
    doubled: int = field(init=False)

    def __post_init__(self) -> None:
        if self.count < 0:
            raise ValueError("negative")
        self.doubled = 2 * self.count


@dataclass(frozen=True)
class Base:
    """A class with a subclass."""

    first: int


@dataclass(frozen=True)
class Derived(Base):
    """A class with a base."""

    second: int = 2


class Plain(Base):
    """A subclass that is no dataclass."""


def make(decorator: Callable[..., Any], **options: bool) -> type[Any]:
    """Return the same class for each decorator."""

    class Point:
        """A point."""

        x: int
        y: int = 1
        names: list[str] = field(default_factory=list)

    Point.__annotations__ = {"x": int, "y": int, "names": list[str]}
    made: type[Any] = decorator(**options)(Point)
    return made


@pytest.mark.parametrize("slots", [False, True])
@pytest.mark.parametrize("frozen", [False, True])
def test_functions_are_those_of_the_original(frozen: bool, slots: bool) -> None:
    ours, original = (make(each, frozen=frozen, slots=slots) for each in DECORATORS)

    assert str(inspect.signature(ours)) == str(inspect.signature(original))
    assert ours.__match_args__ == original.__match_args__
    assert repr(ours(1)) == repr(original(1))
    assert ours(1) == ours(1, 1, [])
    assert ours(1) != ours(2)
    assert ours(1) != original(1)
    assert hasattr(ours(1), "__dict__") is hasattr(original(1), "__dict__") is not slots
    assert (ours.__hash__ is None) is (original.__hash__ is None) is not frozen
    assert dataclasses.asdict(ours(1)) == dataclasses.asdict(original(1))
    assert dataclasses.replace(ours(1), y=5) == ours(1, 5)
    assert ours(1).names is not ours(1).names
    assert str(inspect.signature(ours.__init__)) == str(inspect.signature(original.__init__))


@pytest.mark.parametrize(
    ("arguments", "named"), [((), {}), ((1, 2, [], 4), {}), ((1,), {"z": 1}), ((1,), {"x": 1})]
)
def test_wrong_arguments_are_described_as_by_the_original(
    arguments: tuple[int, ...], named: dict[str, int]
) -> None:
    messages = []
    for cls in (make(each) for each in DECORATORS):
        with pytest.raises(TypeError) as caught:
            cls(*arguments, **named)
        messages.append(str(caught.value))

    assert messages[0] == messages[1]


@pytest.mark.parametrize(
    "copied", [copy.copy, copy.deepcopy, lambda it: pickle.loads(pickle.dumps(it))]
)
def test_a_frozen_class_with_slots_is_copied(copied: Callable[[Value], Value]) -> None:
    value = Value("a", "b", "c", {"d": 1})

    twin = copied(value)

    assert (twin.name, twin.secret, twin.note, twin.tags) == ("a", "b", "c", {"d": 1})


def test_fields_that_are_left_out_of_text_and_comparison() -> None:
    assert repr(Value("a", "b", "c")) == "Value(name='a', note='c', tags={})"
    assert Value("a", "b", "c") == Value("a", "b", "d")
    assert Value("a", "b") != Value("a", "c")


def test_fields_of_a_frozen_class_stay() -> None:
    value, plain = Value("a"), Plain(1)

    with pytest.raises(dataclasses.FrozenInstanceError, match="cannot assign to field 'name'"):
        value.name = "b"  # type: ignore[misc]
    with pytest.raises(dataclasses.FrozenInstanceError, match="cannot delete field 'name'"):
        del value.name
    with pytest.raises(dataclasses.FrozenInstanceError):
        plain.first = 2  # type: ignore[misc]
    plain.other = 3  # type: ignore[attr-defined]  # as with the original
    assert value.name == "a"


def test_hash_is_that_of_the_compared_fields() -> None:
    assert len({Derived(1), Derived(1, 2), Derived(1, 3)}) == 2
    assert hash(Value("a", note="b", tags={"c": 1})) == hash(Value("a"))


def test_post_init_runs_and_may_refuse() -> None:
    assert Counter(3).doubled == 6
    with pytest.raises(ValueError, match="negative"):
        Counter(-1)


def test_a_subclass_has_the_fields_of_its_base() -> None:
    assert repr(Derived(1)) == "Derived(first=1, second=2)"
    assert Plain(5).first == 5
    assert Base(1) != Derived(1)


def test_a_dataclass_of_the_original_has_one_of_these_as_base() -> None:
    @dataclasses.dataclass(frozen=True)
    class Third(Derived):
        """As a program of a user may have it."""

        third: int = 3

    @dataclass(frozen=True)
    class Fourth(Third):
        """And the reverse."""

        fourth: int = 4

    assert repr(Third(1)).endswith("Third(first=1, second=2, third=3)")
    assert Fourth(1, fourth=5).fourth == 5
    with pytest.raises(dataclasses.FrozenInstanceError):
        Fourth(1).first = 2  # type: ignore[misc]
    with pytest.raises(TypeError, match="cannot inherit non-frozen"):

        @dataclass
        class Loose(Derived):  # type: ignore[misc]
            """Not frozen as its base."""


def test_own_functions_stay() -> None:
    @dataclass(frozen=True)
    class Odd:
        """A class that compares itself."""

        number: int

        def __eq__(self, other: object) -> bool:
            return isinstance(other, Odd) and self.number % 2 == other.number % 2

        def __hash__(self) -> int:
            return self.number % 2

        def __repr__(self) -> str:
            return "odd"

    assert (Odd(1) == Odd(3), hash(Odd(5)), repr(Odd(1))) == (True, 1, "odd")


def test_an_object_in_itself_has_a_text() -> None:
    counter = Value("a")
    counter.tags["self"] = counter  # type: ignore[assignment]

    assert repr(counter) == "Value(name='a', note='', tags={'self': ...})"


def test_all_classes_of_the_package_are_made_in_this_way() -> None:
    package = Path(concil.__file__).parent
    original = {
        str(path.relative_to(package))
        for path in package.rglob("*.py")
        if re.search(r"^from dataclasses import .*\bdataclass\b", path.read_text(), re.MULTILINE)
    }

    assert original <= {"runtime/dataclass.py", "transfer/worker_pool.py"}  # it compares its jobs
