"""The Python in the documentation compiles, and calls what exists, with arguments it takes."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from concil import Engine

ROOT = Path(__file__).parent.parent
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
BLOCKS = [
    pytest.param(block, id=f"{page.relative_to(ROOT)}-{number}")
    for page in PAGES
    for number, block in enumerate(
        re.findall(r"^ *```python\n(.*?)^ *```", page.read_text(), re.MULTILINE | re.DOTALL)
    )
]


def problems(block: str) -> Iterator[str]:
    """Yield what is wrong with an example: imports, methods of the engine, and arguments."""
    tree = ast.parse(inspect.cleandoc("\n" + block))
    known: dict[str, object] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("concil"):
            module = importlib.import_module(str(node.module))
            for alias in node.names:
                if not hasattr(module, alias.name):
                    yield f"{node.module} has no {alias.name}"
                known[alias.asname or alias.name] = getattr(module, alias.name, None)
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            function = called(node.func, known)
            if isinstance(function, str):
                yield function
            elif callable(function):
                yield from unknown_arguments(node, function)


def called(node: ast.expr, known: dict[str, object]) -> object:
    """Return what is called, if it is of concil; a string if it does not exist."""
    if isinstance(node, ast.Name):
        return known.get(node.id)
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
        if node.value.id == "engine":
            return getattr(Engine, node.attr, f"Engine has no {node.attr}")
        owner = known.get(node.value.id)
        if isinstance(owner, type):
            return getattr(owner, node.attr, f"{owner.__name__} has no {node.attr}")
    return None


def unknown_arguments(node: ast.Call, function: Callable[..., object]) -> Iterator[str]:
    parameters = inspect.signature(function).parameters
    if any(each.kind is inspect.Parameter.VAR_KEYWORD for each in parameters.values()):
        return
    for keyword in node.keywords:
        if keyword.arg is not None and keyword.arg not in parameters:
            yield f"{ast.unparse(node.func)} takes no {keyword.arg}"


@pytest.mark.parametrize("block", BLOCKS)
def test_an_example_calls_what_there_is(block: str) -> None:
    assert list(problems(block)) == []


@pytest.mark.parametrize(
    ("block", "problem"),
    [
        ("from concil import Nothing", "concil has no Nothing"),
        ("engine.nothing()", "Engine has no nothing"),
        ("engine.copy(a, b, nothing=1)", "engine.copy takes no nothing"),
        ("from concil import MirrorItem\nMirrorItem(nothing=1)", "MirrorItem takes no nothing"),
    ],
)
def test_an_example_that_calls_what_there_is_not_is_found(block: str, problem: str) -> None:
    assert list(problems(block)) == [problem]
