"""What the documents say of each other and of the code's shape is so."""

from __future__ import annotations

import re
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

from tests.support import import_rules
from tests.support.scripts import import_script

ROOT = Path(__file__).parent.parent
PAGES = sorted([ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").rglob("*.md")])
ARCHITECTURE = (ROOT / "docs" / "architecture.md").read_text()
MODULES = sorted(
    str(path.relative_to(ROOT / "concil"))
    for path in (ROOT / "concil").rglob("*.py")
    if not path.name.startswith("__")
)
TESTS = {f"{path.parent.name}/" for path in (ROOT / "tests").glob("*/__init__.py")}


def links(page: Path) -> list[str]:
    """The targets of a page's links, code apart."""
    text = re.sub(r"^```.*?^```|`[^`\n]+`", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    return re.findall(r"\]\(([^)\s]+)\)", text)


def anchors(page: Path) -> set[str]:
    """What may stand behind `#`: the headings, as GitHub writes them."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def dead_links(page: Path) -> Iterator[str]:
    for link in links(page):
        name, _, anchor = link.partition("#")
        if ":" in name:
            continue
        target = page.parent / name if name else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            yield link


def block(heading: str) -> list[str]:
    """The lines of the first block of code under a heading of the architecture."""
    section = ARCHITECTURE.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    return section.split("```")[1].strip("\n").splitlines()


def drawn() -> set[str]:
    """The modules of the tree, as paths below the package."""
    found: set[str] = set()
    folders: list[str] = []
    for line in block("The tree")[1:]:
        depth = (len(line) - len(line.lstrip())) // 2 - 1
        name = line.split()[0]
        folders[depth:] = [name] if name.endswith("/") else []
        if name.endswith(".py"):
            found.add("".join(folders) + name)
    return found


def undrawn(modules: list[str], tree: set[str]) -> list[str]:
    """The modules that the tree lacks; it need not draw the fronts of packages."""
    return [name for name in modules if name not in tree and not name.endswith("__init__.py")]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    assert list(dead_links(page)) == []


def test_a_dead_link_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    (tmp_path / "other.md").write_text("# The `other`, page\n```\n# no heading\n```\n")
    page.write_text(
        "[a](other.md) [b](other.md#the-other-page) [c](https://example.com/no)\n`[d](code.md)`\n"
        "[e](gone.md) [f](other.md#no-heading) [g](#gone)\n"
    )

    assert list(dead_links(page)) == ["gone.md", "other.md#no-heading", "#gone"]


def test_the_tree_of_the_architecture_has_every_module() -> None:
    assert undrawn(MODULES, drawn()) == []


def test_all_that_the_tree_of_the_architecture_has_is_there() -> None:
    assert sorted(drawn() - set(MODULES)) == []


def test_a_module_that_is_not_drawn_is_found() -> None:
    tree = {"errors.py", "store/layout/index.py"}

    assert undrawn(["errors.py", "store/__init__.py", "store/layout/index.py"], tree) == []
    assert undrawn(["index.py", "store/index.py"], tree) == ["index.py", "store/index.py"]


def test_the_import_rule_of_the_architecture_is_the_one_that_is_checked() -> None:
    drawing = [line.replace("<-", "").split() for line in block("The import rule")]
    # What nobody imports is no row of the drawing.
    layers = [names for names in import_rules.LAYERS if names != ("__main__",)]
    everything = [name for names in layers for name in names]

    assert [{n for n in everything if any(fnmatchcase(n, g) for g in row)} for row in drawing] == [
        set(names) for names in layers
    ]


def documented_folders(table: str) -> list[str]:
    """The folders in the first column of a table, in order."""
    rows = re.findall(r"^\| (`[^|]*) \|", table, re.MULTILINE)
    return [name for row in rows for name in re.findall(r"`([a-z]+/)`", row)]


def test_contributing_says_what_each_folder_of_tests_covers() -> None:
    page = (ROOT / "CONTRIBUTING.md").read_text()
    section = page.partition("\n## What is tested where\n")[2].partition("\n## ")[0]

    assert sorted(documented_folders(section)) == sorted(TESTS)


def test_only_the_first_column_names_the_folders_of_a_row() -> None:
    table = "| folder | covers |\n|---|---|\n| `a/`, `b/` | `c/` too |\n| `test_d.py` | `e/` |\n"

    assert documented_folders(table) == ["a/", "b/"]


def test_the_charts_are_those_of_the_table_of_benchmarks() -> None:
    images = ROOT / "docs" / "images"
    charts = import_script(images / "charts.py")

    found = dict(charts.charts((ROOT / "docs" / "benchmarks.md").read_text()))
    assert len(found) == 2
    for name, content in found.items():
        assert (images / name).read_text() == content, "run python docs/images/charts.py"
