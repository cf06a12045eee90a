"""`concil mirror`: lists, targets, the summary and the exit codes."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import pytest

from concil.oci.address import parse_address
from concil.plan.target_names import DestinationPrefix
from concil.server import EmbeddedRegistry
from tests.cli.runner import Cli, Program, assert_fails
from tests.support.docker_registry import DockerRegistry
from tests.support.images import Image, assert_same_image, make_image, make_layer, put_image

PINNED = f"sha256:{'a' * 64}"


@pytest.fixture
def images(registry: EmbeddedRegistry) -> dict[str, Image]:
    """Return three images of the registry that share a layer."""
    shared = make_layer(99, 40_000)
    found = {name: make_image(n, (shared, 3000)) for n, name in enumerate(("a", "b", "c"))}
    for name, image in found.items():
        put_image(registry.url, f"team/{name}", "v1", image)
    return found


def write(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines) + "\n")
    return path


def below(destination: str, source: str, target: str | None = None) -> str:
    return DestinationPrefix(destination).resolve(parse_address(source), target)


def test_a_list_is_mirrored_and_then_up_to_date(
    cli: Cli, registry: EmbeddedRegistry, images: dict[str, Image], tmp_path: Path, jobs: str
) -> None:
    lines = [f"{registry.host}/team/{name}:v1" for name in images]
    listed = write(tmp_path / "list", "# all of them", "", *lines)

    first = cli("mirror", jobs, listed, f"{registry.host}/mirror")
    registry.clear_requests()
    second = cli("mirror", jobs, listed, f"{registry.host}/mirror")

    assert (first.code, second.code) == (0, 0)
    assert first.out.startswith("3 images: 3 copied, 0 up to date, 0 failed;")
    assert second.out.startswith("3 images: 0 copied, 3 up to date, 0 failed; 0 blobs sent (0 B)")
    assert {each.method for each in registry.requests if each.path != "/v2/"} == {"HEAD"}
    for name, image in images.items():
        assert_same_image(registry.url, f"mirror/team/{name}", "v1", image)


def test_a_line_may_name_its_target(
    cli: Cli, registry: EmbeddedRegistry, images: dict[str, Image], tmp_path: Path, jobs: str
) -> None:
    source = f"{registry.host}/team"
    listed = write(
        tmp_path / "list",
        f"{source}/a:v1 -> renamed:v9  # below the destination",
        f"{source}/b:v1->docker://{registry.host}/elsewhere:b",
        f"{source}/c:v1 -> oci:{tmp_path}/layout:c",
    )

    assert cli("mirror", jobs, listed, f"{registry.host}/mirror").code == 0

    assert_same_image(registry.url, "mirror/renamed", "v9", images["a"])
    assert_same_image(registry.url, "elsewhere", "b", images["b"])
    assert cli("digest", f"oci:{tmp_path}/layout:c").lines == [images["c"].digest]


def test_in_a_layout_images_are_called_as_people_write_them(
    cli: Cli, registry: EmbeddedRegistry, images: dict[str, Image], tmp_path: Path, jobs: str
) -> None:
    pinned = images["b"].digest
    listed = write(
        tmp_path / "list", f"{registry.host}/team/a:v1", f"{registry.host}/team/b@{pinned}"
    )

    assert cli("mirror", jobs, listed, f"oci:{tmp_path}/layout").code == 0

    assert set(cli("tags", f"oci:{tmp_path}/layout").lines) == {
        f"{registry.host}/team/a:v1",
        f"{registry.host}/team/b:{pinned.replace(':', '-')}",
    }


def test_a_layout_that_was_mirrored_to_can_be_mirrored_on(
    cli: Cli, registry: EmbeddedRegistry, images: dict[str, Image], tmp_path: Path, jobs: str
) -> None:
    there = write(tmp_path / "there", f"{registry.host}/team/a:v1")
    back = write(tmp_path / "back", f"oci:{tmp_path}/layout:{registry.host}/team/a:v1")

    cli("mirror", jobs, there, f"oci:{tmp_path}/layout")
    result = cli("mirror", jobs, back, f"{registry.host}/back")

    assert result.code == 0, result.err
    assert_same_image(registry.url, "back/team/a", "v1", images["a"])


def test_a_pinned_source_keeps_its_digest(
    cli: Cli, registry: EmbeddedRegistry, images: dict[str, Image], tmp_path: Path, jobs: str
) -> None:
    pinned = images["a"].digest
    listed = write(tmp_path / "list", f"{registry.host}/team/a@{pinned}")

    assert cli("mirror", jobs, listed, f"{registry.host}/mirror").code == 0

    assert cli("digest", f"{registry.host}/mirror/team/a@{pinned}").lines == [pinned]


def test_a_list_comes_from_standard_input(
    cli: Cli,
    registry: EmbeddedRegistry,
    images: dict[str, Image],
    monkeypatch: pytest.MonkeyPatch,
    jobs: str,
) -> None:
    content = f"{registry.host}/team/a:v1\r\n".encode()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))

    assert cli("mirror", jobs, "-", f"{registry.host}/mirror").out.startswith("1 image: 1 copied")


def test_one_failure_is_reported_and_the_other_images_are_copied(
    cli: Cli, registry: EmbeddedRegistry, images: dict[str, Image], tmp_path: Path, jobs: str
) -> None:
    listed = write(tmp_path / "list", f"{registry.host}/team/none:v1", f"{registry.host}/team/a:v1")

    result = cli("mirror", jobs, listed, f"{registry.host}/mirror")

    assert result.code == 3
    assert result.out.startswith("2 images: 1 copied, 0 up to date, 1 failed;")
    assert result.messages.count("\n") == 1
    assert result.messages.startswith(
        f"concil: failed: {registry.host}/team/none:v1 -> {registry.host}/mirror/team/none:v1: "
    )
    assert_same_image(registry.url, "mirror/team/a", "v1", images["a"])


def test_if_all_fail_alike_the_code_says_how(
    cli: Cli, registry: EmbeddedRegistry, tmp_path: Path, jobs: str
) -> None:
    missing = write(tmp_path / "missing", *(f"{registry.host}/none/{n}:v1" for n in range(3)))
    mixed = write(tmp_path / "mixed", f"{registry.host}/none:v1", "http://127.0.0.1:1/other:v1")

    assert cli("mirror", jobs, missing, f"{registry.host}/mirror").code == 4
    assert cli("mirror", jobs, mixed, f"{registry.host}/mirror").code == 1


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("Bad Name", ("'Bad Name'",)),
        ("ftp://host/name", ("ftp",)),
        ("host.example/name@sha256:12", ("sha256:12",)),
        ("-> target", ("not a single image",)),
        ("a:1 ->", ("not a single image",)),
        ("a:1 -> b:1 -> c:1", ("not a single image",)),
        ("a:1 -> ../b:1", ("../b",)),
        ("oci:dir", ("no name from which", "->")),
        ("oci:dir:v1", ("does not name a repository", "->")),
    ],
)
def test_invalid_line_is_an_error_before_the_first_request(
    cli: Cli,
    registry: EmbeddedRegistry,
    tmp_path: Path,
    line: str,
    words: tuple[str, ...],
) -> None:
    listed = write(tmp_path / "list", f"{registry.host}/team/a:v1", "", line)

    result = cli("mirror", listed, f"{registry.host}/mirror")

    assert_fails(result, 2, f"{listed}:3: ", *words)
    assert registry.requests == []


def test_two_lines_with_one_target_are_an_error(
    cli: Cli, registry: EmbeddedRegistry, tmp_path: Path
) -> None:
    listed = write(tmp_path / "list", "a.example/x:1", "# no", "b.example/x:1")

    result = cli("mirror", listed, f"{registry.host}/mirror")

    assert_fails(result, 2, f"{listed}:1", f"{listed}:3", f"{registry.host}/mirror/x:1")


def test_a_list_must_be_readable_text_with_images(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(b"\xff\xfe\0")

    assert_fails(cli("mirror", tmp_path / "none", "host.example"), 2, "no such file")
    assert_fails(cli("mirror", tmp_path, "host.example"), 2, "is a directory")
    assert_fails(cli("mirror", tmp_path / "binary", "host.example"), 2, "not UTF-8")
    assert_fails(cli("mirror", "/dev/null", "host.example"), 2, "no images")


@pytest.mark.parametrize(
    "destination",
    ["", "host.example/x:1", f"host.example/x@{PINNED}", "oci:", "oci:dir:x", "f://x"],
)
def test_a_destination_is_a_prefix_or_a_layout(cli: Cli, tmp_path: Path, destination: str) -> None:
    listed = write(tmp_path / "list", "a.example/x:1")

    assert_fails(cli("mirror", listed, destination), 2)


@pytest.mark.parametrize(
    ("destination", "source", "target", "expected"),
    [
        ("h.example:5000", "alpine:3", None, "h.example:5000/library/alpine:3"),
        ("h.example:5000/p/", "quay.io/x/y", None, "h.example:5000/p/x/y:latest"),
        ("http://h/p", "q.example/y:1", None, "http://h/p/y:1"),
        ("docker://u:p@h.example/p", "q.example/y:1", None, "docker://u:p@h.example/p/y:1"),
        ("h.example/p", f"q.example/y:1@{PINNED}", None, "h.example/p/y:1"),
        ("h.example/p", f"q.example/y@{PINNED}", None, f"h.example/p/y@{PINNED}"),
        ("h.example/p", "q.example/y:1", "quay.io/z:2", "h.example/p/quay.io/z:2"),
        ("oci:d", "alpine:3", None, "oci:d:docker.io/library/alpine:3"),
        ("oci:d", "http://q.example:5000/y", None, "oci:d:q.example:5000/y:latest"),
        ("oci:d", f"q.example/y@{PINNED}", None, f"oci:d:q.example/y:{PINNED.replace(':', '-')}"),
        ("oci:d", "oci:e:name", None, "oci:d:name"),
    ],
)
def test_target_of_an_image(
    destination: str, source: str, target: str | None, expected: str
) -> None:
    found = below(destination, source, target)

    assert found == expected
    parse_address(found)


def test_password_is_sent_to_one_host_only(cli: Cli, tmp_path: Path) -> None:
    listed = write(tmp_path / "list", "a.example/x:1", "b.example/y:1")

    result = cli("mirror", "--src-creds=user:secret", listed, "h.example")

    assert_fails(result, 2, "a.example, b.example")
    assert "secret" not in result.err


@pytest.mark.parametrize(
    ("line", "destination"),
    [
        ("a.example/x:1", "user:secret@h.example/x:1"),
        ("a.example/x:1", "docker://user:secret@h.example/x:1"),
        ("user:secret@a.example/x:1 -> -> y", "h.example"),
        ("a.example/x:1->user:secret@h.example/y -> z", "h.example"),
        ("a.example/x:1 -> http://user:secret@h.example/y -> z", "h.example"),
    ],
)
def test_invalid_password_is_not_shown(
    cli: Cli, tmp_path: Path, line: str, destination: str
) -> None:
    result = cli("mirror", write(tmp_path / "list", line), destination)

    assert_fails(result, 2, "the destination of a mirror" if "secret" in destination else "list:1")
    assert "secret" not in result.err


def test_password_in_a_list_is_never_shown(
    cli: Cli, registry: EmbeddedRegistry, tmp_path: Path, jobs: str
) -> None:
    address = f"http://user:secret@{registry.host}"
    good = write(tmp_path / "good", f"{address}/none:v1")
    bad = write(tmp_path / "bad", f"{address}/none:v1 -> -> x", f"{address}/NONE")

    result = cli("mirror", "-vv", jobs, good, f"{address}/mirror")

    assert result.code == 4
    assert "secret" not in result.err + result.out
    assert "secret" not in cli("mirror", bad, "h.example").err


def test_json_progress_has_an_event_a_line(
    program: Program,
    registry: EmbeddedRegistry,
    images: dict[str, Image],
    tmp_path: Path,
    jobs: str,
) -> None:
    listed = write(tmp_path / "list", f"{registry.host}/team/a:v1")

    result = program("mirror", jobs, "--progress=json", listed, f"{registry.host}/mirror")

    events = [json.loads(line) for line in result.err.splitlines()]
    ended = [e for e in events if e["kind"] == "blob" and e["state"] in ("done", "mounted")]
    assert {e["subject"] for e in ended} == set(images["a"].blobs)
    assert [e["state"] for e in events if e["kind"] == "image"] == ["started", "moving", "done"]


@pytest.mark.real
def test_a_mirror_to_the_real_registry_and_back(
    cli: Cli,
    registry: EmbeddedRegistry,
    images: dict[str, Image],
    docker_registry: DockerRegistry,
    tmp_path: Path,
) -> None:
    listed = write(tmp_path / "list", *(f"{registry.host}/team/{name}:v1" for name in images))
    place = f"{docker_registry.host}/cli/mirror"

    first = cli("mirror", listed, place)
    second = cli("mirror", listed, place)

    assert first.out.startswith("3 images: 3 copied"), first.err
    assert second.out.startswith("3 images: 0 copied, 3 up to date"), second.err
    for name, image in images.items():
        assert_same_image(docker_registry.url, f"cli/mirror/team/{name}", "v1", image)
