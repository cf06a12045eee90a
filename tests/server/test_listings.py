"""Tags, repositories and referrers, page by page."""

from __future__ import annotations

import re
from typing import Any

import pytest
import requests

from tests.server.client import Client, code_of, descriptor, index, manifest
from tests.support.images import OCI, digest_of

SBOM = "application/vnd.example.sbom.v1"
SIGNATURE = "application/vnd.example.signature.v1"


def next_page(answer: requests.Response) -> str | None:
    found = re.fullmatch(r'<([^>]+)>; rel="next"', answer.headers.get("Link", ""))
    return found[1] if found else None


def pages(client: Client, path: str, field: str) -> list[list[Any]]:
    """Follow the links from the first page to the last."""
    found: list[list[Any]] = []
    place: str | None = path
    while place is not None and len(found) < 50:
        answer = client.ask("GET", place)
        assert answer.status_code == 200, answer.text
        found.append(answer.json()[field])
        place = next_page(answer)
    return found


def push_tags(client: Client, *tags: str) -> None:
    _, body = client.push_image(tags[0])
    for tag in tags[1:]:
        client.push_manifest(tag, body)


def test_tags_are_listed_in_ascii_order(client: Client) -> None:
    push_tags(client, "b", "a", "Z", "_x", "10", "9")

    answer = client.ask("GET", "tags/list")

    assert answer.json() == {"name": "team/app", "tags": ["10", "9", "Z", "_x", "a", "b"]}
    assert "Link" not in answer.headers


def test_tags_of_an_unknown_repository_are_404(client: Client) -> None:
    answer = client.ask("GET", "tags/list")

    assert answer.status_code == 404
    assert code_of(answer) == "NAME_UNKNOWN"


def test_a_repository_without_tags_has_an_empty_list(client: Client) -> None:
    client.push(b"blob")

    assert client.tags() == []


def test_a_part_of_the_tags_can_be_asked_for(client: Client) -> None:
    push_tags(client, "test0", "test1", "test2", "test3")

    assert client.tags(n="2") == ["test0", "test1"]
    assert client.tags(n="2", last="test1") == ["test2", "test3"]
    assert client.tags(last="test1") == ["test2", "test3"]
    assert client.tags(last="test10") == ["test2", "test3"]
    assert client.tags(last="test3") == []
    assert client.tags(n="0") == []
    assert client.tags(n="99999999") == ["test0", "test1", "test2", "test3"]


@pytest.mark.parametrize("size", [1, 2, 3, 4, 7])
def test_links_lead_through_all_tags_once(client: Client, size: int) -> None:
    tags = [f"v1.{i}_x" for i in range(6)]
    push_tags(client, *tags)

    found = pages(client, f"tags/list?n={size}", "tags")

    assert [entry for page in found for entry in page] == tags
    assert all(len(page) <= size for page in found)
    assert all(found)


@pytest.mark.parametrize("n", ["-1", "x", "1.5", "", "²"])
@pytest.mark.parametrize("path", ["tags/list", "/v2/_catalog", f"referrers/{digest_of(b'')}"])
def test_a_page_size_that_is_no_number_is_400(client: Client, path: str, n: str) -> None:
    client.push_image("v1")

    answer = client.ask("GET", path, params={"n": n})

    assert answer.status_code == 400
    assert code_of(answer) == "PAGINATION_NUMBER_INVALID"


def test_the_catalog_lists_repositories_page_by_page(client: Client) -> None:
    names = ["a", "a/b", "a/b/c", "a-b", "z"]
    for name in names:
        client.at(name).push(b"blob")

    found = pages(client, "/v2/_catalog?n=2", "repositories")

    assert [entry for page in found for entry in page] == sorted(names)
    assert [len(page) for page in found] == [2, 2, 1]


def push_referrers(client: Client, subject: bytes) -> dict[str, dict[str, Any]]:
    """Push four referrers to a manifest; return what is to be listed, by digest."""
    client.push(b"{}")
    to = descriptor(subject, OCI.manifest)
    empty = descriptor(b"{}", "application/vnd.oci.empty.v1+json")
    bodies = [
        (OCI.manifest, SBOM, manifest("a", subject=to, artifactType=SBOM, config=empty)),
        (OCI.manifest, SIGNATURE, manifest("b", subject=to, artifactType=SIGNATURE)),
        (OCI.manifest, SBOM, manifest("c", subject=to, config=descriptor(b"{}", SBOM))),
        (OCI.index, SBOM, index(subject=to, artifactType=SBOM, annotations={"note": "d"})),
    ]
    expected: dict[str, dict[str, Any]] = {}
    for media_type, kind, body in bodies:
        digest = digest_of(body)
        answer = client.push_manifest(digest, body, media_type)
        assert answer.status_code == 201, answer.text
        assert answer.headers["OCI-Subject"] == digest_of(subject)
        note = "abcd"[len(expected)]
        entry = {**descriptor(body, media_type), "artifactType": kind}
        expected[digest] = {**entry, "annotations": {"note": note}}
    return expected


def referrers(client: Client, subject: bytes, **query: str) -> requests.Response:
    answer = client.ask("GET", f"referrers/{digest_of(subject)}", params=query)
    assert answer.status_code == 200, answer.text
    assert answer.headers["Content-Type"] == OCI.index
    assert answer.json()["schemaVersion"] == 2
    assert answer.json()["mediaType"] == OCI.index
    return answer


def test_missing_subject_has_no_referrers(client: Client) -> None:
    assert referrers(client, b"missing").json()["manifests"] == []


@pytest.mark.parametrize("when", ["before", "after", "never"])
def test_referrers_are_listed_even_if_the_subject_is_missing(client: Client, when: str) -> None:
    client.push(b"{}")
    subject = manifest("subject")
    if when == "before":
        client.push_manifest("v1", subject)
    expected = push_referrers(client, subject)
    if when == "after":
        client.push_manifest("v1", subject)

    answer = referrers(client, subject)

    assert {entry["digest"]: entry for entry in answer.json()["manifests"]} == expected
    assert "OCI-Filters-Applied" not in answer.headers


def test_referrers_are_filtered_by_artifact_type(client: Client) -> None:
    subject = manifest("subject")
    expected = push_referrers(client, subject)

    answer = referrers(client, subject, artifactType=SBOM)

    wanted = {d for d, entry in expected.items() if entry["artifactType"] == SBOM}
    assert {entry["digest"] for entry in answer.json()["manifests"]} == wanted
    assert len(wanted) == 3
    assert answer.headers["OCI-Filters-Applied"] == "artifactType"


@pytest.mark.parametrize("filtered", [False, True])
def test_links_lead_through_all_referrers_once(client: Client, filtered: bool) -> None:
    subject = manifest("subject")
    expected = push_referrers(client, subject)
    wanted = {d for d, e in expected.items() if not filtered or e["artifactType"] == SBOM}

    query = f"n=2&artifactType={SBOM}" if filtered else "n=2"
    found = pages(client, f"referrers/{digest_of(subject)}?{query}", "manifests")

    digests = [entry["digest"] for page in found for entry in page]
    assert sorted(digests) == sorted(wanted)
    assert [len(page) for page in found] == ([2, 1] if filtered else [2, 2])


def test_a_deleted_referrer_is_no_longer_listed(client: Client) -> None:
    subject = manifest("subject")
    first, *others = push_referrers(client, subject)

    client.ask("DELETE", f"manifests/{first}")

    listed = referrers(client, subject).json()["manifests"]
    assert {entry["digest"] for entry in listed} == set(others)


def test_referrers_belong_to_their_repository(client: Client) -> None:
    subject = manifest("subject")
    push_referrers(client, subject)

    assert referrers(client.at("team/other"), subject).json()["manifests"] == []


def test_referrers_of_a_bad_digest_are_400(client: Client) -> None:
    assert client.ask("GET", "referrers/sha256:bad").status_code == 400
