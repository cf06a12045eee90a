"""No retired word comes back as an identifier, and no two modules share a name by accident."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "concil"
# Classes, functions, methods, attributes and modules that were renamed in 2.0: nobody outside
# could know what they meant.
_WORDS = """
    Access Account Allowance Arrivals Brought Carried Choosy Claims Everything Gate Gatherer Guarded
    Hands Happened Held Keyring Kept Lacking LackingStore Landed LearnedRate Manner Mounter Narrow
    Opening Past Patience Promise Promising Push Rank Refusals Sides Shelf Stores Surveyor Turns
    Untouched Wanted Window
    begin_blobs_by begun believe held_by left_behind lacks_destination outlook put_outlook
    settled shown_on sides_of spelt_out told told_of told_off where_of
    """
RETIRED = frozenset(_WORDS.split())
_MODULES = """
    again allowance along asking elsewhere everything failures gates held keyring lacking landed
    learned leftovers lists lacking outlook pace past promise putting realms refusals root since
    survey told turns window
    """
RETIRED_MODULES = frozenset(_MODULES.split())
# The same thing in packages that stand side by side, by intent.
PAIRS = {
    "artifacts": {"cli/commands", "cli/parsers"},
    "blob": {"cli/commands", "cli/parsers"},
    "check": {"engine", "cli/commands", "cli/parsers"},
    "client": {"registry", "dockerhub"},
    "context": {"transfer", "cli"},
    "completion": {"cli", "cli/commands", "cli/parsers"},
    "copy": {"cli/commands", "cli/parsers"},
    "copy_all": {"plan", "cli/commands"},
    "errors": {"", "http", "server", "cli/output"},
    "findings": {"transfer", "cli/output"},
    "images": {"cli/commands", "cli/parsers"},
    "login": {"auth/credentials", "cli/commands", "cli/parsers"},
    "manifests": {"server/handlers"},
    "mirror": {"transfer/mirror", "cli/commands", "cli/parsers"},
    "referrers": {"registry", "store/layout", "transfer/image", "cli/options"},
    "serve": {"cli/commands", "cli/parsers"},
    "transfers": {"cli/commands", "cli/parsers"},
}


def identifiers(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Every name that the source defines: classes, functions, parameters, attributes."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name, node.lineno
        elif isinstance(node, ast.arg):
            yield node.arg, node.lineno
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.attr, node.lineno
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id, node.lineno


def retired(source: str) -> list[str]:
    """The retired words among the identifiers of a source, with a leading underscore or not."""
    return [
        f"{name} (line {line})"
        for name, line in identifiers(ast.parse(source))
        if name.lstrip("_") in RETIRED
    ]


def test_no_retired_word_is_an_identifier() -> None:
    found = {
        path.relative_to(PACKAGE).as_posix(): retired(path.read_text())
        for path in PACKAGE.rglob("*.py")
    }

    assert {path: words for path, words in found.items() if words} == {}


@pytest.mark.parametrize(
    "source",
    [
        "class Shelf: ...",
        "def _told(): ...",
        "def f(told): ...",
        "class A:\n    def believe(self): ...",
        "class A:\n    def __init__(self): self._past = 0\n    class Past: ...",
        "told = 1",
    ],
)
def test_a_retired_word_is_found(source: str) -> None:
    assert retired(source)


def test_no_module_has_a_retired_name() -> None:
    found = {path.stem for path in PACKAGE.rglob("*.py")} | {
        path.name for path in PACKAGE.rglob("*") if path.is_dir()
    }

    assert found & RETIRED_MODULES == set()


def test_modules_that_share_a_name_are_meant_to() -> None:
    folders: dict[str, set[str]] = defaultdict(set)
    for path in PACKAGE.rglob("*.py"):
        if path.stem not in ("__init__", "__main__"):
            folder = path.parent.relative_to(PACKAGE).as_posix()
            folders[path.stem].add("" if folder == "." else folder)

    shared = {name: where for name, where in folders.items() if len(where) > 1}
    assert {name: where for name, where in shared.items() if where - PAIRS.get(name, set())} == {}
