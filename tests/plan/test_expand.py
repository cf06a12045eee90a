"""The entries of a plan become images, as they are needed."""

from __future__ import annotations

import itertools
import logging
import re
from collections.abc import Iterator

import pytest

from concil.errors import NotFound, UsageError
from concil.plan.expand import ListTags, PlanExpansion
from concil.plan.rule import Rule
from concil.plan.tag_filter import TagFilter
from concil.plan.target_names import DestinationPrefix
from concil.transfer.mirror.report import MirrorItem

REPOSITORIES = {"q.example/a": ["1", "2"], "q.example/team/b": ["x"]}


def listing(address: str) -> Iterator[str]:
    if address not in REPOSITORIES:
        raise NotFound(f"{address}: no such repository")
    yield from REPOSITORIES[address]


def everything(source: str, target: str | None = None) -> Rule:
    return Rule("plan:1", source, target, TagFilter())


def expand(*rules: Rule, to: str | None = "h.example/m", tags: ListTags = listing) -> PlanExpansion:
    return PlanExpansion(rules, tags, () if to is None else (DestinationPrefix(to),))


def pairs(expansion: PlanExpansion) -> list[tuple[str, str]]:
    return [(item.source, item.destination) for item in expansion]


def test_all_tags_are_placed_below_the_destination() -> None:
    found = expand(everything("q.example/a"), everything("q.example/team/b"))

    assert pairs(found) == [
        ("q.example/a:1", "h.example/m/a:1"),
        ("q.example/a:2", "h.example/m/a:2"),
        ("q.example/team/b:x", "h.example/m/team/b:x"),
    ]
    assert not found.failures


@pytest.mark.parametrize(
    ("target", "to", "expected"),
    [
        ("n.example/{repository}:{tag}-copy", None, "n.example/team/b:x-copy"),
        ("n.example/{host}/{name}", None, "n.example/q.example/b:x"),
        ("http://n.example:5000/all", None, "http://n.example:5000/all:x"),
        ("oci:DIR", None, "oci:DIR:q.example/team/b:x"),
        ("oci:DIR:{name}-{tag}", None, "oci:DIR:b-x"),
        ("copies/{name}", "h.example/m", "h.example/m/copies/b:x"),
        ("http://n.example/{name}", "h.example/m", "http://n.example/b:x"),
        (None, "oci:DIR", "oci:DIR:q.example/team/b:x"),
    ],
)
def test_targets_are_templates(target: str | None, to: str | None, expected: str) -> None:
    found = pairs(expand(everything("q.example/team/b", target), to=to))

    assert found == [("q.example/team/b:x", expected)]


def test_names_of_a_layout_are_tags_too() -> None:
    found = expand(everything("oci:DIR"), tags=lambda _: iter(["docker.io/library/alpine:3"]))

    assert pairs(found) == [("oci:DIR:docker.io/library/alpine:3", "h.example/m/library/alpine:3")]


def test_tags_are_listed_when_they_are_needed() -> None:
    asked = []

    def endless(address: str) -> Iterator[str]:
        asked.append(address)
        return map(str, itertools.count())

    found = iter(expand(everything("q.example/a"), everything("q.example/b"), tags=endless))

    assert [next(found).source for _ in range(3)] == [f"q.example/a:{n}" for n in range(3)]
    assert asked == ["q.example/a"]


def test_a_listing_that_breaks_off_fails_alone() -> None:
    def breaking(address: str) -> Iterator[str]:
        yield "1"
        if address == "q.example/a":
            raise NotFound("gone")

    found = expand(everything("q.example/a"), everything("q.example/c"), tags=breaking)

    assert [source for source, _ in pairs(found)] == ["q.example/a:1", "q.example/c:1"]
    assert [(rule.source, str(error)) for rule, error in found.failures] == [
        ("q.example/a", "gone")
    ]


def test_an_unknown_repository_fails_alone() -> None:
    found = expand(everything("q.example/none"), everything("q.example/a"))

    assert len(pairs(found)) == 2
    assert [type(error) for _, error in found.failures] == [NotFound]


def test_no_tag_that_matches_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    rule = Rule("plan:7", "q.example/a", None, TagFilter(pattern=re.compile("none")))
    with caplog.at_level(logging.WARNING):
        assert pairs(expand(rule)) == []

    assert caplog.messages == ["plan:7: no tag of q.example/a matches"]


def test_an_image_that_two_entries_name_is_copied_once() -> None:
    listed = Rule("plan:2", "q.example/a", None, TagFilter(names=("2", "3")))

    found = expand(everything("q.example/a"), listed)

    assert [source for source, _ in pairs(found)] == [f"q.example/a:{n}" for n in (1, 2, 3)]


def test_two_sources_for_one_target_fail_the_second() -> None:
    found = expand(everything("q.example/a", "same"), everything("q.example/team/b", "same:1"))

    # "same:1" has no tag of its own: it becomes a name with the tag behind it.
    with pytest.raises(UsageError):
        found.check()
    clash = expand(
        everything("q.example/a", "same:{tag}"),
        Rule("plan:9", "q.example/team/b:x", "same:1"),
    )
    assert len(pairs(clash)) == 2
    ((rule, error),) = clash.failures
    assert rule.location == "plan:9"
    assert "two images would be written to h.example/m/same:1" in str(error)


@pytest.mark.parametrize(
    ("rule", "to", "words"),
    [
        (everything("q.example/a", "{colour}:{tag}"), "h.example", "unknown field in a target"),
        (everything("q.example/a"), "q.example", "q.example/a would be copied onto itself"),
        (everything("q.example/a"), None, "it has no target"),
        (everything("q.example/a", "n.example/X:{tag}"), None, "plan:1"),
        (Rule("plan:1", "q.example/A"), "h.example", "plan:1"),
    ],
)
def test_invalid_rules_are_refused_before_the_first_listing(
    rule: Rule, to: str | None, words: str
) -> None:
    with pytest.raises(UsageError) as excinfo:
        expand(rule, to=to).check()

    assert str(excinfo.value).startswith("plan:1: ")
    assert words in str(excinfo.value)


def test_an_entry_has_its_own_platforms_or_those_of_all() -> None:
    own = Rule("plan:1", "q.example/x:1", None, None, ("linux/arm64",))
    found = PlanExpansion(
        (own, Rule("plan:2", "q.example/y:1")),
        listing,
        (DestinationPrefix("h.example"),),
        ("linux/amd64",),
    )

    assert list(found) == [
        MirrorItem("q.example/x:1", "h.example/x:1", ("linux/arm64",)),
        MirrorItem("q.example/y:1", "h.example/y:1", ("linux/amd64",)),
    ]
    assert found.is_static
    assert not expand(everything("q.example/a")).is_static


@pytest.mark.parametrize("of_all", [True, False])
def test_entry_decides_whether_referrers_are_copied(of_all: bool) -> None:
    entries = tuple(
        Rule(f"plan:{n}", f"q.example/x:{n}", referrers=own)
        for n, own in enumerate((True, False, None))
    )
    found = PlanExpansion(entries, listing, (DestinationPrefix("h.example"),), referrers=of_all)

    assert [item.referrers for item in found] == [True, False, of_all]


def test_signature_tags_are_not_selected_if_referrers_are_copied() -> None:
    stem = f"sha256-{'a' * 64}"
    tags = ["v1", f"{stem}.sig", f"{stem}.att", stem, f"sha256-{'b' * 63}.sig"]
    chosen = Rule("plan:1", "q.example/x", None, TagFilter(), referrers=True)
    listed = Rule("plan:2", "q.example/y", None, TagFilter((f"{stem}.sig",)), referrers=True)
    without = Rule("plan:3", "q.example/z", None, TagFilter(), referrers=False)

    found = PlanExpansion(
        (chosen, listed, without), lambda _: iter(tags), (DestinationPrefix("h.example"),)
    )

    assert [item.source for item in found] == [
        # The one without suffix may be an image that is named by its digest.
        *(f"q.example/x:{tag}" for tag in ("v1", stem, f"sha256-{'b' * 63}.sig")),
        f"q.example/y:{stem}.sig",
        *(f"q.example/z:{tag}" for tag in tags),
    ]
