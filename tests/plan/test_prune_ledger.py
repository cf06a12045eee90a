"""Which tags of a destination are a plan's to prune, and when none is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from concil.errors import ConnectionLost, UsageError
from concil.plan.expand import ListTags, PlanExpansion
from concil.plan.prune_ledger import PruneDestination, PruneLedger
from concil.plan.rule import Rule
from concil.plan.tag_filter import TagFilter
from concil.plan.target_names import DestinationPrefix

ALL = Rule("plan:1", "q.example/a", tag_filter=TagFilter(), prune=True)


def listing(*tags: str) -> ListTags:
    return lambda _: iter(tags)


def breaks_off(address: str) -> Iterator[str]:
    yield "v1"
    raise ConnectionLost(f"{address}: the answer broke off")


def targets(
    *rules: Rule, tags: ListTags, to: str | None = "h.example/m", empty: bool = False
) -> list[PruneDestination]:
    """Expand a plan to its end; return what is to be pruned then."""
    expansion = PlanExpansion(rules, tags, () if to is None else (DestinationPrefix(to),))
    expansion.check()
    expansion.ledger = PruneLedger(rules, expansion.destinations, allow_empty=empty)
    list(expansion)
    return list(expansion.ledger.destinations())


def test_tag_without_a_source_is_asked_for_by_its_name() -> None:
    [target] = targets(ALL, tags=listing("v1", "v2"))

    assert target.address == "h.example/m/a"
    assert target.error is None
    assert [target.find_sources(tag) for tag in ("v1", "v3")] == [(), ["q.example/a:v3"]]


def test_template_is_read_backwards() -> None:
    rule = replace(ALL, target="http://me:p%40ss@n.example/copies/{name}:at-{tag}-copy")

    [target] = targets(rule, tags=listing("v1"), to=None)

    assert target.address == "http://me:p%40ss@n.example/copies/a"
    assert target.find_sources("at-v1-copy") == ()
    assert target.find_sources("at-v2-copy") == ["q.example/a:v2"]
    assert [target.find_sources(tag) for tag in ("v2", "at--copy", "at-v2")] == [None] * 3


def test_names_of_a_layout_are_only_those_of_the_repository(tmp_path: Path) -> None:
    [target] = targets(ALL, tags=listing("v1"), to=f"oci:{tmp_path}")

    assert target.address == f"oci:{tmp_path}"
    assert target.find_sources("q.example/a:v1") == ()
    assert target.find_sources("q.example/a:v2") == ["q.example/a:v2"]
    assert [target.find_sources(name) for name in ("v2", "q.example/ab:v2", "other")] == [None] * 3


def test_bare_tags_in_a_layout_are_no_other_names(tmp_path: Path) -> None:
    rule = replace(ALL, target=f"oci:{tmp_path}:{{tag}}")

    [target] = targets(rule, tags=listing("v1"), to=None)

    assert target.find_sources("v2") == ["q.example/a:v2"]
    assert target.find_sources("docker.io/library/alpine:3") is None


def test_lists_of_referrers_are_kept_where_the_source_keeps_none_as_a_tag() -> None:
    """A registry with the API has no such tags; the destination without it would lose them."""
    named = f"sha256-{'0' * 64}"

    [target] = targets(ALL, tags=listing("v1"))

    assert target.find_sources(named) is None
    assert target.find_sources(f"{named}.sig") == [f"q.example/a:{named}.sig"]


def test_an_archive_is_not_pruned(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"plan:1: 'prune': .* an archive"):
        targets(ALL, tags=listing("v1"), to=f"oci-archive:{tmp_path}/all.tar")


def test_list_that_breaks_off_is_none() -> None:
    [target] = targets(ALL, tags=breaks_off)

    assert target.error is not None
    assert "plan:1" in str(target.error)


@pytest.mark.parametrize("other", ["all:{tag}", "{tag}:{tag}"])
def test_another_entry_that_breaks_off_is_a_problem_where_it_may_have_written(other: str) -> None:
    def tags(address: str) -> Iterator[str]:
        return breaks_off(address) if address.endswith("/b") else iter(["v1"])

    first = replace(ALL, target="all")
    second = Rule("plan:5", "q.example/b", other, TagFilter())
    third = replace(ALL, location="plan:9", source="q.example/c")

    found = {one.address: one.error for one in targets(first, second, third, tags=tags)}

    assert found["h.example/m/all"] is not None
    assert (found["h.example/m/c"] is None) is ("all" in other)


def test_empty_list_is_a_problem_unless_it_is_meant() -> None:
    [target] = targets(ALL, tags=listing())
    [meant] = targets(ALL, tags=listing(), empty=True)

    assert "lists no tags at all" in str(target.error)
    assert meant.error is None
    assert meant.find_sources("v1") == ["q.example/a:v1"]


def test_two_sources_of_one_repository_keep_each_others_tags() -> None:
    def tags(address: str) -> Iterator[str]:
        return iter(["v1"] if address.endswith("/a") else ["v2"])

    first = replace(ALL, target="all")
    second = replace(first, location="plan:5", source="q.example/b")

    [target] = targets(first, second, tags=tags)

    assert [target.find_sources(tag) for tag in ("v1", "v2")] == [(), ()]
    assert target.find_sources("v3") == ["q.example/a:v3", "q.example/b:v3"]


def test_entries_that_do_not_prune_have_no_target() -> None:
    assert targets(replace(ALL, prune=False), tags=listing("v1")) == []
    named = replace(ALL, tag_filter=TagFilter(("v1",)))
    assert targets(named, tags=listing("v1")) == []


@pytest.mark.parametrize(
    "changes",
    [
        {"target": "{tag}/{name}:{tag}"},
        {"target": "{name}:{tag}-{tag}"},
        {"source": "oci:DIR"},
    ],
)
def test_target_that_cannot_be_read_backwards_is_refused(changes: dict[str, str]) -> None:
    rule = replace(ALL, **changes)  # type: ignore[arg-type]

    with pytest.raises(UsageError, match="plan:1: 'prune'"):
        PruneLedger([rule], _destinations, allow_empty=False)


def _destinations(rule: Rule, source: object) -> list[str]:
    expansion = PlanExpansion((rule,), listing(), (DestinationPrefix("h.example/m"),))
    return expansion.destinations(rule, source)  # type: ignore[arg-type]


def test_digests_that_entries_pin_are_known() -> None:
    digest = "sha256:" + "a" * 64
    pinned = Rule("plan:5", f"q.example/a@{digest}")

    [target] = targets(ALL, pinned, tags=listing("v1"))

    assert target.pinned_digests == (digest,)
