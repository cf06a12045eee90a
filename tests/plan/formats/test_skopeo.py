"""The file of `skopeo sync` says what is to be copied."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from concil.errors import UsageError
from concil.http.requests_session import TLSSettings
from concil.plan.expand import PlanExpansion
from concil.plan.formats.skopeo import parse_plan
from concil.plan.formats.yaml_nodes import load
from concil.plan.target_names import DestinationPrefix
from tests.support.tls import CertificateAuthority

DIGEST = "sha256:" + "a" * 64
FILE = f"""\
registry.example.com:
  images:
    busybox: []
    team/redis:
      - "1.0"
      - {DIGEST}
  images-by-tag-regex:
    nginx: ^1\\.13\\.[12]-alpine$
  credentials:
    username: john
    password: "p@ss:word"
  tls-verify: true
quay.io:
  images-by-semver:
    alpine: ">= 3.12.0"
"""
TAGS = {
    "busybox": ["a", "b"],
    "nginx": ["1.13.1-alpine", "1.13.3-alpine", "x"],
    "alpine": ["3.12.0", "3.11", "3.19.1", "edge"],
}


def listing(address: str) -> list[str]:
    return TAGS[address.rpartition("/")[2]]


def images(text: str, to: str = "h.example/m") -> list[tuple[str, str]]:
    found = PlanExpansion(
        parse_plan(load(text, "sync.yml")).rules,
        lambda address: iter(listing(address)),
        (DestinationPrefix(to),),
    )
    return [(item.source, item.destination) for item in found]


def test_every_kind_of_entry_is_read() -> None:
    user = "docker://john:p%40ss%3Aword@registry.example.com"

    assert images(FILE) == [
        (f"{user}/busybox:a", "h.example/m/busybox:a"),
        (f"{user}/busybox:b", "h.example/m/busybox:b"),
        (f"{user}/team/redis@{DIGEST}", f"h.example/m/redis@{DIGEST}"),
        (f"{user}/team/redis:1.0", "h.example/m/redis:1.0"),
        (f"{user}/nginx:1.13.1-alpine", "h.example/m/nginx:1.13.1-alpine"),
        ("quay.io/alpine:3.12.0", "h.example/m/alpine:3.12.0"),
        ("quay.io/alpine:3.19.1", "h.example/m/alpine:3.19.1"),
    ]


def test_a_regular_expression_need_not_meet_the_whole_tag() -> None:
    found = images("q.example:\n  images-by-tag-regex:\n    nginx: alpine\n")

    assert [source for source, _ in found] == [
        "q.example/nginx:1.13.1-alpine",
        "q.example/nginx:1.13.3-alpine",
    ]


def test_numbers_are_tags_as_they_are_written() -> None:
    found = images("a.example:\n  images:\n    busybox: [1.10, 3, 2024-01-02, 0x10, on]\n")

    tags = [source.rpartition(":")[2] for source, _ in found]
    assert tags == ["1.10", "3", "2024-01-02", "0x10", "on"]


def test_a_registry_may_do_without_verification() -> None:
    found = parse_plan(
        load("a.example:\n  tls-verify: false\nb.example:\n  tls-verify: true\n", "s.yml")
    )

    assert found.tls_by_host == {"a.example": TLSSettings(verify=False)}


def test_a_registry_has_certificates_of_its_own(ca: CertificateAuthority, tmp_path: Path) -> None:
    shutil.copy(ca.path, tmp_path / "ca.crt")

    found = parse_plan(load(f"a.example:5000:\n  cert-dir: {tmp_path}\n", "s.yml"))

    assert found.tls_by_host == {"a.example:5000": TLSSettings(cert_dir=str(tmp_path))}


def test_invalid_certificate_directory_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "client.cert").touch()

    with pytest.raises(UsageError, match=r"s\.yml:2: a\.example: cannot use certificates"):
        parse_plan(load(f"a.example:\n  cert-dir: {tmp_path}\n", "s.yml"))


def test_missing_certificate_directory_is_ignored_with_a_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.WARNING):
        found = parse_plan(load("a.example:\n  cert-dir: /nowhere/certs\n", "s.yml"))

    assert found.tls_by_host == {}
    assert caplog.messages == ["s.yml:2: cert-dir: there is no directory '/nowhere/certs'"]


def test_names_need_a_destination() -> None:
    found = PlanExpansion(parse_plan(load(FILE, "sync.yml")).rules, lambda _: iter(()))

    with pytest.raises(UsageError, match="it has no target"):
        found.check()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("- a", "sync.yml:1: the file: not a mapping"),
        ("a.example: 3", "sync.yml:1: a.example: not a mapping"),
        ("a.example:\n  image: {}", "sync.yml:2: a.example: unknown field 'image'"),
        ("a.example:\n  images:\n    b: {c: d}", "sync.yml:3: b: not a list"),
        ("a.example:\n  images:\n    b: [[x]]", "sync.yml:3: b: not a string"),
        ("a.example:\n  images:\n    b: [~]", "sync.yml:3: b: not a string"),
        ("a.example:\n  tls-verify: maybe", "sync.yml:2: a.example: tls-verify is neither"),
        ("a.example:\n  images-by-tag-regex:\n    b: '('", "sync.yml:3: b: not a regular"),
        ("a.example:\n  images-by-semver:\n    b: new", "sync.yml:3: b: not a range"),
        ("a.example:\n  credentials:\n    username: x", "credentials need a username and a"),
        ("a: [", "sync.yml:1: "),
        ("a: !!python/object:os.system x", "sync.yml:1: "),
        ("a: &b\n  images: *c", "sync.yml:2: "),
    ],
)
def test_invalid_entry_is_an_error_with_its_line(text: str, words: str) -> None:
    with pytest.raises(UsageError) as excinfo:
        parse_plan(load(text, "sync.yml"))

    assert words in str(excinfo.value)


def test_aliases_of_aliases_stay_small() -> None:
    levels = "\n".join(f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 9)}]" for n in range(1, 30))

    with pytest.raises(UsageError):
        parse_plan(load(f"l0: &l0 [x]\n{levels}", "sync.yml"))


@given(st.text(alphabet="abc:[]{}-&*!<>|\n \t\"'#1.0", max_size=60))
def test_any_text_is_a_file_or_refused(text: str) -> None:
    try:
        parse_plan(load(text, "sync.yml"))
    except UsageError as error:
        message = str(error)
    else:
        message = "sync.yml"
    assert message.startswith("sync.yml")
