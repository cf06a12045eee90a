"""The file of regsync says what is to be copied."""

from __future__ import annotations

import logging

import pytest

from concil.errors import UsageError
from concil.plan.expand import Expansion
from concil.plan.regsync import is_one, rules
from concil.plan.rules import Rule
from concil.plan.targets import Below
from concil.plan.yaml_nodes import load

FILE = """\
version: 1
creds:
  - registry: localhost:5000
    tls: disabled
  - registry: docker.io
    user: "{{env \\"HUB_USER\\"}}"
    pass: "{{env \\"HUB_TOKEN\\"}}"
defaults:
  ratelimit:
    min: 100
  parallel: 2
  skipDockerConfig: true
  referrers: true
sync:
  - source: busybox:latest
    target: localhost:5000/library/busybox:latest
    type: image
  - source: alpine
    target: localhost:5000/library/alpine
    type: repository
    platform: linux/amd64
    tags:
      allow:
      - "latest"
      - "3\\\\.\\\\d+"
      deny:
      - "3.1"
  - source: quay.io/team/app
    target: ocidir://images/app
    type: repository
    digestTags: false
    forceRecursive: true
"""
TAGS = ["latest", "3.1", "3.19", "3.19-x", "edge"]


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HUB_USER", "me")
    monkeypatch.setenv("HUB_TOKEN", "s3cr:t")


def read(text: str) -> list[Rule]:
    return rules(load(text, "regsync.yml"))


@pytest.mark.usefixtures("hub")
@pytest.mark.parametrize("below", [None, Below("ignored.example/m")])
def test_every_kind_of_entry_is_read(below: Below | None) -> None:
    found = Expansion(tuple(read(FILE)), lambda _: iter(TAGS), below)

    items = list(found)

    assert [(item.source, item.destination) for item in items] == [
        ("busybox:latest", "http://localhost:5000/library/busybox:latest"),
        ("alpine:latest", "http://localhost:5000/library/alpine:latest"),
        ("alpine:3.19", "http://localhost:5000/library/alpine:3.19"),
        *(
            (f"docker://quay.io/team/app:{tag}", f"oci:images/app:quay.io/team/app:{tag}")
            for tag in TAGS
        ),
    ]
    assert {item.platforms for item in items[1:3]} == {("linux/amd64",)}
    assert [item.referrers for item in items] == [True] * 3 + [False] * len(TAGS)


@pytest.mark.parametrize(
    ("fields", "wanted"),
    [
        ("", None),
        (", referrers: true", True),
        (", digestTags: true, referrers: false", True),
        (", digestTags: false", False),
    ],
)
def test_referrers_and_digest_tags_are_one(fields: str, wanted: bool | None) -> None:
    (rule,) = read(f"sync: [{{source: a/b:1, target: h.example/b:1, type: image{fields}}}]")

    assert rule.referrers is wanted


@pytest.mark.usefixtures("hub")
def test_what_is_ignored_is_named(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        read(FILE)

    assert caplog.messages == [
        "regsync.yml:9: defaults: ratelimit is ignored here",
        "regsync.yml:11: defaults: parallel is ignored here",
        "regsync.yml:12: defaults: skipDockerConfig is ignored here",
        "regsync.yml:32: sync: forceRecursive is ignored here",
    ]


@pytest.mark.usefixtures("hub")
def test_users_go_to_their_registry() -> None:
    (rule,) = read(
        "creds: [{registry: docker.io, user: '{{env \"HUB_USER\"}}', pass: x}]\n"
        "sync: [{source: docker.io/a/b:1, target: h.example/b:1, type: image}]\n"
    )

    assert rule.source == "docker://me:x@docker.io/a/b:1"
    assert rule.target == "docker://h.example/b:1"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("sync:\n  - source: a", "regsync.yml:2: sync: an entry without target"),
        ("sync:\n  - {source: a, target: b, type: registry}", "type 'registry' cannot be had"),
        ("creds:\n  - user: x\nsync: []", "regsync.yml:2: creds: an entry without registry"),
        (
            "sync:\n  - {source: a, target: b, type: image, referrers: 2}",
            "regsync.yml:2: sync: referrers is neither true nor false",
        ),
        ("sync:\n  - {source: '{{x}}', target: b, type: image}", "only templates of the form"),
        ("sync:\n  - {source: '{{env \"NONE\"}}', target: b, type: image}", "variable NONE"),
        (
            "sync:\n  - {source: a, target: b, type: repository, tags: {allow: ['(']}}",
            "regsync.yml:2: tags: not a regular expression",
        ),
        (
            "sync:\n  - {source: a, target: b, type: image, platform: arm}",
            "regsync.yml:2: platform: ",
        ),
        (
            "sync:\n  - {source: a, target: b, type: repository, tags: {semverRange: [new]}}",
            "regsync.yml:2: not a range",
        ),
    ],
)
def test_what_makes_no_sense_is_told_with_its_line(text: str, words: str) -> None:
    with pytest.raises(UsageError) as caught:
        read(text)

    assert words in str(caught.value)


def test_files_are_told_apart_by_what_is_in_them() -> None:
    assert is_one(load("sync: []", "x"))
    assert not is_one(load("sync: {images: {}}", "x"))
    assert not is_one(load("- sync", "x"))
