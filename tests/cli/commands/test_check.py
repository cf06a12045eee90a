"""`concil check` and `concil gc`: what they print, report and return."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest

from concil.server import EmbeddedRegistry
from tests.cli.runner import PATIENCE, Cli, Program, assert_fails
from tests.engine.engine_setup import blob_path
from tests.report.html.recorded_runs import read_page_data
from tests.support.faults import Fault
from tests.support.images import Image, make_image, make_index, put_image, write_layout
from tests.support.relay import Relay

LARGE = 6_000_000  # bytes
ALPHA = make_image(1, (3_000, 500))
BETA = make_index(
    [make_image(n, (900,), platform=f"linux/{name}") for n, name in ((2, "amd64"), (3, "arm64"))]
)


def layer_of(image: Image) -> str:
    return max(image.all_blobs(), key=lambda digest: len(image.all_blobs()[digest]))


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x10
    path.write_bytes(content)


@pytest.fixture
def layouts(cli_here: Cli, tmp_path: Path) -> Path:
    """A list of two images in a layout, and their mirror in another one."""
    write_layout(tmp_path / "source", {"alpha:1": ALPHA, "beta:1": BETA})
    (tmp_path / "images.txt").write_text("oci:source:alpha:1\noci:source:beta:1\n")
    assert cli_here("mirror", "images.txt", "oci:copy").code == 0
    return tmp_path


def damage(layouts: Path) -> None:
    flip(blob_path(layouts / "copy", layer_of(ALPHA)))
    blob_path(layouts / "copy", BETA.children[1].digest).unlink()


# Results -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words",
    [
        ["images.txt", "oci:copy"],
        ["images.txt", "--dest", "oci:copy"],
        ["oci:copy"],
        ["images.txt", "--deep", "oci:copy"],
    ],
)
def test_a_whole_mirror_ends_with_0(cli_here: Cli, layouts: Path, words: list[str]) -> None:
    done = cli_here("check", *words)

    assert done.code == 0
    assert done.messages == ""
    (line,) = done.lines
    assert line.startswith("2 images: 2 ok, 0 behind, 0 missing, 0 damaged, 0 failed; ")


def test_what_is_not_in_order_is_printed(cli_here: Cli, layouts: Path) -> None:
    damage(layouts)

    done = cli_here("check", "images.txt", "oci:copy", "--deep")

    assert done.code == 6
    child = BETA.children[1]
    lines = sorted(done.lines)
    assert lines[0].startswith("2 images: 0 ok, 0 behind, 1 missing, 1 damaged, 0 failed; ")
    assert lines[1].startswith(f"damaged oci:copy:alpha:1: blob {layer_of(ALPHA)} (")
    assert "its bytes hash to sha256:" in lines[1]
    size = len(child.manifest)
    expected = f"manifest {child.digest} (linux/arm64, {size} bytes): it does not exist"
    assert lines[2] == f"missing oci:copy:beta:1: {expected}"


def test_a_repair_ends_with_0(cli_here: Cli, layouts: Path) -> None:
    damage(layouts)

    done = cli_here("check", "images.txt", "oci:copy", "--deep", "--repair")

    assert done.code == 0
    assert "; 2 repaired; " in done.lines[-1]
    assert {line.partition(" oci:")[0] for line in done.lines[:-1]} == {
        "repaired (damaged)",
        "repaired (missing)",
    }
    assert cli_here("check", "oci:copy", "--deep").code == 0


def test_verbose_prints_images_in_order_too(cli_here: Cli, layouts: Path) -> None:
    lines = cli_here("check", "images.txt", "oci:copy", "-v").lines

    assert {"ok oci:copy:alpha:1", "ok oci:copy:beta:1"} < set(lines)


def test_quiet_prints_only_findings(cli_here: Cli, layouts: Path) -> None:
    assert cli_here("check", "images.txt", "oci:copy", "-q").out == ""
    damage(layouts)

    lines = cli_here("check", "images.txt", "oci:copy", "-q").lines

    assert [line.split()[0] for line in lines] == ["missing"]


def test_json_has_an_object_for_each_image(cli_here: Cli, layouts: Path) -> None:
    damage(layouts)

    done = cli_here("check", "images.txt", "oci:copy", "--format", "json")

    entries = {entry["target"]: entry for entry in map(json.loads, done.lines)}
    assert entries["oci:copy:alpha:1"]["outcome"] == "ok"
    (finding,) = entries["oci:copy:beta:1"]["findings"]
    assert finding == {
        "condition": "missing",
        "kind": "manifest",
        "digest": BETA.children[1].digest,
        "size": len(BETA.children[1].manifest),
        "platform": "linux/arm64",
        "detail": "it does not exist",
        "repaired": False,
    }
    assert done.code == 6


def test_reports_have_every_image(cli_here: Cli, layouts: Path) -> None:
    damage(layouts)
    options = ["--report", "check.json", "--report", "check.html"]

    cli_here("check", "images.txt", "oci:copy", "--deep", "--repair", *options)

    document: dict[str, Any] = json.loads((layouts / "check.json").read_text())
    assert document["verb"] == "check"
    assert document["summary"] == {
        "ok": 2,
        "behind": 0,
        "missing": 0,
        "damaged": 0,
        "failed": 0,
        "not_tried": 0,
        "bytes_sent": len(ALPHA.blobs[layer_of(ALPHA)]),
        "complete": True,
    }
    assert all(entry["repaired"] for entry in document["images"])
    page = (layouts / "check.html").read_text()
    assert "Check of images.txt in oci:copy" in page
    assert set(read_page_data(page)["images"]["state"]) == {"done"}


@pytest.mark.parametrize("option", ["--retry-failed", "--since"])
def test_the_report_of_a_check_is_no_report_of_a_mirror(
    cli_here: Cli, layouts: Path, option: str
) -> None:
    cli_here("check", "images.txt", "oci:copy", "--report", "check.json")

    done = cli_here("mirror", "images.txt", "oci:other", option, "check.json")

    assert_fails(done, 2, "check.json", "the report of a check")


def test_a_registry_that_is_down_is_no_drift(cli_here: Cli, layouts: Path) -> None:
    done = cli_here("check", "images.txt", "127.0.0.1:1/mirror", "--retry", "0")

    assert done.code == 1
    assert "2 failed" in done.lines[-1]
    assert "connection was refused" in done.err


def test_drift_matters_more_than_a_failure(cli_here: Cli, layouts: Path) -> None:
    damage(layouts)
    with (layouts / "images.txt").open("a") as file:
        file.write("oci:source:gone:1\n")

    done = cli_here("check", "images.txt", "oci:copy")

    assert done.code == 6
    assert "1 failed" in done.lines[-1]


def test_a_failure_alone_is_that_of_a_mirror(cli_here: Cli, layouts: Path) -> None:
    with (layouts / "images.txt").open("a") as file:
        file.write("oci:source:gone:1\n")

    assert cli_here("check", "images.txt", "oci:copy").code == 3


# Bad input -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "code", "parts"),
    [
        (["oci:copy", "--repair"], 2, ["--repair needs the sources", "oci:copy"]),
        (["oci:copy", "--platform", "linux/amd64"], 2, ["--platform", "omit"]),
        (["oci:none"], 4, ["no layout at 'none'"]),
        (["missing.txt"], 2, ["no such file", "missing.txt"]),
        (["missing.toml", "oci:copy"], 2, ["no such file", "missing.toml"]),
        (["images.txt"], 2, ["images.txt:1", "would be copied onto itself"]),
        (["images.txt", "oci:copy:x"], 2, ["not a single image"]),
        (["images.txt", "oci:copy", "--dest", "oci:copy"], 2, ["two destinations"]),
        (["images.txt", "docker-archive:x.tar"], 2, ["does not keep their manifests"]),
        (["images.txt", "oci-archive:x.tar", "--repair"], 2, ["written as a whole"]),
        (["oci:copy", "--format", "xml"], 2, ["xml"]),
    ],
)
def test_what_makes_no_sense_is_refused(
    cli_here: Cli, layouts: Path, words: list[str], code: int, parts: list[str]
) -> None:
    if words == ["images.txt"]:
        parts = ["images.txt:1", "target"]

    assert_fails(cli_here("check", *words), code, *parts)


@pytest.mark.parametrize("verb", ["check", "gc"])
def test_a_layout_without_index_is_refused_by_name(cli_here: Cli, layouts: Path, verb: str) -> None:
    (layouts / "copy" / "index.json").unlink()

    assert_fails(cli_here(verb, "oci:copy"), 1, "copy/index.json")


# An interrupt --------------------------------------------------------------------------


@pytest.mark.process
def test_an_interrupted_check_is_continued(
    program: Program, registry: EmbeddedRegistry, tmp_path: Path
) -> None:
    images = {f"i{n}": make_image(10 + n, (40_000,)) for n in range(6)}
    images["large"] = make_image(50, (LARGE,))
    for name, image in images.items():
        put_image(registry.url, f"team/{name}", "v1", image)
    write_layout(tmp_path / "source", {f"{name}:1": image for name, image in images.items()})
    lines = [f"oci:source:{name}:1 -> team/{name}:v1\n" for name in images]
    (tmp_path / "images.txt").write_text("".join(lines))
    with Relay(registry.host) as relay:
        words = ["check", "images.txt", f"http://{relay.host}", "--deep", "--jobs", "4"]
        relay.add_fault(Fault(action="stall", after=LARGE // 2, times=None))
        process = program.start(*words)
        # Most of the small blobs must have been verified before the last of them were requested.
        relay.wait_for(
            lambda relay: relay.fired_count > 0 and relay.bytes_down > LARGE // 2 + 240_000
        )
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=PATIENCE)
        assert process.returncode == 130, err
        relay.clear_faults()

        done = program(*words)

    assert done.code == 0, done.err
    assert " before the check was interrupted; " in done.lines[-1]


# Garbage -------------------------------------------------------------------------------


def files(layout: Path) -> set[str]:
    return {f"sha256:{path.name}" for path in (layout / "blobs" / "sha256").iterdir()}


def content(*images: Image) -> set[str]:
    manifests = {each.digest for image in images for each in image.walk()}
    return manifests.union(*(image.all_blobs() for image in images))


def test_garbage_is_listed_and_kept(cli_here: Cli, layouts: Path) -> None:
    assert cli_here("delete", "oci:copy:alpha:1").code == 0

    done = cli_here("gc", "oci:copy", "--min-age", "0")

    assert done.code == 0
    assert {line.split()[2] for line in done.lines[:-1]} == content(ALPHA)
    assert done.lines[-1].endswith("nothing was changed; remove with --yes")
    assert files(layouts / "copy") == content(ALPHA, BETA)


def test_garbage_is_removed_with_yes(cli_here: Cli, layouts: Path) -> None:
    cli_here("delete", "oci:copy:alpha:1")

    done = cli_here("gc", "oci:copy", "--min-age", "0", "--yes", "--format", "json")

    document = json.loads(done.out)
    assert {each["digest"] for each in document["garbage"]} == content(ALPHA)
    assert document["removed"] is True
    assert files(layouts / "copy") == content(BETA)
    assert cli_here("check", "oci:copy", "--deep").code == 0


def test_recent_files_are_kept(cli_here: Cli, layouts: Path) -> None:
    cli_here("delete", "oci:copy:alpha:1")

    done = cli_here("gc", "oci:copy", "--yes")

    assert files(layouts / "copy") == content(ALPHA, BETA)
    assert "kept, written within 60 minutes" in done.out


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["registry.example/app"], ["is not a layout directory"]),
        (["oci-archive:a.tar"], ["is not a layout directory"]),
        (["oci:copy:alpha:1"], ["is a single image", "write oci:copy"]),
        (["oci:copy", "--min-age", "-1"], ["--min-age"]),
    ],
)
def test_only_a_layout_has_garbage(
    cli_here: Cli, layouts: Path, words: list[str], parts: list[str]
) -> None:
    assert_fails(cli_here("gc", *words), 2, *parts)
