"""docs/security.md is true where that can be looked up."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from concil.auth import token_service
from concil.config import KIB, MIB, RetryPolicy, TransferConfig
from concil.http import redirects, transport, unsafe_fast_path
from concil.oci.strict_json import MAX_PARTS, MOST_NESTING
from concil.registry import name_lists
from concil.store.layout import index_file
from concil.transfer.blob import image_config
from concil.transfer.image import graph

ROOT = Path(__file__).parent.parent.parent
PAGE = (ROOT / "docs" / "security.md").read_text()


def mib(size: int) -> str:
    assert size % MIB == 0
    return f"{size // MIB} MiB"


def kib(size: int) -> str:
    assert size % KIB == 0
    return f"{size // KIB} KiB"


LIMITS = {
    "manifest, index": mib(TransferConfig().max_manifest_size),
    "config that `inspect` reads": mib(image_config.MAX_CONFIG_SIZE),
    "lists, objects and commas of a document": str(MAX_PARTS),
    "lists and objects of a document in one another": str(MOST_NESTING),
    "indexes in indexes": str(graph.MAX_DEPTH),
    "manifests of an image": f"{graph.MAX_MANIFESTS}, {mib(graph.MAX_MANIFEST_BYTES)} below "
    "one index",
    "different blobs of an image": str(graph.MAX_BLOBS),
    "answer of a token service": kib(token_service.MAX_RESPONSE_SIZE),
    "body of an error that is read": kib(transport.MAX_ERROR_SIZE),
    "tags of a repository": (
        f"{name_lists.MAX_NAMES}, {mib(name_lists.MAX_LIST_SIZE)}, {name_lists.MAX_PAGES} pages"
    ),
    "headers of an answer": (
        f"100 lines of {kib(unsafe_fast_path.MAX_LINE_SIZE)}, "
        f"{unsafe_fast_path.MAX_INTERIM_RESPONSES} interim answers, "
        f"{unsafe_fast_path.HEADER_TIMEOUT:.0f} s"
    ),
    "redirects": str(redirects.MAX_REDIRECTS),
    "time for a small answer": f"{transport.BODY_TIMEOUT:.0f} s",
    "`index.json` of a layout": mib(index_file.MAX_INDEX_SIZE),
}


def test_the_limits_are_those_of_the_code() -> None:
    table = PAGE.partition("### Limits")[2].partition("\n## ")[0]
    rows = dict(re.findall(r"^\| (.+?) \| (.+?) \|$", table, re.MULTILINE))
    del rows["what"]

    assert rows.keys() == LIMITS.keys()
    for what, most in LIMITS.items():
        assert rows[what].partition(" (")[0] == most, what


def test_how_long_a_registry_is_waited_for() -> None:
    assert (RetryPolicy().max_retry_after, RetryPolicy().max_attempts) == (300, 6)


@pytest.mark.parametrize("name", sorted(set(re.findall(r"`(tests/[^`]+)`", PAGE))))
def test_the_tests_that_are_named_are_there(name: str) -> None:
    assert (ROOT / name).exists()
