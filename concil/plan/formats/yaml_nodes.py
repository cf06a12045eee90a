"""YAML values with line numbers; the only importer of PyYAML."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from concil.errors import UsageError, safe_repr
from concil.runtime.dataclass import dataclass
from concil.runtime.recursion import pause_collection

_REMEDY = "a plan in YAML is a file of regsync or skopeo: see docs/plans.md"


@dataclass(frozen=True, slots=True)
class Location:
    """File and line of a value."""

    file: str  # name of the file
    line: int

    def error(self, message: str, remedy: str = "") -> UsageError:
        """Return an error whose message starts with this location."""
        return UsageError(f"{self}: {message}", remedy=remedy)

    def __str__(self) -> str:
        """Return ``file:line``."""
        return f"{self.file}:{self.line}"


@dataclass(frozen=True, slots=True)
class YAMLValue:
    """A value of a document: a mapping or list of items, or a scalar."""

    value: Any
    location: Location
    text: str = ""  # of a scalar, as written: 1.10 is a tag, not a number

    def as_mapping(self, name: str) -> dict[str, YAMLValue]:
        """Return the value as a mapping; an absent value is an empty one."""
        if self.value is None:
            return {}
        if not isinstance(self.value, dict):
            raise self.location.error(f"{name}: not a mapping")
        return self.value

    def as_list(self, name: str) -> list[YAMLValue]:
        """Return the value as a list; an absent value is an empty list, a scalar a list of one."""
        if self.value is None:
            return []
        if isinstance(self.value, dict):
            raise self.location.error(f"{name}: not a list")
        return self.value if isinstance(self.value, list) else [self]

    def as_text(self, name: str) -> str:
        """Return the value as text; a number or a date is returned as it is written, as in Go."""
        if self.value is None or isinstance(self.value, (dict, list)) or not self.text:
            raise self.location.error(f"{name}: not a string", "write it in quotes")
        return self.text

    def as_texts(self, name: str) -> Iterator[str]:
        """Yield the texts of a list."""
        for item in self.as_list(name):
            yield item.as_text(name)


def load(text: str, name: str) -> YAMLValue:
    """Parse a YAML document.

    Args:
        name: name of the file in messages.
    Raises:
        UsageError: it is not YAML, or PyYAML is not installed.
    """
    try:
        import yaml  # noqa: PLC0415 - an extra; who writes no YAML does without
    except ImportError as error:
        raise UsageError(
            f"{name}: reading YAML needs PyYAML", remedy="pip install 'concil[yaml]'"
        ) from error
    loader = yaml.SafeLoader(text)
    try:
        with pause_collection():
            node = loader.get_single_node()
            return _Reader(loader, name).read(node) if node else YAMLValue(None, Location(name, 1))
    except UsageError:  # it is a ValueError, too
        raise
    except RecursionError as error:
        raise UsageError(f"{name}: it is nested too deeply", remedy=_REMEDY) from error
    except (yaml.YAMLError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        line = mark.line + 1 if mark is not None else 1
        problem = str(getattr(error, "problem", None) or "not YAML")
    finally:
        loader.dispose()
    # Not chained to the error, which quotes the line: that may hold a password.
    raise UsageError(f"{name}:{line}: {safe_repr(problem)}", remedy=_REMEDY)


class _Reader:
    """Converts YAML nodes to values, each node once, so that nested aliases stay small."""

    def __init__(self, loader: Any, name: str) -> None:  # noqa: ANN401 - yaml.SafeLoader
        self._loader = loader
        self._name = name
        self._values_by_node: dict[int, YAMLValue] = {}

    def read(self, node: Any) -> YAMLValue:  # noqa: ANN401 - a node of yaml
        cached = self._values_by_node.get(id(node))
        if cached is not None:
            return cached
        location = Location(self._name, node.start_mark.line + 1)
        value: Any
        item: YAMLValue
        if node.id == "mapping":
            value = {}
            item = self._values_by_node[id(node)] = YAMLValue(value, location)
            self._loader.flatten_mapping(node)
            for key, child in node.value:
                if key.id != "scalar":
                    raise Location(self._name, key.start_mark.line + 1).error(
                        "a key is not a string", _REMEDY
                    )
                # The line of the key, which users look for: its value may start on the next line.
                key_location = Location(self._name, key.start_mark.line + 1)
                value[str(key.value)] = replace(self.read(child), location=key_location)
        elif node.id == "sequence":
            value = []
            item = self._values_by_node[id(node)] = YAMLValue(value, location)
            value += [self.read(child) for child in node.value]
        else:
            value = self._loader.construct_object(node)
            item = self._values_by_node[id(node)] = YAMLValue(value, location, node.value)
        return item
