"""A TOML plan is read field by field; what is wrong is named with file, line and field."""

from __future__ import annotations

import contextlib
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from concil.errors import UsageError
from concil.plan.formats.toml_plan import parse_plan
from concil.plan.rule import Rule
from concil.plan.tag_filter import TagFilter
from concil.plan.versions import VersionRange

PLAN = """\
# comment
[[mirror]]
source = "quay.io/team/app"
target = "h.example/{name}"
tags = ["edge"]
match = '1\\..*'
semver = ">=1.2"
latest = 3
exclude = ".*-rc.*"
immutable = ["1\\\\.2.*"]
prune = true
platforms = ["linux/amd64"]
referrers = true

[[mirror]]
source = "alpine:3"

[[mirror]]
source = "alpine"
"""


def test_every_field_is_read() -> None:
    full, one, all_tags = parse_plan(PLAN, "plan.toml").rules

    assert full == Rule(
        "plan.toml:2",
        "quay.io/team/app",
        "h.example/{name}",
        TagFilter(
            ("edge",),
            re.compile(r"1\..*"),
            full.tag_filter.version_range if full.tag_filter else None,
            3,
            (re.compile(".*-rc.*"),),
            (re.compile(r"1\.2.*"),),
        ),
        ("linux/amd64",),
        referrers=True,
        prune=True,
    )
    assert full.tag_filter is not None
    assert full.tag_filter.version_range is not None
    assert full.tag_filter.version_range.text == VersionRange.parse(">=1.2").text
    assert one == Rule("plan.toml:15", "alpine:3")
    assert all_tags == Rule("plan.toml:18", "alpine", tag_filter=TagFilter())


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("colour = 1", "plan.toml:3: 'colour': unknown field; known fields: source, target"),
        ("plattforms = 1", "'plattforms': unknown field; did you mean platforms? known fields: "),
        ("latest = 0", "plan.toml:3: 'latest': not a number of 1 or more"),
        ("latest = true", "not a number"),
        ("latest = '3'", "not a number"),
        ("tags = [1]", "'tags': not a list of strings"),
        ("tags = ['']", "'tags': not a list of strings"),
        ("match = '('", "'match': not a regular expression"),
        ("match = 3", "'match': not a string"),
        ("exclude = ['a', '[']", "'exclude': not a regular expression"),
        ("semver = 'new'", "'semver': not a range of versions: 'new'"),
        ("platforms = ['arm']", "'platforms'"),
        ("referrers = 'yes'", "'referrers': neither true nor false"),
        ("target = ''", "'target': not a string"),
    ],
)
def test_a_wrong_field_is_named_with_its_line(line: str, words: str) -> None:
    with pytest.raises(UsageError) as excinfo:
        parse_plan(f'[[mirror]]\nsource = "a.example/x"\n{line}\n', "plan.toml")

    message = f"{excinfo.value}; {excinfo.value.remedy}"
    assert message.startswith("plan.toml:3: ")
    assert words in message


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[[mirror]]\nlatest = 3\n", "plan.toml:1: a [[mirror]] has no source"),
        (
            "[[mirror]]\nsource = 'a.example/x:1'\n\nlatest = 2\n",
            "plan.toml:4: 'latest': the source",
        ),
        ("[[mirror]]\nsource = 'a.example/X'\n", "plan.toml:2: 'source'"),
        ("\n\n[mirors]\na = 1\n", "plan.toml:3: unknown field 'mirors'"),
        ("mirror = 3", "plan.toml: mirror is not a list"),
        ("[mirror]\nsource = 'x'", "plan.toml: mirror is not a list"),
        ("source =", "plan.toml: "),
        ("[[mirror]]\nsource = 'a'\nsource = 'b'", "plan.toml: "),
    ],
)
def test_a_wrong_plan_is_refused(text: str, words: str) -> None:
    with pytest.raises(UsageError) as excinfo:
        parse_plan(text, "plan.toml")

    assert words in str(excinfo.value)


@given(st.text(max_size=60))
def test_any_text_is_a_plan_or_refused(text: str) -> None:
    for content in (text, f"[[mirror]]\nsource = {text}", f"[[mirror]]\n{text}"):
        with contextlib.suppress(UsageError):
            parse_plan(content, "plan.toml")
