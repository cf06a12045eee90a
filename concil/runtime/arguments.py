"""Checks the types of arguments; errors name the argument."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TypeVar

Kind = TypeVar("Kind")


def type_error(name: str, expected: str, value: object) -> TypeError:
    """Return the error for an argument of the wrong type."""
    return TypeError(f"{name} must be {expected}, not {type(value).__name__}")


def check_instance(
    name: str, value: Kind, kinds: type | tuple[type, ...], expected: str = ""
) -> Kind:
    """Check the type of an argument and return it.

    Args:
        expected: the types in words; "" for their names.
    Raises:
        TypeError: it has none of these types; a bool does not count as a number.
    """
    types = kinds if isinstance(kinds, tuple) else (kinds,)
    if not isinstance(value, types) or (isinstance(value, bool) and bool not in types):
        names = ("None" if kind is type(None) else kind.__name__ for kind in types)
        raise type_error(name, expected or " or ".join(names), value)
    return value


def check_str(name: str, value: str) -> str:
    """Return a string unchanged.

    Raises:
        TypeError: it is not a string.
    """
    return check_instance(name, value, str)


def check_optional_str(name: str, value: str | None) -> str | None:
    """Return a string or None unchanged. Raises as `check_str`."""
    return check_instance(name, value, (str, type(None)))


def to_str_tuple(name: str, value: Iterable[str]) -> tuple[str, ...]:
    """Return strings as a tuple.

    Raises:
        TypeError: it is a single string, which would be read as characters, or not strings.
    """
    expected = "a sequence of str"
    if isinstance(value, (str, bytes)) or not isinstance(value, Iterable):
        raise type_error(name, expected, value)
    items = tuple(value)
    for item in items:
        if not isinstance(item, str):
            raise TypeError(f"{name} must be {expected}, not of {type(item).__name__}")
    return items


def to_path(name: str, value: str | os.PathLike[str]) -> str:
    """Return a path as a string.

    Raises:
        TypeError: it is not a path.
    """
    path = os.fspath(check_instance(name, value, (str, os.PathLike), "str or os.PathLike"))
    return check_instance(name, path, str, "str or os.PathLike")


def to_memoryview(name: str, value: bytes | bytearray | memoryview) -> memoryview:
    """Return bytes in memory as a view of single bytes.

    Raises:
        TypeError: it is another type.
    """
    return memoryview(check_instance(name, value, (bytes, bytearray, memoryview), "bytes")).cast(
        "B"
    )


def check_numbers(
    settings: object, names: str, kinds: type | tuple[type, ...] = (int, float)
) -> None:
    """Check the numeric attributes of ``settings``.

    Args:
        names: of the attributes, separated by spaces; ``?`` at the end allows None.
        kinds: allowed types; ``int`` for whole numbers.
    Raises:
        TypeError: an attribute is not a number.
    """
    allowed = kinds if isinstance(kinds, tuple) else (kinds,)
    for name in names.split():
        value = getattr(settings, name.rstrip("?"))
        if value is not None or not name.endswith("?"):
            check_instance(name.rstrip("?"), value, allowed)


def to_verify(verify: bool | str | os.PathLike[str] | None) -> bool | str:  # noqa: FBT001 - requests'
    """Return the argument ``verify`` in the form requests uses; None means True.

    Raises:
        TypeError: it is neither a bool nor a path.
    """
    if verify is None or isinstance(verify, bool):
        return verify is not False
    expected = "bool, str or os.PathLike"
    return os.fspath(check_instance("verify", verify, (str, os.PathLike), expected))


def check_callable(name: str, value: object) -> None:
    """Check an argument that is a callable or None.

    Raises:
        TypeError: it is not callable.
    """
    if value is not None and not callable(value):
        raise type_error(name, "callable", value)


def check_optional(**given: tuple[object, type]) -> None:
    """Check arguments that may be None, each against its type.

    Raises:
        TypeError: an argument has another type.
    """
    for name, (value, kind) in given.items():
        check_instance(name, value, (kind, type(None)))
