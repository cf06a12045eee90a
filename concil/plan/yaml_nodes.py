"""YAML as values that know their lines; the only importer of PyYAML."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from concil.errors import UsageError, shown

_REMEDY = "a plan in YAML is a file of regsync or skopeo: see docs/plans.md"


@dataclass(frozen=True, slots=True)
class Place:
    """Where something stands."""

    name: str  # of the file
    line: int

    def wrong(self, what: str, remedy: str = "") -> UsageError:
        """An error that begins with the place."""
        return UsageError(f"{self}: {what}", remedy=remedy)

    def __str__(self) -> str:
        """Return ``file:line``."""
        return f"{self.name}:{self.line}"


@dataclass(frozen=True, slots=True)
class Item:
    """A value of a document: a mapping or list of items, or a scalar."""

    value: Any
    place: Place
    written: str = ""  # of a scalar: 1.10 is a tag, and no number

    def mapping(self, what: str) -> dict[str, Item]:
        """The mapping that it must be; nothing at all is an empty one."""
        if self.value is None:
            return {}
        if not isinstance(self.value, dict):
            raise self.place.wrong(f"{what}: not a mapping")
        return self.value

    def items(self, what: str) -> list[Item]:
        """The list that it must be; nothing at all is an empty one, a scalar a list of one."""
        if self.value is None:
            return []
        if isinstance(self.value, dict):
            raise self.place.wrong(f"{what}: not a list")
        return self.value if isinstance(self.value, list) else [self]

    def text(self, what: str) -> str:
        """The text that it must be; a number or a date is what is written, as in Go."""
        if self.value is None or isinstance(self.value, (dict, list)) or not self.written:
            raise self.place.wrong(f"{what}: not a text", "put it into quotes")
        return self.written

    def texts(self, what: str) -> Iterator[str]:
        """The texts of a list."""
        for item in self.items(what):
            yield item.text(what)


def load(text: str, name: str) -> Item:
    """Read a document.

    Args:
        name: what the file is called in messages.
    Raises:
        UsageError: it is no YAML, or PyYAML is not installed.
    """
    try:
        import yaml  # noqa: PLC0415 - an extra; who writes no YAML does without
    except ImportError as error:
        raise UsageError(
            f"{name}: reading YAML needs PyYAML", remedy="pip install 'concil[yaml]'"
        ) from error
    loader = yaml.SafeLoader(text)
    try:
        node = loader.get_single_node()
        return _Reader(loader, name).read(node) if node else Item(None, Place(name, 1))
    except UsageError:  # a ValueError, too
        raise
    except RecursionError as error:
        raise UsageError(f"{name}: it nests too deep", remedy=_REMEDY) from error
    except (yaml.YAMLError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        line = mark.line + 1 if mark is not None else 1
        problem = str(getattr(error, "problem", None) or "not YAML")
    finally:
        loader.dispose()
    # Not from the error: that quotes the line, which may hold a password.
    raise UsageError(f"{name}:{line}: {shown(problem)}", remedy=_REMEDY)


class _Reader:
    """Turns nodes into items, each node once: aliases of aliases stay small."""

    def __init__(self, loader: Any, name: str) -> None:  # noqa: ANN401 - yaml.SafeLoader
        self._loader = loader
        self._name = name
        self._known: dict[int, Item] = {}

    def read(self, node: Any) -> Item:  # noqa: ANN401 - a node of yaml
        known = self._known.get(id(node))
        if known is not None:
            return known
        place = Place(self._name, node.start_mark.line + 1)
        value: Any
        item: Item
        if node.id == "mapping":
            value = {}
            item = self._known[id(node)] = Item(value, place)
            self._loader.flatten_mapping(node)
            for key, child in node.value:
                if key.id != "scalar":
                    raise Place(self._name, key.start_mark.line + 1).wrong(
                        "a key is no text", _REMEDY
                    )
                # People look for the key: its value may begin in the next line.
                line = Place(self._name, key.start_mark.line + 1)
                value[str(key.value)] = replace(self.read(child), place=line)
        elif node.id == "sequence":
            value = []
            item = self._known[id(node)] = Item(value, place)
            value += [self.read(child) for child in node.value]
        else:
            value = self._loader.construct_object(node)
            item = self._known[id(node)] = Item(value, place, node.value)
        return item
