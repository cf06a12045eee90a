"""A call that is interrupted, cancelled, or whose callback raises ends alone, and goes on later."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from concil.config import MIB, TransferConfig
from concil.dockerhub import DockerHub
from concil.engine.engine import Engine
from concil.errors import CallbackFailed, Cancelled
from concil.progress.events import Event, ProgressSink, State
from concil.runtime.cancellation import SupportsIsSet
from concil.server import EmbeddedRegistry
from concil.transfer.journal import Journal
from concil.transfer.mirror.report import MirrorItem, MirrorReport, Outcome
from tests.engine.engine_setup import CHUNK, PATIENT, WAIT, Content, blob_path, engine_of, file_of
from tests.engine.relayed_registries import HEADS, IMAGE, SIZE, RegistryPair, RelayedRegistry
from tests.support.images import (
    Image,
    assert_same_image,
    get_blob,
    make_image,
    make_layer,
    put_blob,
    put_image,
)
from tests.support.relay import Relay
from tests.transfer.transfer_setup import run_concurrently

pytestmark = pytest.mark.slow

SLOW = 2 * MIB  # bytes a second of each connection: nothing ends before it is interrupted
BEGUN = 2 * CHUNK + 1  # bytes after which it is


@dataclass(frozen=True, slots=True)
class Job:
    """One call of an engine that moves some 8 MiB over one wire."""

    relay: Relay
    call: Callable[[Engine, SupportsIsSet | None], object]
    is_right: Callable[[], bool]
    up: bool  # the bytes go up
    is_mirror: bool = False

    def passed(self, relay: Relay) -> int:
        return relay.bytes_up if self.up else relay.bytes_down


@pytest.fixture(params=["push", "pull", "copy in", "copy out", "mirror"])
def job(
    request: pytest.FixtureRequest,
    relayed_registry: RelayedRegistry,
    content: Content,
    tmp_path: Path,
) -> Job:
    """Return each call that moves bytes."""
    url, real = relayed_registry.relay.url, relayed_registry.registry.url
    kind: str = request.param
    target = tmp_path / "pulled"
    if kind == "push":
        return Job(
            relayed_registry.relay,
            lambda engine, cancel: engine.push_blob(content.path, f"{url}/app", cancel=cancel),
            lambda: get_blob(real, "app", content.digest) == content.bytes,
            up=True,
        )
    if kind == "pull":
        put_blob(real, "app", content.bytes)
        return Job(
            relayed_registry.relay,
            lambda engine, cancel: engine.pull_blob(
                f"{url}/app@{content.digest}", target, cancel=cancel
            ),
            lambda: target.read_bytes() == content.bytes,
            up=False,
        )
    put_image(real, "app", "v1", IMAGE)
    if kind == "copy in":

        def is_there() -> bool:
            return all(
                blob_path(tmp_path / "layout", digest).read_bytes() == blob
                for digest, blob in IMAGE.blobs.items()
            )

        return Job(
            relayed_registry.relay,
            lambda engine, cancel: engine.copy(
                f"{url}/app:v1", f"oci:{tmp_path / 'layout'}:a", cancel=cancel
            ),
            is_there,
            up=False,
        )
    with Engine(journal=Journal(None)) as engine:
        engine.copy(f"{real}/app:v1", f"oci:{tmp_path / 'source'}:a")
    item = MirrorItem(f"oci:{tmp_path / 'source'}:a", f"{url}/other:v1")

    def is_right() -> bool:
        assert_same_image(real, "other", "v1", IMAGE)
        return True

    if kind == "copy out":
        return Job(
            relayed_registry.relay,
            lambda engine, cancel: engine.copy(item.source, item.destination, cancel=cancel),
            is_right,
            up=True,
        )
    return Job(
        relayed_registry.relay,
        lambda engine, cancel: engine.mirror([item], cancel=cancel),
        is_right,
        up=True,
        is_mirror=True,
    )


@contextmanager
def remembering(
    config: TransferConfig, path: Path, progress: ProgressSink | None = None
) -> Iterator[Engine]:
    with (
        closing(Journal(path / "journal.sqlite")) as journal,
        engine_of(config, journal=journal, progress=progress) as engine,
    ):
        yield engine


def goes_on(job: Job, engine: Engine) -> None:
    """Repeat the call with the same engine: it ends well, and sends no more than is missing."""
    job.relay.rate = None
    job.call(engine, None)

    assert job.is_right()
    assert job.passed(job.relay) <= SIZE + 2 * CHUNK + HEADS


def test_event_cancels_a_call_which_resumes_when_it_is_repeated(
    job: Job, config: TransferConfig, tmp_path: Path
) -> None:
    stop = threading.Event()
    job.relay.rate = SLOW
    before = job.passed(job.relay)

    def interrupt() -> None:
        job.relay.wait_for(lambda relay: job.passed(relay) - before >= BEGUN)
        stop.set()

    with remembering(config, tmp_path) as engine:

        def call() -> None:
            with pytest.raises(Cancelled):
                job.call(engine, stop)

        run_concurrently(call, interrupt)
        goes_on(job, engine)


def call_until_interrupted(call: Callable[[], object]) -> None:
    """Expect a KeyboardInterrupt, and collect the socket that it may have orphaned.

    Without threads the call runs in the thread that gets the signal, and the exception may come
    between two instructions of urllib3 that create a socket and store it. No code can close that
    socket; left to a later collection, it would fail whichever test runs then.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        with pytest.raises(KeyboardInterrupt):
            call()
        gc.collect()


def test_interrupt_ends_a_call_which_resumes_when_it_is_repeated(
    job: Job, config: TransferConfig, tmp_path: Path
) -> None:
    """As Ctrl-C and the stop of a notebook do it; no `with` is left by it."""
    job.relay.rate = SLOW
    before = job.passed(job.relay)
    main = threading.main_thread().ident
    assert main is not None
    ended = threading.Event()

    def interrupt() -> None:
        job.relay.wait_for(lambda relay: job.passed(relay) - before >= BEGUN)
        signal.pthread_kill(main, signal.SIGINT)
        # CPython sees a signal late that comes just before a lock is waited for.
        while not ended.wait(0.3):
            signal.pthread_kill(main, signal.SIGWINCH)

    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    other = signal.signal(signal.SIGWINCH, lambda *_: None)
    interrupting_thread = threading.Thread(target=interrupt)
    try:
        with remembering(config, tmp_path) as engine:
            interrupting_thread.start()
            call_until_interrupted(lambda: job.call(engine, None))
            ended.set()
            goes_on(job, engine)
    finally:
        ended.set()
        interrupting_thread.join(WAIT)
        signal.signal(signal.SIGINT, handler)
        signal.signal(signal.SIGWINCH, other)


@pytest.mark.parametrize("error", [ValueError, OSError, KeyboardInterrupt])
def test_callback_that_raises_ends_its_call_which_raises_it(
    job: Job, config: TransferConfig, tmp_path: Path, error: type[BaseException]
) -> None:
    """Of the kinds that would be taken for the network's, too; in a mirror its image fails."""
    raised = error("the caller's")
    armed = [True]

    def broken(event: Event) -> None:
        if armed and event.state is State.MOVING and event.position >= BEGUN:
            armed.clear()
            raise raised

    job.relay.rate = 4 * SLOW
    with remembering(config, tmp_path, broken) as engine:
        if job.is_mirror and isinstance(raised, Exception):
            report = job.call(engine, None)
            assert isinstance(report, MirrorReport)
            [outcome] = report.failed
            assert isinstance(outcome.error, CallbackFailed)
            assert outcome.error.__cause__ is raised
        else:
            with pytest.raises(error) as excinfo:
                job.call(engine, None)
            assert excinfo.value is raised
        goes_on(job, engine)


def test_callback_that_raises_at_the_end_is_raised_as_well(
    embedded: EmbeddedRegistry, config: TransferConfig, tmp_path: Path
) -> None:
    def broken(event: Event) -> None:
        if event.state.is_final:  # PRESENT the second time
            raise ZeroDivisionError

    content = file_of(tmp_path, 1000)
    with engine_of(config, progress=broken) as engine:
        for _ in range(2):
            with pytest.raises(ZeroDivisionError):
                engine.push_blob(content.path, f"{embedded.url}/app")


def numbered_items(pair: RegistryPair, images: Sequence[Image]) -> list[MirrorItem]:
    """Put images at the source, and return what copies them."""
    items = []
    for number, image in enumerate(images):
        put_image(pair.source.registry.url, f"app{number}", "v1", image)
        name = f"app{number}:v1"
        items.append(
            MirrorItem(f"{pair.source.relay.url}/{name}", f"{pair.destination.relay.url}/{name}")
        )
    return items


def test_progress_callback_that_raises_fails_its_image_only(
    registry_pair: RegistryPair, config: TransferConfig
) -> None:
    """Also if other images wait for a blob that this image was to bring."""
    base = make_layer(1, 2 * CHUNK)
    images = [make_image(10 + number, (base, 3000)) for number in range(8)]
    items = numbered_items(registry_pair, images)
    raised: list[Exception] = []

    def broken(event: Event) -> None:
        if event.kind == "blob" and "app3" in event.image and not raised:
            raised.append(ZeroDivisionError(event.image))
            raise raised[0]

    with engine_of(config, progress=broken) as engine:
        report = engine.mirror(items)

    [outcome] = report.failed
    assert outcome.item == items[3]
    assert isinstance(outcome.error, CallbackFailed)
    assert outcome.error.__cause__ is raised[0]
    assert str(outcome.error).startswith("a callback raised ZeroDivisionError: 'http://")
    for number, image in enumerate(images):
        if number != 3:
            assert_same_image(registry_pair.destination.registry.url, f"app{number}", "v1", image)


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_progress_callback_that_exits_ends_the_mirror(
    registry_pair: RegistryPair, config: TransferConfig, error: type[BaseException]
) -> None:
    items = numbered_items(registry_pair, [make_image(n, (3000,)) for n in range(40)])
    raised = error("stop")

    armed = [raised]

    def broken(event: Event) -> None:
        if event.kind == "blob" and armed:
            raise armed.pop()

    with engine_of(config, progress=broken) as engine:
        with pytest.raises(error) as excinfo:
            engine.mirror(items)
        assert excinfo.value is raised
    assert registry_pair.destination.log.count("PUT", "/manifests/") < len(items)


@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt])
def test_callback_of_a_mirror_that_raises_ends_it_and_is_called_no_more(
    registry_pair: RegistryPair, config: TransferConfig, error: type[BaseException]
) -> None:
    images = [make_image(number, (3000,)) for number in range(12)]
    items = numbered_items(registry_pair, images)
    told: list[Outcome] = []

    def broken(outcome: Outcome) -> None:
        told.append(outcome)
        raise error

    with engine_of(config) as engine:
        with pytest.raises(error):
            engine.mirror(items, on_image=broken)
        assert len(told) == 1
        assert len(engine.mirror(items).failed) == 0  # it can be used again

    for number, image in enumerate(images):
        assert_same_image(registry_pair.destination.registry.url, f"app{number}", "v1", image)


def test_call_with_a_set_event_sends_no_request(
    relayed_registry: RelayedRegistry, content: Content
) -> None:
    stop = threading.Event()
    stop.set()

    with engine_of() as engine, pytest.raises(Cancelled):
        engine.push_blob(content.path, f"{relayed_registry.relay.url}/app", cancel=stop)

    assert relayed_registry.relay.connections == 0


def test_one_call_is_cancelled_and_another_that_needs_its_blob_is_not(
    registry_pair: RegistryPair, config: TransferConfig
) -> None:
    """The blob has one owner of the two: if that is the cancelled one, the other takes over."""
    put_image(registry_pair.source.registry.url, "app", "v1", IMAGE)
    stop = threading.Event()
    registry_pair.source.relay.rate = SLOW

    with engine_of(config) as engine:

        def first() -> None:
            with pytest.raises(Cancelled):
                engine.copy(
                    f"{registry_pair.source.relay.url}/app:v1",
                    f"{registry_pair.destination.relay.url}/a:v1",
                    cancel=stop,
                )

        def second() -> None:
            registry_pair.source.relay.wait_for(lambda relay: relay.bytes_down >= BEGUN)
            engine.copy(
                f"{registry_pair.source.relay.url}/app:v1",
                f"{registry_pair.destination.relay.url}/b:v1",
            )

        def interrupt() -> None:
            registry_pair.source.relay.wait_for(lambda relay: relay.bytes_down >= BEGUN + CHUNK)
            stop.set()
            registry_pair.source.relay.rate = None

        run_concurrently(first, second, interrupt)

    assert_same_image(registry_pair.destination.registry.url, "b", "v1", IMAGE)


def test_archive_has_what_ended_well_beside_what_was_cancelled(
    registry_pair: RegistryPair, config: TransferConfig, tmp_path: Path
) -> None:
    small = make_image(3, (1000,))
    put_image(registry_pair.destination.registry.url, "small", "v1", small)
    put_image(registry_pair.source.registry.url, "large", "v1", IMAGE)
    registry_pair.source.relay.rate = SLOW
    stop, archive = threading.Event(), tmp_path / "a.tar"

    with engine_of(config) as engine:

        def large() -> None:
            source = f"{registry_pair.source.relay.url}/large:v1"
            with pytest.raises(Cancelled):
                engine.copy(source, f"oci-archive:{archive}:large", cancel=stop)

        def quick() -> None:
            registry_pair.source.relay.wait_for(lambda relay: relay.bytes_down >= BEGUN)
            engine.copy(
                f"{registry_pair.destination.relay.url}/small:v1", f"oci-archive:{archive}:small"
            )
            stop.set()

        run_concurrently(large, quick)
        assert list(engine.list_tags(f"oci-archive:{archive}")) == ["small"]


def test_task_that_is_cancelled_ends_its_transfer(
    relayed_registry: RelayedRegistry, content: Content, config: TransferConfig
) -> None:
    """The recipe of docs/api.md."""
    relayed_registry.relay.rate = SLOW

    async def push(engine: Engine) -> None:
        stop = threading.Event()
        try:
            await asyncio.to_thread(
                engine.push_blob, content.path, f"{relayed_registry.relay.url}/app", cancel=stop
            )
        except asyncio.CancelledError:
            stop.set()
            raise

    async def main(engine: Engine) -> None:
        task = asyncio.create_task(push(engine))
        await asyncio.to_thread(
            relayed_registry.relay.wait_for, lambda relay: relay.bytes_up >= BEGUN
        )
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    with engine_of(config) as engine:
        asyncio.run(main(engine))  # which waits for the thread
        relayed_registry.relay.rate = None
        engine.push_blob(content.path, f"{relayed_registry.relay.url}/app")

    assert get_blob(relayed_registry.registry.url, "app", content.digest) == content.bytes


def test_upload_of_a_hub_is_cancelled_and_resumed(
    relayed_registry: RelayedRegistry, tmp_path: Path
) -> None:
    content = file_of(tmp_path, 30 * MIB)
    path = content.path.rename(tmp_path / content.digest.removeprefix("sha256:"))
    relayed_registry.relay.rate = 8 * MIB
    stop = threading.Event()
    hub = DockerHub(f"{relayed_registry.relay.url}/app")

    def push() -> None:
        with pytest.raises(Cancelled):
            hub.post_blob(str(path), cancel=stop)

    def interrupt() -> None:
        relayed_registry.relay.wait_for(lambda relay: relay.bytes_up >= 11 * MIB)
        stop.set()

    run_concurrently(push, interrupt)
    relayed_registry.relay.rate = None
    hub.post_blob(str(path), cancel=threading.Event())
    hub.close()

    assert get_blob(relayed_registry.registry.url, "app", content.digest) == path.read_bytes()
    assert relayed_registry.sent() <= 30 * MIB + 1


def threads_of_engines() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name.startswith("concil-")}


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - nothing else counts them


def test_unclosed_engine_ends_its_threads_and_issues_a_warning(
    embedded: EmbeddedRegistry, tmp_path: Path
) -> None:
    content = file_of(tmp_path, 1000)
    gc.collect()
    before = descriptors()
    others = threads_of_engines()
    engine = Engine(TransferConfig(workers=3), timeouts=PATIENT)
    engine.push_blob(content.path, f"{embedded.url}/app")
    mine = threads_of_engines() - others
    assert mine

    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        del engine
        gc.collect()

    for thread in mine:
        thread.join(WAIT)
        assert not thread.is_alive()
    assert [(each.category, "unclosed" in str(each.message)) for each in told] == [
        (ResourceWarning, True)
    ]
    assert descriptors() <= before + 1  # the registry's end of a connection may close later


def test_engine_that_is_closed_says_nothing() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        engine = Engine()
        engine.close()
        del engine
        gc.collect()


def test_callback_that_always_raises_is_not_logged_and_loses_no_worker(
    registry_pair: RegistryPair, config: TransferConfig, caplog: pytest.LogCaptureFixture
) -> None:
    """Its exceptions at the last events of blobs belong to the call, too."""
    [item] = numbered_items(registry_pair, [make_image(1, (3000, 2000, 1000))])
    raised: list[BaseException] = []

    def broken(event: Event) -> None:
        if event.kind == "blob" and raised:
            raise raised[0]

    with engine_of(config, progress=broken) as engine:
        for kind in (ZeroDivisionError, KeyboardInterrupt):
            raised[:] = [kind("mine")]
            with pytest.raises(kind) as excinfo:
                engine.copy(item.source, item.destination)
            assert excinfo.value is raised[0]
        raised.clear()
        assert engine.copy(item.source, item.destination).state is State.DONE
    assert caplog.records == []
