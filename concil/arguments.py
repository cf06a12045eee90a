"""Checks the types of what a caller hands over; the errors name the argument."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TypeVar

Kind = TypeVar("Kind")


def wrong_type(name: str, wanted: str, value: object) -> TypeError:
    """Return the error for an argument of another type than was asked for."""
    return TypeError(f"{name} must be {wanted}, not {type(value).__name__}")


def instance(name: str, value: Kind, kinds: type | tuple[type, ...], wanted: str = "") -> Kind:
    """Return ``value``.

    Args:
        wanted: the types in words; "": by their names.
    Raises:
        TypeError: it is of none of these types; a bool is no number.
    """
    types = kinds if isinstance(kinds, tuple) else (kinds,)
    if not isinstance(value, types) or (isinstance(value, bool) and bool not in types):
        names = ("None" if kind is type(None) else kind.__name__ for kind in types)
        raise wrong_type(name, wanted or " or ".join(names), value)
    return value


def text(name: str, value: str) -> str:
    """Return a text as it is.

    Raises:
        TypeError: it is none.
    """
    return instance(name, value, str)


def optional_text(name: str, value: str | None) -> str | None:
    """Return a text or None as it is. Raises as `text`."""
    return instance(name, value, (str, type(None)))


def texts(name: str, value: Iterable[str]) -> tuple[str, ...]:
    """Return some texts as a tuple.

    Raises:
        TypeError: it is a single one, whose characters would be taken for texts, or no texts.
    """
    wanted = "a sequence of str"
    if isinstance(value, (str, bytes)) or not isinstance(value, Iterable):
        raise wrong_type(name, wanted, value)
    found = tuple(value)
    for each in found:
        if not isinstance(each, str):
            raise TypeError(f"{name} must be {wanted}, not of {type(each).__name__}")
    return found


def path(name: str, value: str | os.PathLike[str]) -> str:
    """Return a path as a text.

    Raises:
        TypeError: it is none.
    """
    found = os.fspath(instance(name, value, (str, os.PathLike), "str or os.PathLike"))
    return instance(name, found, str, "str or os.PathLike")


def content(name: str, value: bytes | bytearray | memoryview) -> memoryview:
    """Return bytes in memory as a view of single bytes.

    Raises:
        TypeError: it is something else.
    """
    return memoryview(instance(name, value, (bytes, bytearray, memoryview), "bytes")).cast("B")


def numbers(settings: object, names: str, kinds: type | tuple[type, ...] = (int, float)) -> None:
    """Check the attributes of ``settings`` that are numbers.

    Args:
        names: of the attributes, separated by spaces; one that ends in ``?`` may be None.
        kinds: of the numbers; ``int`` for whole ones.
    Raises:
        TypeError: one is no number.
    """
    allowed = kinds if isinstance(kinds, tuple) else (kinds,)
    for name in names.split():
        value = getattr(settings, name.rstrip("?"))
        if value is not None or not name.endswith("?"):
            instance(name.rstrip("?"), value, allowed)


def trust(verify: bool | str | os.PathLike[str] | None) -> bool | str:  # noqa: FBT001 - requests'
    """Return the argument ``verify`` as requests has it; None: True.

    Raises:
        TypeError: it is no bool and no path.
    """
    if verify is None or isinstance(verify, bool):
        return verify is not False
    wanted = "bool, str or os.PathLike"
    return os.fspath(instance("verify", verify, (str, os.PathLike), wanted))


def callback(name: str, value: object) -> None:
    """Check what is called later, or None.

    Raises:
        TypeError: it cannot be called.
    """
    if value is not None and not callable(value):
        raise wrong_type(name, "callable", value)


def options(**given: tuple[object, type]) -> None:
    """Check arguments that may be None, each with its type.

    Raises:
        TypeError: one is of another type.
    """
    for name, (value, kind) in given.items():
        instance(name, value, (kind, type(None)))
