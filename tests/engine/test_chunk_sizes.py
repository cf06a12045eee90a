"""How large chunks are: what the host last carried in two seconds, the same within a session."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from concil.config import MIB, TransferConfig
from concil.dockerhub import DockerHub
from concil.oci.digest import Digest
from concil.registry.quirks import MAX_ADAPTIVE_CHUNK, MIN_ADAPTIVE_CHUNK, HostProfiles, Strategy
from concil.server import EmbeddedRegistry
from concil.transfer.journal import Journal
from tests.engine.engine_setup import QUICK, Content, engine_of, file_of
from tests.support.relay import Relay
from tests.support.request_log import RequestLog

OWN = replace(QUICK, chunk_size=None, block_size=256 * 1024)  # the host's own pace
LARGE = 50 * MIB + 3


@pytest.fixture
def large(tmp_path: Path) -> Content:
    return file_of(tmp_path, LARGE)


@pytest.fixture
def seen() -> RequestLog:
    return RequestLog()


@pytest.fixture
def relay(embedded: EmbeddedRegistry, seen: RequestLog) -> Iterator[Relay]:
    with Relay(embedded.host, observer=seen) as relay:
        yield relay


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    journal = Journal(tmp_path / "journal.sqlite")
    yield journal
    journal.close()


def chunks(seen: RequestLog) -> list[int]:
    """Return the sizes of the PATCHes in their order."""
    return [request.body_size for request in seen.requests if request.method == "PATCH"]


@pytest.fixture
def push(relay: Relay, large: Content, workers: int) -> Callable[[Journal, TransferConfig], None]:
    def push(journal: Journal, config: TransferConfig = OWN) -> None:
        with engine_of(replace(config, workers=workers), journal=journal) as engine:
            engine.push_blob(large.path, f"{relay.url}/team/app")

    return push


def test_an_unknown_host_gets_the_smallest(
    push: Callable[[Journal], None], journal: Journal, seen: RequestLog
) -> None:
    push(journal)

    assert chunks(seen) == [MIN_ADAPTIVE_CHUNK] * 5 + [3]


def test_a_host_gets_what_it_carried_last(
    push: Callable[[Journal], None], journal: Journal, relay: Relay, seen: RequestLog
) -> None:
    taught = HostProfiles(journal.load_host_profile, journal.save_host_profile)
    taught.record_throughput(relay.host, 5 * MIB, 0.45)  # 22.2 MiB in two seconds
    taught.save_throughput(relay.host)

    push(journal)

    assert chunks(seen) == [22 * MIB, 22 * MIB, 6 * MIB + 3]


def test_what_it_carried_is_remembered(
    push: Callable[[Journal], None], journal: Journal, relay: Relay
) -> None:
    push(journal)

    known = HostProfiles(journal.load_host_profile, journal.save_host_profile)
    assert journal.load_host_profile(relay.host)["throughput"] > 0
    assert MIN_ADAPTIVE_CHUNK <= known.chunk_size(relay.host, None, 10**12) <= MAX_ADAPTIVE_CHUNK


def test_the_documented_client_remembers_too(
    relay: Relay, large: Content, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    hub = DockerHub(f"{relay.url}/team/app")
    named = large.path.rename(tmp_path / large.digest.partition(":")[2])

    hub.post_blob(str(named))

    hub.close()
    journal = Journal(Journal.default_path())
    assert journal.load_host_profile(relay.host)["throughput"] > 0
    journal.close()


def test_the_documented_client_uses_what_was_learned(
    relay: Relay, large: Content, seen: RequestLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    journal = Journal(Journal.default_path())
    HostProfiles(journal.load_host_profile, journal.save_host_profile).set_strategy(
        relay.host, Strategy.MONOLITHIC
    )
    journal.close()
    hub = DockerHub(f"{relay.url}/team/app")
    hub.post_blob_data(b"small", str(Digest.from_bytes(b"small")))

    hub.post_blob_data(large.path.read_bytes(), large.digest)

    hub.close()
    assert chunks(seen) == []


def test_a_wished_size_is_kept(
    push: Callable[..., None], journal: Journal, relay: Relay, seen: RequestLog
) -> None:
    taught = HostProfiles(journal.load_host_profile, journal.save_host_profile)
    taught.record_throughput(relay.host, 100 * MIB, 0.1)
    taught.save_throughput(relay.host)

    push(journal, replace(OWN, chunk_size=25 * MIB))

    assert chunks(seen) == [25 * MIB, 25 * MIB, 3]
