"""`dataclass` of the standard library, with its functions made when they are first needed.

The standard library compiles up to six functions for each class while modules are imported: 0.4 ms
a class, a quarter of the start of `concil copy`. Here `__init__` is compiled by the first call, and
the others are closures. Source: docs/decisions/0015.
"""

from __future__ import annotations

import dataclasses
import inspect
import operator
import reprlib
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

__all__ = ["dataclass"]


def _dataclass(
    cls: type | None = None,
    /,
    *,
    frozen: bool = False,
    slots: bool = False,
    eq: bool = True,
    repr: bool = True,  # noqa: A002 - the arguments are those of the standard library
) -> Any:  # noqa: ANN401 - a class, or a decorator; type checkers see the original
    """Make a class a dataclass.

    `dataclasses.fields`, `replace`, `asdict`, `pickle`, `copy` and `inspect.signature` work as
    with the original.
    """
    if cls is None:
        return lambda cls: _dataclass(cls, frozen=frozen, slots=slots, eq=eq, repr=repr)
    own = frozenset(cls.__dict__)
    has_hash = cls.__dict__.get("__hash__") is not None  # None beside an __eq__ of its own
    # A frozen base demands a frozen class, at the cost of compiling two functions.
    is_derived = any(map(dataclasses.is_dataclass, cls.__mro__[1:]))
    make = dataclasses.dataclass(
        init=False, repr=False, eq=False, frozen=frozen and is_derived, slots=slots
    )
    cls = make(cls)
    for name, value in {"init": True, "repr": repr, "eq": eq, "frozen": frozen}.items():
        setattr(cls.__dataclass_params__, name, value)  # type: ignore[attr-defined]
    fields = dataclasses.fields(cls)
    added: dict[str, object] = {"__init__": _make_init(cls, frozen=frozen)}
    added["__signature__"] = _Signature()
    if repr:
        added["__repr__"] = _make_repr([field.name for field in fields if field.repr])
    if eq:
        values = _make_getter([field.name for field in fields if field.compare])
        added |= _make_comparison(values)
        if not has_hash:
            added["__hash__"] = _make_hash(fields) if frozen else None
    if frozen:
        added |= _make_guards(cls, frozenset(field.name for field in fields))
        if slots:
            added |= {"__getstate__": _get_state, "__setstate__": _set_state}
    for name, function in added.items():
        if name not in own or name == "__hash__":
            setattr(cls, name, function)
    return cls


if TYPE_CHECKING:
    from dataclasses import dataclass
else:
    dataclass = _dataclass


class _Stub:
    """Marks an `__init__` that has not been compiled yet."""

    __slots__ = ("compile",)

    def __init__(self, compile_init: Callable[[], Callable[..., None]]) -> None:
        self.compile = compile_init  # installs the function and returns it


class _Factory:
    """The default of a parameter whose value a function makes."""

    def __repr__(self) -> str:
        return "<factory>"


_FACTORY = _Factory()


def _make_init(cls: type, *, frozen: bool) -> Callable[..., None]:
    def install() -> Callable[..., None]:
        init = _compile_init(cls, frozen=frozen)
        cls.__init__ = init  # type: ignore[misc]
        return init

    def __init__(self: object, *args: object, **kwargs: object) -> None:  # noqa: N807
        install()(self, *args, **kwargs)

    __init__.stub = _Stub(install)  # type: ignore[attr-defined]
    return __init__


def _compile_init(cls: type, *, frozen: bool) -> Callable[..., None]:
    """Return the function that sets the fields, as the standard library makes it."""
    fields = dataclasses.fields(cls)
    names: dict[str, Any] = {"_FACTORY": _FACTORY, "_set": object.__setattr__}
    parameters, body = ["self"], []
    for field in fields:
        name = value = field.name
        if field.default_factory is not dataclasses.MISSING:
            names[f"_make_{name}"] = field.default_factory
            value = f"_make_{name}()"
            if field.init:
                parameters.append(f"{name}=_FACTORY")
                value = f"{value} if {name} is _FACTORY else {name}"
        elif field.default is not dataclasses.MISSING:
            names[f"_default_{name}"] = field.default
            parameters.append(f"{name}=_default_{name}")
        elif field.init:
            parameters.append(name)
        else:
            continue  # __post_init__ sets it
        body.append(f"_set(self, {name!r}, {value})" if frozen else f"self.{name} = {value}")
    if hasattr(cls, "__post_init__"):
        body.append("self.__post_init__()")
    lines = "\n    ".join(body or ["pass"])
    source = f"def __init__({', '.join(parameters)}):\n    {lines}"
    exec(source, names)  # noqa: S102 - made of the names of fields
    init: Callable[..., None] = names["__init__"]
    init.__qualname__, init.__module__ = f"{cls.__qualname__}.__init__", cls.__module__
    types = {field.name: field.type for field in fields if field.init}
    init.__annotations__ = types | {"return": None}
    return init


class _Signature:
    """The signature of a class, for `inspect.signature` and `help`."""

    def __get__(self, instance: object, owner: type) -> inspect.Signature:
        init: Any = owner.__init__  # type: ignore[misc]
        stub = getattr(init, "stub", None)
        signature = inspect.signature(stub.compile() if stub is not None else init)
        return signature.replace(parameters=list(signature.parameters.values())[1:])


def _make_getter(names: Iterable[str]) -> Callable[[object], tuple[object, ...]]:
    """Return a function that returns the values of fields."""
    names = tuple(names)
    if len(names) > 1:
        return operator.attrgetter(*names)
    return lambda self: tuple(getattr(self, name) for name in names)


def _make_repr(names: Iterable[str]) -> Callable[[object], str]:
    @reprlib.recursive_repr()
    def __repr__(self: object) -> str:  # noqa: N807
        shown = ", ".join(f"{name}={getattr(self, name)!r}" for name in names)
        return f"{type(self).__qualname__}({shown})"

    return __repr__


def _make_comparison(values: Callable[[object], tuple[object, ...]]) -> dict[str, object]:
    def __eq__(self: object, other: object) -> bool:  # noqa: N807
        if type(other) is type(self):
            return values(self) == values(other)
        return NotImplemented

    return {"__eq__": __eq__}


def _make_hash(fields: Iterable[dataclasses.Field[Any]]) -> Callable[[object], int]:
    values = _make_getter(
        [field.name for field in fields if (field.compare if field.hash is None else field.hash)]
    )

    def __hash__(self: object) -> int:  # noqa: N807
        return hash(values(self))

    return __hash__


def _make_guards(cls: type, names: frozenset[str]) -> dict[str, object]:
    """Return the functions that keep the fields of a frozen class as they are."""
    owner: Any = cls

    def __setattr__(self: object, name: str, value: object) -> None:  # noqa: N807
        if type(self) is cls or name in names:
            raise dataclasses.FrozenInstanceError(f"cannot assign to field {name!r}")
        super(owner, self).__setattr__(name, value)

    def __delattr__(self: object, name: str) -> None:  # noqa: N807
        if type(self) is cls or name in names:
            raise dataclasses.FrozenInstanceError(f"cannot delete field {name!r}")
        super(owner, self).__delattr__(name)

    return {"__setattr__": __setattr__, "__delattr__": __delattr__}


def _get_state(self: Any) -> list[object]:  # noqa: ANN401 - any dataclass
    return [getattr(self, field.name) for field in dataclasses.fields(self)]


def _set_state(self: Any, state: Iterable[object]) -> None:  # noqa: ANN401 - any dataclass
    for field, value in zip(dataclasses.fields(self), state, strict=True):
        object.__setattr__(self, field.name, value)
