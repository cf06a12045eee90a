"""`concil mirror --prune`: what is gone at the source goes at the destination, and nothing else."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from concil.server import EmbeddedRegistry
from tests.cli.commands.test_mirror_plan import tags_of
from tests.cli.runner import Cli, assert_fails
from tests.support.docker_registry import DockerRegistry
from tests.support.images import assert_same_image, make_image, make_index, put_image, write_layout
from tests.support.relay import Relay
from tests.support.request_log import RequestLog

pytestmark = pytest.mark.real
NAME = "team/app"
OLD, NEW, OTHER = (make_image(n, (2000, 900)) for n in (1, 2, 3))


class Pair:
    """A source and a real registry, which is reached through a relay."""

    def __init__(self, source: EmbeddedRegistry, registry: DockerRegistry, relay: Relay) -> None:
        self.source = source
        self.registry = registry
        self.relay = relay

    def plan(self, path: Path, *lines: str, repository: str = NAME) -> Path:
        """Write a plan with one entry."""
        head = ("[[mirror]]", f'source = "{self.source.url}/{repository}"')
        path.write_text("\n".join((*head, *lines)) + "\n")
        return path

    def put(self, tag: str, image: object = OLD, name: str = NAME) -> None:
        """Put an image into the source."""
        put_image(self.source.url, name, tag, image)  # type: ignore[arg-type]

    def delete_tag(self, tag: str, name: str = NAME) -> None:
        """Delete a tag of the source."""
        answer = requests.delete(f"{self.source.url}/v2/{name}/manifests/{tag}", timeout=60)
        answer.raise_for_status()

    def tags(self, name: str = f"m/{NAME}") -> list[str]:
        """Return the tags of the destination."""
        return tags_of(self.registry.url, name)

    @property
    def dest_option(self) -> str:
        """The destination, as it is given on the command line."""
        return f"--dest={self.relay.url}/m"


@pytest.fixture
def seen() -> RequestLog:
    return RequestLog()


@pytest.fixture
def pair(
    registry: EmbeddedRegistry, fresh_docker_registry: DockerRegistry, seen: RequestLog
) -> Iterator[Pair]:
    with Relay(fresh_docker_registry.host, observer=seen) as relay:
        yield Pair(registry, fresh_docker_registry, relay)


def test_deleted_tag_is_listed_by_a_dry_run_and_then_pruned(
    cli: Cli, pair: Pair, seen: RequestLog, tmp_path: Path, jobs: str
) -> None:
    pair.put("v1", OLD)
    pair.put("v2", NEW)
    written = pair.plan(tmp_path / "plan.toml", "prune = true")
    assert cli("mirror", jobs, written, pair.dest_option).code == 0
    pair.delete_tag("v1")
    put_image(pair.registry.url, "m/unrelated", "v1", OTHER)
    seen.clear()

    report = tmp_path / "report.json"
    shown = cli("mirror", jobs, written, pair.dest_option, "--dry-run", f"--report={report}")

    assert shown.code == 0, shown.err
    line = f"prune {pair.relay.url}/m/{NAME}:v1 ({OLD.digest})"
    assert line in shown.lines
    assert shown.lines[-1].endswith("1 to prune; nothing was changed")
    assert {each.method for each in seen.requests} <= {"GET", "HEAD"}
    document = json.loads(report.read_text())
    assert document["summary"]["would_prune"] == 1
    assert pair.tags() == ["v1", "v2"]

    result = cli("mirror", jobs, written, pair.dest_option, f"--report={report}")

    assert result.code == 0, result.err
    assert "; 1 pruned; " in result.out
    assert pair.tags() == ["v2"]
    assert tags_of(pair.registry.url, "m/unrelated") == ["v1"]
    [entry] = [e for e in json.loads(report.read_text())["images"] if e["outcome"] == "pruned"]
    assert entry["target"] == f"{pair.relay.url}/m/{NAME}:v1"
    assert entry["digest"] == OLD.digest


def test_without_the_option_nothing_is_pruned(
    cli: Cli, pair: Pair, tmp_path: Path, jobs: str
) -> None:
    pair.put("v1", OLD)
    pair.put("v2", NEW)
    written = pair.plan(tmp_path / "plan.toml")
    cli("mirror", jobs, written, pair.dest_option)
    pair.delete_tag("v1")

    assert cli("mirror", jobs, written, pair.dest_option).code == 0
    assert pair.tags() == ["v1", "v2"]
    assert cli("mirror", jobs, written, pair.dest_option, "--prune").code == 0
    assert pair.tags() == ["v2"]


@pytest.mark.parametrize(
    ("lines", "stays"),
    [
        (('match = "v.*"',), ["by-hand", "v2"]),
        (('exclude = ["v1"]',), ["v1", "v2"]),
        (('immutable = ["v1"]',), ["v1", "v2"]),
        (('match = "v.*"', 'tags = ["v1"]'), ["by-hand", "v1", "v2"]),
        (('semver = ">=2"',), ["by-hand", "v1", "v2"]),
        (("latest = 1",), ["by-hand", "v2"]),
        ((), ["v2"]),
    ],
)
def test_only_tags_that_the_entry_covers_are_pruned(
    cli: Cli, pair: Pair, tmp_path: Path, lines: tuple[str, ...], stays: list[str]
) -> None:
    for tag, image in (("v1", OLD), ("by-hand", OTHER), ("v2", NEW)):
        put_image(pair.registry.url, f"m/{NAME}", tag, image)
    pair.put("v2", NEW)
    written = pair.plan(tmp_path / "plan.toml", *lines, "prune = true")

    cli("mirror", written, pair.dest_option)

    assert pair.tags() == stays


def test_a_manifest_that_another_tag_needs_stays(
    cli: Cli, pair: Pair, tmp_path: Path, jobs: str
) -> None:
    # Distribution 2.8 deletes no tag alone, and lets the child of an index be deleted.
    arm = make_image(7, (900,), platform="linux/arm64")
    index = make_index([NEW, arm])
    for tag, image in (("v1", OLD), ("latest", OLD), ("both", index), ("arm", arm)):
        pair.put(tag, image)
    written = pair.plan(tmp_path / "plan.toml", "prune = true")
    assert cli("mirror", jobs, written, pair.dest_option).code == 0
    pair.delete_tag("v1")
    pair.delete_tag("arm")

    result = cli("mirror", jobs, written, pair.dest_option)

    assert result.code == 0
    assert f"m/{NAME}:v1: latest needs the same manifest" in result.err
    assert f"m/{NAME}:arm: both needs the same manifest" in result.err
    assert_same_image(pair.registry.url, f"m/{NAME}", "latest", OLD)
    assert_same_image(pair.registry.url, f"m/{NAME}", "both", index)

    pair.delete_tag("latest")
    pair.delete_tag("both")
    assert cli("mirror", jobs, written, pair.dest_option, "--prune-all").code == 0
    assert pair.tags() == []


def test_an_image_that_is_mirrored_by_digest_stays(cli: Cli, pair: Pair, tmp_path: Path) -> None:
    pair.put("v1", OLD)
    pair.put("v2", NEW)
    written = pair.plan(tmp_path / "plan.toml", "prune = true")
    text = written.read_text()
    written.write_text(f'{text}[[mirror]]\nsource = "{pair.source.url}/{NAME}@{OLD.digest}"\n')
    assert cli("mirror", written, pair.dest_option).code == 0
    pair.delete_tag("v1")

    result = cli("mirror", written, pair.dest_option)

    assert result.code == 0, result.err
    assert_same_image(pair.registry.url, f"m/{NAME}", OLD.digest, OLD)


def test_what_another_entry_writes_stays(cli: Cli, pair: Pair, tmp_path: Path) -> None:
    pair.put("v1", OLD)
    pair.put("v2", NEW, "team/other")
    written = tmp_path / "plan.toml"
    written.write_text(
        f'[[mirror]]\nsource = "{pair.source.url}/{NAME}"\ntarget = "all"\nprune = true\n'
        f'[[mirror]]\nsource = "{pair.source.url}/team/other"\ntarget = "all"\n'
    )

    assert cli("mirror", written, pair.dest_option).code == 0
    assert pair.tags("m/all") == ["v1", "v2"]


def test_an_entry_that_cannot_be_listed_leaves_what_it_may_have_written(
    cli: Cli, pair: Pair, tmp_path: Path
) -> None:
    pair.put("v1", OLD)
    put_image(pair.registry.url, "m/all", "gone", NEW)
    written = tmp_path / "plan.toml"
    written.write_text(
        f'[[mirror]]\nsource = "{pair.source.url}/{NAME}"\ntarget = "all"\nprune = true\n'
        f'[[mirror]]\nsource = "{pair.source.url}/team/missing"\ntarget = "all"\n'
    )

    result = cli("mirror", written, pair.dest_option)

    assert result.code == 3
    assert f"m/all was not pruned: the source of {written}:5, which writes to it" in result.err
    assert pair.tags("m/all") == ["gone", "v1"]


def test_a_source_that_lists_nothing_empties_nothing(cli: Cli, pair: Pair, tmp_path: Path) -> None:
    pair.put("v1", OLD)
    written = pair.plan(tmp_path / "plan.toml", "prune = true")
    cli("mirror", written, pair.dest_option)
    pair.delete_tag("v1")

    result = cli("mirror", written, pair.dest_option)

    assert result.code == 3
    assert "lists no tags at all; if that is correct, use --prune-all" in result.err
    assert pair.tags() == ["v1"]
    assert cli("mirror", written, pair.dest_option, "--prune-all").code == 0
    assert pair.tags() == []


def test_pruning_most_of_the_tags_is_refused(cli: Cli, pair: Pair, tmp_path: Path) -> None:
    for n in range(8):
        pair.put(f"v{n}", make_image(20 + n, (100,)))
    written = pair.plan(tmp_path / "plan.toml", "prune = true")
    cli("mirror", written, pair.dest_option)
    for n in range(6):
        pair.delete_tag(f"v{n}")

    result = cli("mirror", written, pair.dest_option)

    assert result.code == 3
    assert "6 of 8 tags no longer exist at the source, which may be a mistake" in result.err
    assert len(pair.tags()) == 8
    assert cli("mirror", written, pair.dest_option, "--prune-all").code == 0
    assert pair.tags() == ["v6", "v7"]


def test_signatures_and_referrers_of_what_stays_are_no_tags_of_the_source(
    cli: Cli, pair: Pair, tmp_path: Path
) -> None:
    pair.put("v1", OLD)
    written = pair.plan(tmp_path / "plan.toml", "prune = true")
    cli("mirror", written, pair.dest_option)
    for suffix in ("", ".sig"):
        name = OLD.digest.replace(":", "-") + suffix
        put_image(pair.registry.url, f"m/{NAME}", name, NEW)

    assert cli("mirror", written, pair.dest_option).code == 0
    assert len(pair.tags()) == 3


def test_a_registry_that_deletes_nothing_is_one_error_and_the_copies_are_done(
    cli: Cli, registry: EmbeddedRegistry, tmp_path: Path, jobs: str
) -> None:
    for name in ("a", "b"):
        put_image(registry.url, name, "v1", OLD)
    with DockerRegistry(tmp_path / "closed", delete=False) as closed:
        for name in ("a", "b"):
            put_image(closed.url, f"m/{name}", "gone", NEW)
        written = tmp_path / "plan.toml"
        written.write_text(
            "".join(f'[[mirror]]\nsource = "{registry.url}/{n}"\nprune = true\n' for n in "ab")
        )

        result = cli("mirror", jobs, written, f"{closed.url}/m")

        assert result.code == 3
        assert result.out.startswith("2 images: 2 copied, 0 up to date, 0 failed;")
        [line] = result.messages.splitlines()
        assert line.startswith(
            f"concil: prune failed: {closed.host} does not support deletion: 405 "
        )
        assert "storage.delete.enabled" in line
        assert tags_of(closed.url, "m/a") == ["gone", "v1"]


def test_in_a_layout_only_the_names_of_the_entry_go(
    cli: Cli, registry: EmbeddedRegistry, tmp_path: Path, jobs: str
) -> None:
    put_image(registry.url, NAME, "v1", OLD)
    layout = tmp_path / "layout"
    prefix = f"{registry.host}/{NAME}"
    write_layout(layout, {f"{prefix}:gone": OLD, f"{prefix}-b:gone": NEW, "gone": OTHER})
    written = tmp_path / "plan.toml"
    written.write_text(f'[[mirror]]\nsource = "{registry.url}/{NAME}"\nprune = true\n')

    result = cli("mirror", jobs, written, f"oci:{layout}")

    assert result.code == 0, result.err
    assert set(cli("tags", f"oci:{layout}").lines) == {f"{prefix}:v1", f"{prefix}-b:gone", "gone"}


def test_missing_layout_has_nothing_to_prune(
    cli: Cli, registry: EmbeddedRegistry, tmp_path: Path, jobs: str
) -> None:
    put_image(registry.url, NAME, "v1", OLD)
    written = tmp_path / "plan.toml"
    written.write_text(f'[[mirror]]\nsource = "{registry.url}/{NAME}"\nprune = true\n')

    shown = cli("mirror", jobs, written, f"oci:{tmp_path}/layout", "--dry-run")

    assert shown.code == 0, shown.err
    assert shown.lines[-1].endswith("0 to prune; nothing was changed")
    assert not (tmp_path / "layout").exists()


def test_many_prune_failures_are_summarised(
    cli: Cli, registry: EmbeddedRegistry, tmp_path: Path
) -> None:
    put_image(registry.url, "last", "v1", OLD)
    written = tmp_path / "plan.toml"
    sources = [f"{registry.url}/none-{n}" for n in range(9)] + [f"{registry.url}/last"]
    written.write_text(
        "".join(f'[[mirror]]\nsource = "{source}"\nprune = true\n' for source in sources)
    )

    result = cli("mirror", written, f"{registry.url}/copy")

    assert result.code == 3
    lines = [line for line in result.err.splitlines() if "prune failed" in line]
    assert len(lines) == 6
    assert lines[-1] == "concil: prune failed: 4 more, see --report FILE"


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (('target = "{name}/{tag}"', "prune = true"), ("'prune'", "exactly once")),
        (('tags = ["v1"]', "prune = true"), (":4: 'prune': tags that are listed by name",)),
        (('prune = "yes"',), (":3: 'prune': neither true nor false",)),
    ],
)
def test_entry_that_cannot_be_pruned_is_an_error_before_the_first_request(
    cli: Cli, pair: Pair, tmp_path: Path, lines: tuple[str, ...], words: tuple[str, ...]
) -> None:
    written = pair.plan(tmp_path / "plan.toml", *lines)

    assert_fails(cli("mirror", written, pair.dest_option), 2, str(written), *words)


def test_a_run_that_ends_early_prunes_nothing(cli: Cli, pair: Pair, tmp_path: Path) -> None:
    pair.put("v2", NEW)
    put_image(pair.registry.url, f"m/{NAME}", "gone", OLD)
    written = pair.plan(tmp_path / "plan.toml", 'tags = ["none"]', 'match = "v.*|gone"')

    result = cli("mirror", "-j0", written, pair.dest_option, "--prune", "--fail-fast")

    assert result.code == 4
    assert "no tags were pruned" in result.err
    assert pair.tags() == ["gone"]
    assert_fails(
        cli("mirror", written, pair.dest_option, "--prune", "--retry-failed=x"), 2, "cannot prune"
    )
