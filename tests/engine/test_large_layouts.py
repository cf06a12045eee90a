"""A mirror of very many images into one layout: how often its index is read and written."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from concil import MirrorItem
from concil.config import TransferConfig
from concil.engine.engine import Engine
from concil.errors import StoreError
from concil.fs.nofollow_tree import NoFollowTree
from concil.fs.nofollow_tree import StatSignature as FileState
from concil.progress.events import Event, State
from concil.store.layout import index_file
from concil.store.layout.store import LayoutDirectory
from concil.transfer.mirror.prune import PruneOptions
from concil.transfer.mirror.report import Outcome
from tests.engine.engine_setup import WAIT, engine_of
from tests.support.images import make_image, write_layout

REF_NAME = "org.opencontainers.image.ref.name"
MANY = 300


class DiskError(Exception):
    """What a test lets a disk say."""


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Write a layout of one image."""
    write_layout(tmp_path / "source", {"a": make_image(1, (1000,))})
    return tmp_path / "source"


@pytest.fixture
def accesses(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Count how often index.json is read and written as a whole."""
    counted: Counter[str] = Counter()
    write, read = NoFollowTree.replace, NoFollowTree.read

    def counting_replace(tree: NoFollowTree, name: str, content: bytes) -> FileState:
        counted[f"write {name}"] += 1
        return write(tree, name, content)

    def counting_read(tree: NoFollowTree, name: str, limit: int) -> tuple[bytes, FileState]:
        counted[f"read {name}"] += 1
        return read(tree, name, limit)

    monkeypatch.setattr(NoFollowTree, "replace", counting_replace)
    monkeypatch.setattr(NoFollowTree, "read", counting_read)
    return counted


@pytest.fixture
def never(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the index be saved at the end only."""
    monkeypatch.setattr(index_file, "_WAIT", 10.0 * WAIT)


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the index be saved as soon as there is a thread for it."""
    monkeypatch.setattr(index_file, "_WAIT", 0.0)
    monkeypatch.setattr(index_file, "_SHARE", 0.0)


def items(source: Path, target: Path, count: int = MANY) -> Iterator[MirrorItem]:
    """One image under many names."""
    for number in range(count):
        yield MirrorItem(f"oci:{source}:a", f"oci:{target}:v{number}")


def on_disk(target: Path) -> set[str]:
    """The names that index.json has at this moment."""
    document = json.loads((target / "index.json").read_bytes())
    return {entry["annotations"][REF_NAME] for entry in document["manifests"]}


@pytest.mark.usefixtures("never")
def test_index_is_written_once_for_many_images(
    engine: Engine, source: Path, tmp_path: Path, accesses: Counter[str]
) -> None:
    target = tmp_path / "target"

    report = engine.mirror(items(source, target))

    assert len(report.copied) == MANY
    assert on_disk(target) == {f"v{number}" for number in range(MANY)}
    assert accesses["write index.json"] == 2  # the empty one, and that with all names
    assert accesses["read index.json"] <= 6


@pytest.mark.usefixtures("never")
def test_second_run_reads_the_index_once_and_writes_nothing(
    engine: Engine, source: Path, tmp_path: Path, accesses: Counter[str]
) -> None:
    target = tmp_path / "target"
    engine.mirror(items(source, target))
    accesses.clear()

    assert len(engine.mirror(items(source, target)).present) == MANY

    assert accesses["write index.json"] == 0
    assert accesses["read index.json"] <= 1
    assert accesses.total() <= MANY + 1  # the manifest, for each name


@pytest.mark.usefixtures("never")
def test_names_that_move_to_another_image_are_written_once(
    engine: Engine, source: Path, tmp_path: Path, accesses: Counter[str]
) -> None:
    target = tmp_path / "target"
    engine.mirror(items(source, target))
    write_layout(tmp_path / "new", {"a": make_image(2, (1000,))})
    accesses.clear()

    assert len(engine.mirror(items(tmp_path / "new", target)).copied) == MANY

    assert accesses["write index.json"] == 1
    assert len(json.loads((target / "index.json").read_bytes())["manifests"]) == MANY


@pytest.mark.usefixtures("at_once")
def test_image_is_reported_once_its_entry_is_on_disk(
    engine: Engine, source: Path, tmp_path: Path
) -> None:
    target, missing, told = tmp_path / "target", list[str](), list[str]()

    def look(outcome: Outcome) -> None:
        name = outcome.item.destination.rpartition(":")[2]
        told.append(name)
        if name not in on_disk(target):
            missing.append(name)

    engine.mirror(items(source, target, 50), on_image=look)

    assert sorted(told) == sorted(f"v{number}" for number in range(50))
    assert missing == []


@pytest.mark.usefixtures("at_once")
def test_images_are_reported_before_the_run_ends(
    config: TransferConfig, source: Path, tmp_path: Path
) -> None:
    told, waited = threading.Event(), list[bool]()

    def wait_for_the_first(event: Event) -> None:
        if event.state is State.STARTED and event.target.endswith(":v1"):
            waited.append(told.wait(WAIT))

    with engine_of(replace(config, concurrent_images=1), progress=wait_for_the_first) as engine:
        engine.mirror(items(source, tmp_path / "target", 2), on_image=lambda _: told.set())

    assert waited == [True]


@pytest.mark.usefixtures("at_once")
def test_event_of_an_image_comes_when_its_entry_is_on_the_disk(
    config: TransferConfig, source: Path, tmp_path: Path
) -> None:
    target, missing, done = tmp_path / "target", list[str](), list[str]()

    def look(event: Event) -> None:
        if event.kind == "image" and event.state is State.DONE:
            name = event.target.rpartition(":")[2]
            done.append(name)
            if name not in on_disk(target):
                missing.append(name)

    with engine_of(config, progress=look) as engine:
        engine.mirror(items(source, target, 30))
        engine.copy(f"oci:{source}:a", f"oci:{target}:alone")

    assert sorted(done) == sorted([*(f"v{number}" for number in range(30)), "alone"])
    assert missing == []


@pytest.mark.usefixtures("never")
def test_events_of_images_whose_index_cannot_be_written_say_so(
    config: TransferConfig, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target, write, states = tmp_path / "target", NoFollowTree.replace, Counter[State]()
    LayoutDirectory(target, create=True)

    def refuse(tree: NoFollowTree, name: str, content: bytes) -> FileState:
        if name == "index.json":
            raise StoreError("cannot write index.json: No space left", remedy="free some")
        return write(tree, name, content)

    def count(event: Event) -> None:
        if event.kind == "image" and event.state.is_final:
            states[event.state] += 1

    monkeypatch.setattr(NoFollowTree, "replace", refuse)
    with engine_of(config, progress=count) as engine:
        engine.mirror(items(source, target, 5))

    assert states == {State.FAILED: 5}


@pytest.mark.usefixtures("at_once")
def test_callback_may_copy_into_the_same_layout(
    engine: Engine, source: Path, tmp_path: Path
) -> None:
    target = tmp_path / "target"

    def copy(outcome: Outcome) -> None:
        engine.copy(f"oci:{source}:a", f"{outcome.item.destination}-again")

    engine.mirror(items(source, target, 5), on_image=copy)

    names = [f"v{number}" for number in range(5)]
    assert on_disk(target) == {*names, *(f"{name}-again" for name in names)}


@pytest.mark.usefixtures("never")
def test_run_that_breaks_off_saves_what_it_has_copied(
    engine: Engine, source: Path, tmp_path: Path
) -> None:
    told = list[str]()

    def broken() -> Iterator[MirrorItem]:
        yield from items(source, tmp_path / "target", 3)
        raise DiskError

    with pytest.raises(DiskError):
        engine.mirror(broken(), on_image=lambda outcome: told.append(outcome.item.destination))

    assert on_disk(tmp_path / "target") == {"v0", "v1", "v2"}


@pytest.mark.parametrize("wait", [0.0, 10.0 * WAIT])
def test_images_whose_index_cannot_be_written_have_failed(
    engine: Engine,
    source: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    wait: float,
) -> None:
    monkeypatch.setattr(index_file, "_WAIT", wait)
    target, write = tmp_path / "target", NoFollowTree.replace
    LayoutDirectory(target, create=True)

    def refuse(tree: NoFollowTree, name: str, content: bytes) -> FileState:
        if name == "index.json":
            raise StoreError("cannot write index.json: No space left", remedy="free some")
        return write(tree, name, content)

    with monkeypatch.context() as patch:
        patch.setattr(NoFollowTree, "replace", refuse)
        report = engine.mirror(items(source, target, 20))
        with pytest.raises(StoreError, match="No space left"):
            engine.copy(f"oci:{source}:a", f"oci:{target}:v0")

    assert (len(report.copied), len(report.present), len(report.failed)) == (0, 0, 20)
    assert all("No space left" in str(outcome.error) for outcome in report.failed)
    assert on_disk(target) == set()
    assert len(engine.mirror(items(source, target, 20)).copied) == 20
    assert len(on_disk(target)) == 20


@pytest.mark.usefixtures("never")
def test_copied_image_is_on_the_disk(engine: Engine, source: Path, tmp_path: Path) -> None:
    engine.copy(f"oci:{source}:a", f"oci:{tmp_path}/target:v1")

    assert on_disk(tmp_path / "target") == {"v1"}


@pytest.mark.usefixtures("never")
def test_changes_of_another_writer_are_kept(engine: Engine, source: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    LayoutDirectory(target, create=True)

    def beside_another() -> Iterator[MirrorItem]:
        yield from items(source, target, 2)
        entry = LayoutDirectory(source).find_entry("a")
        assert entry is not None
        LayoutDirectory(target).set_entry("theirs", entry)
        LayoutDirectory(target).set_entry("v0", entry)
        yield MirrorItem(f"oci:{source}:a", f"oci:{target}:v2")

    assert len(engine.mirror(beside_another()).failed) == 0

    assert on_disk(target) == {"v0", "v1", "v2", "theirs"}


@pytest.mark.usefixtures("never")
def test_pruned_names_are_removed_in_one_write(
    engine: Engine, source: Path, tmp_path: Path, accesses: Counter[str]
) -> None:
    target = tmp_path / "target"
    engine.mirror(items(source, target))
    accesses.clear()
    gone = {f"v{number}": (f"oci:{source}:gone{number}",) for number in range(MANY - 1)}

    pruned = engine.prune(f"oci:{target}", PruneOptions(gone.get, without_limit=True))

    assert pruned.error is None
    assert len(pruned.removed) == MANY - 1
    assert on_disk(target) == {f"v{MANY - 1}"}
    assert accesses["write index.json"] == 1


@pytest.mark.usefixtures("never")
def test_names_whose_deletion_failed_still_exist(
    engine: Engine, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "target"
    engine.mirror(items(source, target, 3))

    def refuse(*_: object) -> FileState:
        raise StoreError("cannot write index.json: No space left", remedy="free some")

    monkeypatch.setattr(NoFollowTree, "replace", refuse)
    pruned = engine.prune(
        f"oci:{target}", PruneOptions(lambda _: (f"oci:{source}:gone",), without_limit=True)
    )

    assert "No space left" in str(pruned.error)
    assert pruned.removed == []
    assert len(on_disk(target)) == 3


def signed(directory: Path, count: int) -> None:
    """Write a layout of images with a referrer each."""
    made = [make_image(number, (100,)) for number in range(count)]
    write_layout(
        directory,
        {f"v{number}": image for number, image in enumerate(made)}
        | {f"s{n}": make_image(count + n, (100,), subject=image) for n, image in enumerate(made)},
    )


@pytest.mark.usefixtures("never")
def test_index_is_written_once_for_many_images_with_referrers(
    engine: Engine, tmp_path: Path, accesses: Counter[str]
) -> None:
    count, target = 30, tmp_path / "target"
    signed(tmp_path / "signed", count)
    wanted = [
        MirrorItem(f"oci:{tmp_path}/signed:v{n}", f"oci:{target}:v{n}", referrers=True)
        for n in range(count)
    ]

    report = engine.mirror(wanted)

    assert sum(result.referrers for result in report.copied) == count
    assert accesses["write index.json"] == 2
    document = json.loads((target / "index.json").read_bytes())
    assert len(document["manifests"]) == 2 * count
