"""Puts off the import of the package with which requests guesses the encoding of a text.

requests imports chardet or charset_normalizer at once, and uses it only for ``Response.text``
without a charset in the headers. concil reads bytes. Source: docs/decisions/0024.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import sys
from collections.abc import Iterator
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

_PACKAGES = ("chardet", "charset_normalizer")  # requests takes the first one that is installed


@contextlib.contextmanager
def defer_charset_detection() -> Iterator[None]:
    """Let requests, if the block imports it, import the package when it first uses it.

    It is for processes that belong to concil: a program that imports concil decides itself how
    requests is imported. After the block, imports of the package are the usual ones.
    """
    placeholders = {} if "requests" in sys.modules else _create_placeholders()
    sys.modules.update(placeholders)
    try:
        yield
    finally:
        for placeholder in placeholders.values():
            placeholder.remove()


def _create_placeholders() -> dict[str, _Placeholder]:
    specs = {name: importlib.util.find_spec(name) for name in _PACKAGES if name not in sys.modules}
    return {name: _Placeholder(spec) for name, spec in specs.items() if spec and spec.origin}


class _Placeholder(ModuleType):
    """Imports the package when an attribute of it is needed, except for its version."""

    __version__: str  # requests compares it while it is imported

    def __init__(self, spec: ModuleSpec) -> None:
        super().__init__(spec.name)
        self.__spec__ = spec
        self.__path__ = spec.submodule_search_locations or []  # a `from` import looks for it
        with contextlib.suppress(OSError, ImportError, AttributeError):
            self.__version__ = _read_version(spec.name, str(spec.origin))

    def __getattr__(self, attribute: str) -> Any:  # noqa: ANN401 - as the package has it
        self.remove()
        return getattr(importlib.import_module(self.__name__), attribute)

    def remove(self) -> None:
        """Leave the name to the package itself."""
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]


def _read_version(name: str, origin: str) -> str:
    """Run the module ``version`` of a package without the package."""
    path = Path(origin).with_name("version.py")
    spec = importlib.util.spec_from_file_location(f"{name}.version", path)
    if spec is None or spec.loader is None:
        raise ImportError(f"cannot import {path}")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    version: str = module.__version__
    return version
