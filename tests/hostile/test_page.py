"""docs/security.md is true where that can be looked up."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from concil.cli import inspect
from concil.config import KIB, MIB, RetryPolicy, TransferConfig
from concil.registry import connections, lists, session, tokens
from concil.store import layout_index_file
from concil.strict_json import MOST_NESTING, MOST_PARTS
from concil.transfer import graph

ROOT = Path(__file__).parent.parent.parent
PAGE = (ROOT / "docs" / "security.md").read_text()


def mib(size: int) -> str:
    assert size % MIB == 0
    return f"{size // MIB} MiB"


def kib(size: int) -> str:
    assert size % KIB == 0
    return f"{size // KIB} KiB"


LIMITS = {
    "manifest, index": mib(TransferConfig().manifest_limit),
    "config that `inspect` reads": mib(inspect._CONFIG_LIMIT),
    "lists, objects and commas of a document": str(MOST_PARTS),
    "lists and objects of a document in one another": str(MOST_NESTING),
    "indexes in indexes": str(graph.DEEPEST),
    "manifests of an image": f"{graph.MOST}, {mib(graph.MOST_BYTES)} below one index",
    "different blobs of an image": str(graph.MOST_BLOBS),
    "answer of a token service": kib(tokens.TOKEN_LIMIT),
    "body of an error that is read": kib(session.ERROR_LIMIT),
    "tags of a repository": (f"{lists.MOST_NAMES}, {mib(lists.LIMIT)}, {lists.MOST_PAGES} pages"),
    "headers of an answer": (
        f"100 lines of {kib(connections._LONGEST_LINE)}, {connections._INTERIM_ANSWERS} interim "
        f"answers, {connections._PATIENCE:.0f} s"
    ),
    "redirects": str(session.MAX_REDIRECTS),
    "time for a small answer": f"{session.PATIENCE:.0f} s",
    "`index.json` of a layout": mib(layout_index_file.INDEX_LIMIT),
}


def test_the_limits_are_those_of_the_code() -> None:
    table = PAGE.partition("### Limits")[2].partition("\n## ")[0]
    rows = dict(re.findall(r"^\| (.+?) \| (.+?) \|$", table, re.MULTILINE))
    del rows["what"]

    assert rows.keys() == LIMITS.keys()
    for what, most in LIMITS.items():
        assert rows[what].partition(" (")[0] == most, what


def test_how_long_a_registry_is_waited_for() -> None:
    assert (RetryPolicy().longest_asked, RetryPolicy().attempts) == (300, 6)


@pytest.mark.parametrize("name", sorted(set(re.findall(r"`(tests/[^`]+)`", PAGE))))
def test_the_tests_that_are_named_are_there(name: str) -> None:
    assert (ROOT / name).exists()
