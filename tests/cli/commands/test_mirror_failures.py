"""Failures of many images: equal ones are one line, with how to try again."""

from __future__ import annotations

from pathlib import Path

import pytest

from concil.server import EmbeddedRegistry, ErrorResponse, RegistryBehavior, Request, Response
from tests.cli.runner import Cli
from tests.support.images import make_image, put_image

COUNT = 25
REFUSED = "127.0.0.1:1"


class RefusesWrites(RegistryBehavior):
    """Refuses every write, and says which."""

    def before_request(self, request: Request) -> Response | None:
        if request.method in {"GET", "HEAD"}:
            return None
        raise ErrorResponse("DENIED", f"no {request.path}", status=403)


@pytest.fixture
def images(registry: EmbeddedRegistry, tmp_path: Path) -> Path:
    """Return a list of images that exist."""
    for number in range(COUNT):
        put_image(registry.url, f"team/app{number}", "v1", make_image(1))
    path = tmp_path / "list"
    path.write_text("".join(f"{registry.url}/team/app{n}:v1\n" for n in range(COUNT)))
    return path


def test_a_dead_destination_is_one_line(
    cli: Cli, registry: EmbeddedRegistry, images: Path, tmp_path: Path
) -> None:
    result = cli("mirror", "--progress=none", "--retry=0", images, f"http://{REFUSED}/m")

    source = f"{registry.url}/team/app"
    assert result.code == 1
    assert result.messages.splitlines() == [
        (
            f"concil: failed: {COUNT} images ({source}0:v1, {source}1:v1, {source}2:v1 and "
            f"{COUNT - 3} more): {REFUSED}: the connection was refused; "
            "check the host name and port; then run the same command again"
        )
    ]
    assert result.out.startswith(f"{COUNT} images: 0 copied, 0 up to date, {COUNT} failed")


def test_the_report_is_named_where_there_is_one(cli: Cli, images: Path, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    pages = f"--report={tmp_path}/page.html"

    result = cli(
        "mirror",
        "--progress=none",
        "--retry=0",
        images,
        f"http://{REFUSED}/m",
        pages,
        f"--report={report}",
    )

    assert f"; then run the same command again, or with --retry-failed {report}" in result.err


def test_different_reasons_are_lines_of_their_own(
    cli: Cli, registry: EmbeddedRegistry, images: Path
) -> None:
    with images.open("a") as stream:
        stream.write("".join(f"{registry.url}/team/none{n}:v1\n" for n in range(2)))
        stream.write(f"http://{REFUSED}/a:v1\nhttp://{REFUSED}/b:v1\n")

    result = cli("mirror", "--progress=none", "--retry=0", images, f"{registry.url}/m")

    lines = result.messages.splitlines()
    assert result.code == 3
    assert len(lines) == 3
    assert "team/none0:v1 -> " in lines[0]
    assert "team/none1:v1 -> " in lines[1]
    assert lines[2].startswith(f"concil: failed: 2 images (http://{REFUSED}/a:v1, http://{REFUSED}")
    assert result.out.startswith(f"{COUNT + 4} images: {COUNT} copied, 0 up to date, 4 failed")


def test_in_a_log_each_failure_is_a_short_line_and_each_reason_a_long_one_at_the_end(
    cli: Cli, registry: EmbeddedRegistry, tmp_path: Path
) -> None:
    names = [f"{registry.url}/team/none{n}:v1" for n in range(COUNT)]
    (tmp_path / "list").write_text("".join(f"{name}\n" for name in names))

    result = cli("mirror", "--progress=plain", tmp_path / "list", f"{registry.url}/m")

    *lines, last = result.err.splitlines()
    assert sorted(lines) == sorted(f"failed      {name}: 404 Not Found" for name in names)
    assert last == (
        f"concil: failed: {COUNT} images ({', '.join(names[:3])} and {COUNT - 3} more): "
        f"{registry.host}: 404 Not Found: MANIFEST_UNKNOWN; check the tag or digest; "
        "then run the same command again"
    )


def test_equal_statuses_are_one_line_whatever_the_registry_adds(
    cli: Cli, images: Path, tmp_path: Path
) -> None:
    with EmbeddedRegistry(tmp_path / "closed", behavior=RefusesWrites()) as closed:
        result = cli("mirror", "-q", images, f"{closed.url}/m")

    assert result.code == 5
    assert len(result.err.splitlines()) == 1
    assert f"concil: failed: {COUNT} images (" in result.err
    assert "403 Forbidden: DENIED: no /v2/m/team/app" in result.err
