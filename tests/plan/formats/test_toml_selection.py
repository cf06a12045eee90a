"""Fields of a TOML plan that select by age and number, and whole registries."""

from __future__ import annotations

import re

import pytest

from concil.errors import UsageError
from concil.plan.formats.toml_plan import parse_plan
from concil.plan.rule import NameFilter
from concil.plan.selection.order import SortOrder
from concil.plan.tag_filter import TagFilter


def parse(fields: str, source: str = "quay.io/team/app") -> TagFilter | None:
    (rule,) = parse_plan(f'[[mirror]]\nsource = "{source}"\n{fields}', "plan.toml").rules
    return rule.tag_filter


def test_age_number_and_order_are_read() -> None:
    tag_filter = parse('newer_than = "90d"\nkeep = 20\nsort = "alphanumeric"')

    assert tag_filter == TagFilter(
        keep=20, newer_than=90 * 24 * 3600.0, sort=SortOrder.ALPHANUMERIC
    )
    assert tag_filter.needs_listing


def test_latest_counts_in_another_order_too() -> None:
    assert parse('latest = 3\nsort = "created"') == TagFilter(latest=3, sort=SortOrder.CREATED)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ("newer_than = 90", "plan.toml:3: 'newer_than': not a duration"),
        ('newer_than = "90"', "plan.toml:3: 'newer_than': not a duration: '90'"),
        ('newer_than = "0d"', "plan.toml:3: 'newer_than': not between 1 second and 100 years"),
        ('newer_than = "99999w"', "plan.toml:3: 'newer_than': not between"),
        ("keep = 0", "plan.toml:3: 'keep': not a number of 1 or more"),
        ('sort = "date"', "plan.toml:3: 'sort': not an order: 'date'; write one of semver, "),
        ('sort = "semvr"', "did you mean semver"),
        ("sort = 3", "plan.toml:3: 'sort': not an order: 3"),
        ('sort = ["semver"]', "plan.toml:3: 'sort': not an order"),
        ("latest = 1\nkeep = 2", "plan.toml:4: 'keep': the entry has latest as well"),
        ('tags = ["a"]\nsort = "created"', "plan.toml:4: 'sort': tags that are listed by name"),
        ("repositories = ['(']", "plan.toml:3: 'repositories': not a regular expression"),
        ("repositories = ['.*']", "plan.toml:2: 'source': not a registry, whose repositories"),
    ],
)
def test_what_is_wrong_is_named_with_file_line_and_field(fields: str, words: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(fields)

    assert words in f"{caught.value}; {caught.value.remedy}"


def test_a_single_image_has_no_age() -> None:
    with pytest.raises(UsageError, match=r"plan\.toml:3: 'newer_than': the source already names"):
        parse('newer_than = "1d"', "quay.io/team/app:1")


@pytest.mark.parametrize("source", ["r.example", "r.example:5000", "http://r.example", "localhost"])
def test_a_registry_has_patterns_for_its_repositories(source: str) -> None:
    text = f"""[[mirror]]
        source = "{source}"
        repositories = ["team/.*", "base"]
        exclude_repositories = '.*/test'
        keep = 3
        """

    (rule,) = parse_plan(text, "plan.toml").rules

    assert (rule.source, rule.tag_filter) == (source, TagFilter(keep=3))
    allow = re.compile("team/.*"), re.compile("base")
    assert rule.repository_filter == NameFilter(allow, (re.compile(".*/test"),))


def test_exclusions_alone_are_for_all_other_repositories() -> None:
    text = '[[mirror]]\nsource = "r.example"\nexclude_repositories = ["old/.*"]'

    (rule,) = parse_plan(text, "plan.toml").rules

    assert rule.repository_filter == NameFilter((), (re.compile("old/.*"),))


@pytest.mark.parametrize(
    ("source", "more", "words"),
    [
        ("oci:DIR", "", "plan.toml:2: 'source': not a registry"),
        ("r.example/team", "", "plan.toml:2: 'source': not a registry"),
        ("r.example:99999", "", "plan.toml:2: 'source': "),
        ("r.example", "prune = true", "plan.toml:4: 'prune': the repositories of a whole registry"),
    ],
)
def test_what_is_wrong_with_a_registry_is_named(source: str, more: str, words: str) -> None:
    text = f'[[mirror]]\nsource = "{source}"\nrepositories = [".*"]\n{more}'

    with pytest.raises(UsageError) as caught:
        parse_plan(text, "plan.toml")

    assert words in str(caught.value)
