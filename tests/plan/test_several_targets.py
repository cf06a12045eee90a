"""Entries with several targets, and plans for several destinations."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from concil.errors import UsageError
from concil.plan.expand import PlanExpansion
from concil.plan.formats.toml_plan import parse_plan
from concil.plan.prune_ledger import PruneLedger
from concil.plan.registry_rules import rule_for_repository
from concil.plan.retry_failed import FailedImages
from concil.plan.rule import Rule
from concil.plan.target_names import DestinationPrefix
from concil.transfer.mirror.report import MirrorItem, combine

PLAN = """
[[mirror]]
source = "q.example/team/a"
target = ["b.example/{name}:{tag}", "c.example/copies/{name}"]
"""


class Listing:
    """Lists two tags, and counts the requests."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, _repository: str) -> Iterator[str]:
        self.count += 1
        yield from ("v1", "v2")


def expand(text: str, *prefixes: str, listing: Listing | None = None) -> PlanExpansion:
    rules = parse_plan(text, "plan.toml").rules
    return PlanExpansion(rules, listing or Listing(), tuple(map(DestinationPrefix, prefixes)))


def destinations(item: MirrorItem) -> list[str]:
    return [single.destination for single in item.split()]


def test_each_tag_goes_to_every_target_and_is_listed_once() -> None:
    listing = Listing()

    items = list(expand(PLAN, listing=listing))

    assert [(item.source, destinations(item)) for item in items] == [
        ("q.example/team/a:v1", ["b.example/a:v1", "c.example/copies/a:v1"]),
        ("q.example/team/a:v2", ["b.example/a:v2", "c.example/copies/a:v2"]),
    ]
    assert listing.count == 1


def test_every_name_goes_below_every_destination_and_a_full_address_once() -> None:
    plan = '[[mirror]]\nsource = "q.example/a:1"\ntarget = ["x/a:1", "http://d.example/a:1"]'

    [item] = expand(plan, "b.example", "oci:DIR")

    assert destinations(item) == ["b.example/x/a:1", "oci:DIR:x/a:1", "http://d.example/a:1"]


def test_a_check_counts_each_destination() -> None:
    assert len(expand(PLAN).check()) == 2


@pytest.mark.parametrize(
    ("targets", "words"),
    [
        ('["b.example/a:1", "docker://b.example/a:1"]', "would be written twice"),
        ('["b.example/a:1", "q.example/a:1"]', "copied onto itself"),
        ("[]", "'target': an empty list"),
        ('["b.example/a:1", 3]', "'target': not a list of strings"),
    ],
)
def test_targets_that_cannot_be(targets: str, words: str) -> None:
    with pytest.raises(UsageError, match=rf"plan\.toml:\d+: .*{words}"):
        expand(f'[[mirror]]\nsource = "q.example/a:1"\ntarget = {targets}').check()


def test_two_entries_with_one_target_are_refused() -> None:
    other = '[[mirror]]\nsource = "q.example/b:1"\ntarget = ["d.example/b:1", "c.example/a:1"]'
    plan = '[[mirror]]\nsource = "q.example/a:1"\ntarget = ["b.example/a:1", "c.example/a:1"]\n'

    with pytest.raises(UsageError, match=r"plan\.toml:1 and .*:4 would both write c\.example/a:1"):
        expand(plan + other).check()


def test_only_the_destination_that_failed_is_retried() -> None:
    expansion = expand(PLAN)
    failed = FailedImages(
        frozenset({("q.example/team/a:v2", "c.example/copies/a:v2")}), frozenset()
    )
    expansion.rules = tuple(failed.filter_rules(expansion.rules))
    expansion.image_filter = failed.is_failed

    assert list(expansion) == [MirrorItem("q.example/team/a:v2", "c.example/copies/a:v2")]


def test_every_destination_is_pruned() -> None:
    [rule] = parse_plan(PLAN, "plan.toml").rules
    expansion = PlanExpansion((replace(rule, prune=True),), Listing())
    expansion.ledger = PruneLedger(expansion.rules, expansion.destinations, allow_empty=False)

    list(expansion)

    pruned = list(expansion.ledger.destinations())
    assert [each.address for each in pruned] == ["b.example/a", "c.example/copies/a"]
    for each in pruned:
        assert each.error is None
        assert each.find_sources("v1") == ()
        assert each.find_sources("v3") == ["q.example/team/a:v3"]


def test_a_registry_keeps_its_names_below_every_target() -> None:
    rule = Rule("plan:1", "q.example", "b.example/x", more_targets=("oci:DIR", "c.example"))

    assert rule_for_repository(rule, "team/a").targets == (
        "b.example/x/team/a",
        "oci:DIR",
        "c.example/team/a",
    )


def test_an_item_is_split_and_combined() -> None:
    item = MirrorItem("q.example/a:1", "b.example/a:1", more_destinations=("me:pw@c.example/a:1",))

    assert combine(item.split()) == item
    assert "pw" not in f"{item} {item!r}"
