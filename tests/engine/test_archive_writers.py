"""Several writers of one archive: what each has been told is there."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from concil.config import TransferConfig
from concil.engine.engine import Engine
from concil.errors import Cancelled, StoreError, UsageError
from concil.fs.path_lock import PathLock
from concil.progress.events import Event, State
from concil.store.archive import docker_writer, oci
from concil.store.archive.docker_writer import DockerArchiveWriter
from concil.transfer.mirror.report import MirrorItem, Outcome
from tests.engine.engine_setup import WAIT, engine_of
from tests.engine.test_archives import assert_holds, layout_of, left_beside, listed
from tests.support.images import Image, make_image
from tests.support.layouts import has_message

# A rare fault is what these tests look for: one failure is enough.
pytestmark = pytest.mark.flaky(reruns=0)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """Return a file in a directory of its own."""
    (tmp_path / "out").mkdir()
    return tmp_path / "out" / "images.tar"


@pytest.fixture
def images() -> dict[str, Image]:
    return {f"v{number}": make_image(number) for number in range(6)}


@pytest.fixture
def source(tmp_path: Path, images: dict[str, Image]) -> str:
    return layout_of(tmp_path / "in", **images)


def copy_while_writing(engine: Engine, source: str, during: str, target: str, name: str) -> None:
    """Copy ``name`` by a mirror during which somebody else copies ``during`` to ``target``."""

    def items() -> Iterator[MirrorItem]:
        yield MirrorItem(f"{source}:{name}", f"{target}:{name}")
        with engine_of(TransferConfig(concurrent_images=1)) as other:
            other.copy(f"{source}:{during}", f"{target}:{during}")

    engine.mirror(items())


@pytest.fixture
def one(config: TransferConfig) -> Iterator[Engine]:
    """Run an engine that takes one image after the other."""
    with engine_of(replace(config, concurrent_images=1)) as engine:
        yield engine


def test_images_that_another_writer_added_are_kept(
    one: Engine, source: str, out: Path, images: dict[str, Image]
) -> None:
    one.copy(f"{source}:v0", f"oci-archive:{out}:v0")

    copy_while_writing(one, source, "v1", f"oci-archive:{out}", "v2")

    assert sorted(one.list_tags(f"oci-archive:{out}")) == ["v0", "v1", "v2"]
    for name in ("v0", "v1", "v2"):
        assert_holds(out, images[name])
    assert left_beside(out) == []


def test_of_one_name_the_one_that_ends_last_stays(
    one: Engine, tmp_path: Path, source: str, out: Path, images: dict[str, Image]
) -> None:
    def items() -> Iterator[MirrorItem]:
        yield MirrorItem(f"{source}:v1", f"oci-archive:{out}:app")
        with engine_of() as other:
            other.copy(f"{source}:v2", f"oci-archive:{out}:app")

    one.mirror(items())

    copied = one.copy(f"oci-archive:{out}:app", f"oci:{tmp_path}/back:app")
    assert str(copied.digest) == images["v1"].digest
    assert_holds(out, images["v2"])


def test_archive_removed_or_replaced_during_a_run_still_gets_every_image(
    one: Engine, source: str, out: Path, images: dict[str, Image]
) -> None:
    """What was found up to date in the old file is in the new one, too."""
    for after in ("nothing", "another"):
        out.unlink(missing_ok=True)
        one.copy(f"{source}:v0", f"oci-archive:{out}:v0")

        def items(after: str = after) -> Iterator[MirrorItem]:
            yield MirrorItem(f"{source}:v0", f"oci-archive:{out}:v0")
            out.unlink()
            if after == "another":
                with engine_of() as other:
                    other.copy(f"{source}:v1", f"oci-archive:{out}:v1")

        report = one.mirror(items())

        assert [result.state for result in report.present] == [State.PRESENT]
        expected = ["v0", "v1"] if after == "another" else ["v0"]
        assert sorted(one.list_tags(f"oci-archive:{out}")) == expected
        for name in expected:
            assert_holds(out, images[name])


def test_threads_engines_and_names_of_one_file_lose_nothing(
    config: TransferConfig, source: str, out: Path, images: dict[str, Image]
) -> None:
    link = out.with_name("link.tar")
    link.symlink_to(out.name)
    paths = (out, link, out.parent / ".." / "out" / out.name)
    together = threading.Barrier(len(images))

    with engine_of(config) as shared:

        def copy(number: int) -> None:
            together.wait(WAIT)
            target = f"oci-archive:{paths[number % 3]}:v{number}"
            if number % 2:
                shared.copy(f"{source}:v{number}", target)
            else:
                with engine_of(config) as own:
                    own.copy(f"{source}:v{number}", target)

        with ThreadPoolExecutor(len(images)) as pool:
            list(pool.map(copy, range(len(images))))

        assert sorted(shared.list_tags(f"oci-archive:{link}")) == sorted(images)
    for image in images.values():
        assert_holds(out, image)
    assert link.is_symlink()
    assert left_beside(out) == ["link.tar"]


def test_a_copy_within_a_mirrors_callback_lands_too(
    one: Engine, source: str, out: Path, images: dict[str, Image]
) -> None:
    def also(outcome: Outcome) -> None:
        if outcome.item.source.endswith(":v1"):
            one.copy(f"{source}:v2", f"oci-archive:{out}:v2")

    layout = f"oci:{out.parent}/layout:v1"
    items = [
        MirrorItem(f"{source}:v0", f"oci-archive:{out}:v0"),
        MirrorItem(f"{source}:v1", layout),
    ]
    one.mirror(items, on_image=also)

    assert sorted(one.list_tags(f"oci-archive:{out}")) == ["v0", "v2"]
    assert_holds(out, images["v0"])


def test_a_writer_that_does_not_end_is_named_and_nothing_is_lost(
    engine: Engine, source: str, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(oci, "_LOCK_TIMEOUT", 0.0)
    engine.copy(f"{source}:v0", f"oci-archive:{out}:v0")
    before = out.read_bytes()
    holder = PathLock(out)
    assert holder.acquire(0)
    outcomes: list[Outcome] = []

    with pytest.raises(StoreError) as excinfo:
        engine.mirror(
            [MirrorItem(f"{source}:v1", f"oci-archive:{out}:v1")], on_image=outcomes.append
        )
    with pytest.raises(StoreError):
        engine.copy(f"{source}:v1", f"oci-archive:{out}:v1")
    holder.release()

    assert has_message(excinfo.value, "another process was writing it", "images.tar")
    assert [outcome.error for outcome in outcomes] == [excinfo.value]
    assert out.read_bytes() == before
    assert left_beside(out) == []


def test_whoever_waits_for_another_writer_can_be_cancelled(
    config: TransferConfig, source: str, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    holder = PathLock(out)
    assert holder.acquire(0)
    events: list[Event] = []
    waiting = threading.Event()
    monkeypatch.setattr(
        "concil.fs.path_lock.logger.warning", lambda *_args, **_options: waiting.set()
    )

    with engine_of(config, progress=events.append) as engine, ThreadPoolExecutor(1) as pool:
        outcome = pool.submit(engine.copy, f"{source}:v1", f"oci-archive:{out}:v1")
        assert waiting.wait(WAIT)
        engine.cancel()
        with pytest.raises(Cancelled):
            outcome.result(WAIT)
    holder.release()

    # The image was copied into an archive that never appeared.
    assert [e.state for e in events if e.kind == "image"][-1] is State.CANCELLED
    assert left_beside(out) == []
    assert not out.exists()


def test_one_archive_that_fails_keeps_no_other_from_appearing(
    one: Engine, source: str, out: Path, images: dict[str, Image]
) -> None:
    other = out.with_name("other.tar")
    outcomes: list[Outcome] = []

    def items() -> Iterator[MirrorItem]:
        yield MirrorItem(f"{source}:v0", f"oci-archive:{out}:v0")
        yield MirrorItem(f"{source}:v1", f"oci-archive:{other}:v1")
        out.write_bytes(b"another's")

    with pytest.raises(StoreError) as excinfo:
        one.mirror(items(), on_image=outcomes.append)

    assert has_message(excinfo.value, "another program", "images.tar")
    assert [(o.item.source[-2:], o.error) for o in outcomes] == [
        ("v0", excinfo.value),
        ("v1", None),
    ]
    assert_holds(other, images["v1"])


def test_interrupted_mirror_reports_only_images_in_the_archive(
    one: Engine, source: str, out: Path
) -> None:
    outcomes: list[Outcome] = []

    def items() -> Iterator[MirrorItem]:
        yield MirrorItem(f"{source}:v0", f"oci-archive:{out}:v0")
        one.cancel()
        yield MirrorItem(f"{source}:v1", f"oci-archive:{out}:v1")

    with pytest.raises(Cancelled):
        one.mirror(items(), on_image=outcomes.append)

    assert [outcome for outcome in outcomes if outcome.error is None] == []
    assert not out.exists()
    assert left_beside(out) == []


def test_a_layer_of_a_removed_archive_is_written_again(
    engine: Engine, source: str, out: Path, images: dict[str, Image]
) -> None:
    """What an engine has brought into a file once is not believed to be there for ever."""
    engine.copy(f"{source}:v0", f"oci-archive:{out}:v0")
    out.unlink()

    engine.copy(f"{source}:v0", f"oci-archive:{out}:again")

    assert_holds(out, images["v0"])


@pytest.mark.parametrize("other", ["docker-archive", "oci-archive"])
def test_an_archive_is_not_written_as_two_kinds_at_once(
    one: Engine, source: str, out: Path, other: str
) -> None:
    kinds = ["docker-archive", "oci-archive"]
    kinds.remove(other)
    items = [
        MirrorItem(f"{source}:v0", f"{kinds[0]}:{out}:app:0"),
        MirrorItem(f"{source}:v1", f"{other}:{out}:app:1"),
    ]

    report = one.mirror(items)

    (failed,) = report.failed
    assert failed.error is not None
    assert has_message(failed.error, f"already being written as {kinds[0]}")
    assert list(one.list_tags(f"{kinds[0]}:{out}"))


def test_a_dry_run_takes_no_lock_and_leaves_nothing(engine: Engine, source: str, out: Path) -> None:
    holder = PathLock(out)
    assert holder.acquire(0)

    for kind in ("oci-archive", "docker-archive"):
        report = engine.mirror([MirrorItem(f"{source}:v0", f"{kind}:{out}:v0")], dry_run=True)
        assert report.copied_count == 1
    holder.release()

    assert left_beside(out) == []


# docker-archive ------------------------------------------------------------------------


def test_the_second_writer_of_a_docker_archive_is_refused_by_name_at_once(
    one: Engine, source: str, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(docker_writer, "_LOCK_TIMEOUT", 0.0)
    refused: list[UsageError] = []

    def items() -> Iterator[MirrorItem]:
        yield MirrorItem(f"{source}:v0", f"docker-archive:{out}:app:0")
        with engine_of() as other, pytest.raises(UsageError) as excinfo:
            other.copy(f"{source}:v1", f"docker-archive:{out}:app:1")
        refused.append(excinfo.value)

    one.mirror(items())

    (error,) = refused
    assert has_message(error, "another process is writing", "images.tar", "cannot be added to")
    assert [entry["RepoTags"] for entry in listed(out)] == [["docker.io/library/app:0"]]
    assert left_beside(out) == []


def test_second_writer_of_a_docker_archive_succeeds_after_the_first_has_failed(
    out: Path,
) -> None:
    first, second = DockerArchiveWriter(out), DockerArchiveWriter(out)
    first.acquire_lock()
    with ThreadPoolExecutor(1) as pool:
        claimed = pool.submit(second.acquire_lock)
        first.close()
        claimed.result(WAIT)
    third = DockerArchiveWriter(out)
    second.close()
    out.write_bytes(b"x")

    with pytest.raises(UsageError) as excinfo:
        third.acquire_lock()
    assert has_message(excinfo.value, "already exists")
    assert left_beside(out) == []


@pytest.mark.parametrize("kind", ["oci-archive", "docker-archive"])
def test_files_of_a_killed_run_are_removed_even_if_there_is_nothing_to_do(
    engine: Engine, source: str, out: Path, kind: str
) -> None:
    if kind == "oci-archive":
        engine.copy(f"{source}:v0", f"{kind}:{out}:v0")
    for name in (f".{out.name}.{'0' * 16}.new", f".{out.name}.lock"):
        out.with_name(name).write_bytes(b"left")

    engine.copy(f"{source}:v0", f"{kind}:{out}:v0")

    assert left_beside(out) == []
