"""Addresses of other tools are understood, or answered with a way out."""

from __future__ import annotations

import pytest

from concil.errors import InvalidReference
from concil.oci.address import LayoutAddress, parse_address
from concil.oci.reference import Reference
from concil.plan.target_names import DestinationPrefix


@pytest.mark.parametrize(
    ("text", "path", "name"),
    [
        ("ocidir://images:app", "images", "app"),
        ("ocidir:images", "images", None),
        ("ocidir:///srv/images", "/srv/images", None),
        ("oci:///srv/images:app", "///srv/images", "app"),
    ],
)
def test_layouts_of_regctl_are_layouts(text: str, path: str, name: str | None) -> None:
    assert parse_address(text) == LayoutAddress(path, name)


@pytest.mark.parametrize("host", ["ghcr.io", "localhost", "localhost:5000", "10.0.0.1:5000"])
def test_oci_with_slashes_and_a_host_is_a_registry_as_for_helm(host: str) -> None:
    assert parse_address(f"oci://{host}/charts/app:1") == Reference(host, "charts/app", "1")


def test_oci_with_slashes_and_a_name_is_ambiguous() -> None:
    with pytest.raises(InvalidReference, match="neither a registry nor a directory") as raised:
        parse_address("oci://images/app:1")

    assert "docker://" in raised.value.remedy
    assert "oci:DIR" in raised.value.remedy


@pytest.mark.parametrize(
    ("text", "ways"),
    [
        ("docker-daemon:alpine:3", ("docker save -o image.tar alpine:3", "docker load")),
        ("containers-storage:alpine:3", ("podman save -o image.tar alpine:3", "podman load")),
        ("dir:./x", ("skopeo copy dir:./x oci:./x-oci",)),
        ("ostree:a", ("oci:DIR",)),
        ("sif:a", ("oci:DIR",)),
    ],
)
def test_other_places_are_answered_with_a_way(text: str, ways: tuple[str, ...]) -> None:
    with pytest.raises(InvalidReference, match="does not read or write") as e:
        parse_address(text)

    for way in ways:
        assert way in e.value.remedy


def test_destinations_of_mirrors_are_understood_too() -> None:
    prefix = DestinationPrefix("ocidir://images")

    assert prefix.resolve(Reference.parse("quay.io/a/b:1"), None) == "oci:images:quay.io/a/b:1"
    assert prefix.resolve(Reference.parse("a"), "oci://ghcr.io/x:1") == "docker://ghcr.io/x:1"
    with pytest.raises(InvalidReference, match="does not read or write dir"):
        DestinationPrefix("dir:images")


@pytest.mark.parametrize(
    "text",
    [
        "localhost",
        "localhost:5000",
        "LOCALHOST:5000",
        "docker.io",
        "registry.example.com",
        "registry.example.com:5000",
        "registry.example.com@sha256:" + "0" * 64,
        "[::1]:5000",
        "docker://localhost:5000",
        "http://registry",
        "localhost:5000/",
        "docker.io/",
    ],
)
def test_a_host_alone_is_no_image_of_docker_hub(text: str) -> None:
    with pytest.raises(InvalidReference, match="no repository after the host") as raised:
        parse_address(text)

    assert "concil ls " in raised.value.remedy


@pytest.mark.parametrize("text", ["ubuntu:5000", "registry:2", "ubuntu", "ubuntu:22.04"])
def test_an_image_without_a_host_is_on_docker_hub(text: str) -> None:
    address = parse_address(text)

    assert isinstance(address, Reference)
    assert address.host == "docker.io"
