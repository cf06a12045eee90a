"""The file of regsync says what is to be copied."""

from __future__ import annotations

import json
import logging
import traceback
from pathlib import Path

import pytest

from concil.config import HostLimits
from concil.errors import UsageError
from concil.http.requests_session import TLSSettings
from concil.plan.expand import PlanExpansion
from concil.plan.formats.regsync import is_regsync, parse_plan
from concil.plan.formats.yaml_nodes import load
from concil.plan.rule import Rule
from concil.plan.target_names import DestinationPrefix
from tests.support.tls import CertificateAuthority

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
HUB = "docker://me:s3cr%3At@docker.io"
TAGS = ["latest", "3.1", "3.19", "3.19-x", "edge"]


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HUB_USER", "me")
    monkeypatch.setenv("HUB_TOKEN", "s3cr:t")


def read(text: str) -> list[Rule]:
    return list(parse_plan(load(text, "regsync.yml")).rules)


@pytest.mark.usefixtures("hub")
@pytest.mark.parametrize("below", [(), (DestinationPrefix("ignored.example/m"),)])
def test_every_kind_of_entry_is_read(below: tuple[DestinationPrefix, ...]) -> None:
    found = PlanExpansion(tuple(read(FILE)), lambda _: iter(TAGS), below)

    items = list(found)

    assert [(item.source, item.destination) for item in items] == [
        (f"{HUB}/busybox:latest", "http://localhost:5000/library/busybox:latest"),
        (f"{HUB}/alpine:latest", "http://localhost:5000/library/alpine:latest"),
        (f"{HUB}/alpine:3.19", "http://localhost:5000/library/alpine:3.19"),
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


def test_registry_needs_a_lister_of_repositories() -> None:
    rules = tuple(read("sync: [{source: a.example, target: b.example, type: registry}]\n"))

    with pytest.raises(UsageError, match="the repositories of a registry cannot be listed"):
        list(PlanExpansion(rules, lambda _: iter(TAGS)))


@pytest.mark.usefixtures("hub")
def test_ignored_fields_print_warnings(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        read(FILE)

    assert caplog.messages == [
        "regsync.yml:9: defaults: ratelimit is ignored",
        "regsync.yml:11: defaults: parallel is ignored; use workers= instead",
        "regsync.yml:12: defaults: skipDockerConfig is ignored; use authfile= instead",
        "regsync.yml:32: sync: forceRecursive is ignored",
    ]


@pytest.mark.usefixtures("hub")
def test_credentials_are_sent_to_their_registry_only() -> None:
    (rule,) = read(
        "creds: [{registry: docker.io, user: '{{env \"HUB_USER\"}}', pass: x}]\n"
        "sync: [{source: docker.io/a/b:1, target: h.example/b:1, type: image}]\n"
    )

    assert rule.source == "docker://me:x@docker.io/a/b:1"
    assert rule.target == "docker://h.example/b:1"


def test_hosts_without_a_name_are_docker_hub() -> None:
    creds = "creds: [{registry: docker.io, user: me, pass: x}]\n"
    sources = ("alpine", "team/app", "index.docker.io/a/b", "localhost/a", "q.example/a")
    entries = ", ".join(
        f"{{source: {name}, target: h.example/{n}, type: image}}" for n, name in enumerate(sources)
    )

    found = read(f"{creds}sync: [{entries}]\n")

    assert [rule.source for rule in found] == [
        "docker://me:x@docker.io/alpine",
        "docker://me:x@docker.io/team/app",
        "docker://me:x@index.docker.io/a/b",
        "docker://localhost/a",
        "docker://q.example/a",
    ]


def test_what_registries_bear_and_are_trusted_by(ca: CertificateAuthority) -> None:
    pem = ca.path.read_text().replace("\n", "\\n")
    found = parse_plan(
        load(
            "creds:\n"
            "  - {registry: a.example, reqPerSec: 2.5, reqConcurrent: 3}\n"
            "  - {registry: b.example, tls: insecure, reqPerSec: 0}\n"
            f'  - {{registry: "c.example:5000", regcert: "{pem}"}}\n',
            "regsync.yml",
        )
    )

    assert found.host_limits == {"a.example": HostLimits(jobs=3, requests=2.5)}
    assert found.tls_by_host == {
        "b.example": TLSSettings(verify=False),
        "c.example:5000": TLSSettings(ca_cert_data=ca.path.read_text()),
    }


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ("user: '{{env \"NOBODY\"}}', pass: x", "there is no environment variable 'NOBODY'"),
        ("user: x, pass: '{{file \"/nowhere/t\"}}'", "cannot read '/nowhere/t': No such file"),
        ("user: x", "user and pass must both be given"),
    ],
)
def test_missing_credentials_print_a_warning(
    caplog: pytest.LogCaptureFixture, fields: str, why: str
) -> None:
    with caplog.at_level(logging.WARNING):
        (rule,) = read(
            f"creds:\n  - {{registry: docker.io, {fields}}}\n"
            "sync: [{source: alpine, target: h.example/a, type: image}]\n"
        )

    assert rule.source == "docker://docker.io/alpine"
    [message] = caplog.messages
    assert message.startswith("regsync.yml:2: creds: docker.io: ")
    assert why in message


@pytest.mark.parametrize(
    "password", ["hunter2{{x", '{{ env "X" | default "hunter2" }', '{{ upper "hunter2" "x" }}']
)
@pytest.mark.parametrize("name", ["user", "pass"])
def test_a_login_that_is_no_template_is_not_repeated(name: str, password: str) -> None:
    other = "pass" if name == "user" else "user"
    with pytest.raises(UsageError) as excinfo:
        read(f"creds: [{{registry: a, {name}: '{password}', {other}: x}}]\nsync: []\n")

    assert str(excinfo.value) == f"regsync.yml:1: creds: a: {name} is not a supported template"
    assert "hunter2" not in "".join(traceback.format_exception(excinfo.value))


def test_a_source_that_is_no_registry_is_not_repeated() -> None:
    """It may have a password in it, where somebody thinks of URLs."""
    with pytest.raises(UsageError) as excinfo:
        read("sync: [{source: 'docker://me:hunter2@h', target: b, type: registry}]\n")

    assert "hunter2" not in str(excinfo.value)


def test_notes_around_a_certificate_are_no_harm(ca: CertificateAuthority) -> None:
    pem = json.dumps("Prüfstelle\n" + ca.path.read_text(), ensure_ascii=False)
    found = parse_plan(load(f"creds: [{{registry: a, regcert: {pem}}}]\n", "regsync.yml"))

    assert found.tls_by_host["a"].ca_cert_data.isascii()
    with pytest.raises(UsageError, match="regcert is not a PEM certificate"):
        parse_plan(load("creds: [{registry: a, regcert: ü}]\n", "regsync.yml"))


def test_a_token_is_read_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("s3cr:t\n")
    (rule,) = read(
        f"creds: [{{registry: docker.io, user: me, pass: '{{{{file \"{tmp_path}/token\"}}}}'}}]\n"
        "sync: [{source: alpine, target: h.example/a, type: image}]\n"
    )

    assert rule.source == f"{HUB}/alpine"


def test_a_target_may_name_its_source() -> None:
    found = read(
        "x-hub: &hub\n  target: h.example/hub/{{ .Sync.Source }}\n  type: repository\n"
        "sync:\n"
        "  - {<<: *hub, source: alpine, tags: {allow: [3, 3.10]}}\n"
        "  - source: gcr.io/team/app\n"
        '    target: h.example/gcr/{{ index (split .Sync.Source "gcr.io/") 1 }}\n'
        "    type: repository\n"
    )

    assert [rule.target for rule in found] == [
        "docker://h.example/hub/alpine",
        "docker://h.example/gcr/team/app",
    ]
    items = PlanExpansion(tuple(found[:1]), lambda _: iter(["3", "3.1", "3.10", "3x"]))
    assert [item.source for item in items] == ["alpine:3", "alpine:3.10"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("sync:\n  - source: a", "regsync.yml:2: sync: an entry without target"),
        ("sync:\n  - {source: a, target: b, type: all}", "sync: type 'all' is not supported"),
        (
            "sync:\n  - {source: 'ocidir://a', target: b, type: registry}",
            "the source is not a registry",
        ),
        ("version: 2\nsync: []", "regsync.yml:1: version: only version 1 is supported"),
        (
            "creds:\n  - {registry: a, tls: on}",
            "regsync.yml:2: creds: a: unknown value of tls: 'on'",
        ),
        (
            "creds:\n  - {registry: a, regcert: x}",
            "regsync.yml:2: creds: a: regcert is not a PEM cert",
        ),
        (
            "creds:\n  - {registry: a, reqPerSec: x}",
            "regsync.yml:2: creds: a: reqPerSec is not a n",
        ),
        ("creds:\n  - {registry: a, reqPerSec: .001}", "creds: a: reqPerSec: a request rate"),
        ("creds:\n  - {registry: a, reqConcurrent: -1}", "creds: a: reqConcurrent is not a number"),
        ("creds:\n  - user: x\nsync: []", "regsync.yml:2: creds: an entry without registry"),
        (
            "sync:\n  - {source: a, target: b, type: image, referrers: 2}",
            "regsync.yml:2: sync: referrers is neither true nor false",
        ),
        ("sync:\n  - {source: '{{x}}', target: b, type: image}", "regsync.yml:2: source: the temp"),
        ("sync:\n  - {source: '{{env \"NONE\"}}', target: b, type: image}", "variable 'NONE'"),
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
def test_invalid_entry_is_an_error_with_its_line(text: str, words: str) -> None:
    with pytest.raises(UsageError) as excinfo:
        read(text)

    assert words in str(excinfo.value)


def test_format_is_detected_from_the_content() -> None:
    assert is_regsync(load("sync: []", "x"))
    assert is_regsync(load("creds: [{registry: x}]", "x"))
    assert not is_regsync(load("sync: {images: {}}", "x"))
    assert not is_regsync(load("- sync", "x"))
