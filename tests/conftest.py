"""The real parts that tests share, and the walls between a test and its user."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import hypothesis
import pytest

from concil.runtime import forking
from concil.runtime.redaction import SECRETS
from concil.transfer.journal import Journal
from tests.support.docker_registry import DockerRegistry, SharedDockerRegistries
from tests.support.scale import FULL
from tests.support.skopeo import Skopeo
from tests.support.tls import CertificateAuthority

# Time is measured in benchmarks/; here a busy machine would make a failure of it.
hypothesis.settings.register_profile("short", deadline=None, max_examples=30)
hypothesis.settings.register_profile("full", deadline=None)
hypothesis.settings.load_profile("full" if FULL else "short")

WORKERS_VARIABLE = "CONCIL_TEST_WORKERS"
WORKER_COUNTS = tuple(map(int, os.environ.get(WORKERS_VARIABLE, "4").split(",")))
# What would bring the user's proxies, credentials or certificates into a test.
USER_ENVIRONMENT = (
    *(f"{scheme}_proxy" for scheme in ("http", "https", "ftp", "all", "no")),
    *(f"{scheme}_PROXY" for scheme in ("HTTP", "HTTPS", "FTP", "ALL", "NO")),
    *(f"CONCIL_{name}" for name in ("CONFIG", "HTTP_TOKEN", "JOBS", "PROGRESS", "RETRY")),
    *(f"CONCIL_LIMIT_{name}" for name in ("RATE", "REQUESTS")),
    *(f"OTEL_{name}" for name in ("EXPORTER_OTLP_ENDPOINT", "TRACES_EXPORTER")),
    "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
    "CURL_CA_BUNDLE",
    "DOCKER_AUTH_CONFIG",
    "DOCKER_HOST",
    "NETRC",
    "REGISTRY_AUTH_FILE",
    "REQUESTS_CA_BUNDLE",
    "SSL_CERT_DIR",
    "SSL_CERT_FILE",
)


def pytest_configure() -> None:
    """Let signals arrive in the programs under test, wherever the suite was started from.

    A shell starts what it puts in the background with SIGINT ignored, nohup does so with
    SIGHUP; children inherit that, and a program rightly leaves an ignored signal alone.
    """
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_IGN:
            is_interrupt = number == signal.SIGINT
            signal.signal(number, signal.default_int_handler if is_interrupt else signal.SIG_DFL)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark the tests of engines and those that start processes; leave out repeated combinations.

    Only a test that a slow server, kernel or disk can fail runs a second time with `--reruns`.
    """
    repeated = [item for item in items if _is_repeated(item)]
    if repeated:
        config.hook.pytest_deselected(items=repeated)
        left_out = set(repeated)
        items[:] = [item for item in items if item not in left_out]
    for item in items:
        names = getattr(item, "fixturenames", ())
        if "workers" in names:
            item.add_marker(pytest.mark.workers)
        if "program" in names:
            item.add_marker(pytest.mark.process)
        if not {"real", "slow", "process"} & {mark.name for mark in item.iter_markers()}:
            item.add_marker(pytest.mark.flaky(reruns=0))


def _is_repeated(item: pytest.Item) -> bool:
    """Return whether a serial test would only show what its threaded twin shows.

    In a run with both numbers of workers, a test with the parameter "docker" meets the real
    registry with threads, and runs without threads against the other kinds of stores.
    """
    # A test without parameters has no such attribute.
    parameters = getattr(getattr(item, "callspec", None), "params", {})
    if FULL or len(WORKER_COUNTS) == 1 or parameters.get("workers") != 0:
        return False
    return "docker" in parameters.values() or item.get_closest_marker("threads_only") is not None


def pytest_report_header() -> str:
    return f"{WORKERS_VARIABLE}: {','.join(map(str, WORKER_COUNTS))}"


@pytest.fixture(autouse=True)
def only_its_own_secrets() -> Iterator[None]:
    """Let a test know no secret of another: a password of one may be a word for the next."""
    before = {name: list(kind.values) for name, kind in SECRETS._kinds.items()}
    yield
    with SECRETS.lock:
        for known in (SECRETS._kinds, SECRETS._new, SECRETS._index):
            known.clear()
        for name, values in before.items():
            for value in values:
                SECRETS._add(value, name)


@pytest.fixture(autouse=True)
def no_open_journals() -> Iterator[None]:
    """Close the journals that a test has left open, as a killed process would leave them.

    From Python 3.13 on a database that the garbage collector finds open is a warning, which would
    be a failure of whatever test runs then.
    """
    before = set(forking._hooked_instances)
    yield
    for instance in set(forking._hooked_instances) - before:
        if isinstance(instance, Journal):
            instance.close()


@pytest.fixture(autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give each test a home directory of its own and no proxies."""
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("HOME", str(home))
    for name in ("CACHE", "CONFIG", "DATA", "STATE"):
        monkeypatch.setenv(f"XDG_{name}_HOME", str(home / name.lower()))
    runtime = home / "run"
    runtime.mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime))
    monkeypatch.setenv("DOCKER_CONFIG", str(home / ".docker"))
    for name in USER_ENVIRONMENT:
        monkeypatch.delenv(name, raising=False)
    return home


@pytest.fixture(params=WORKER_COUNTS, ids=lambda count: f"{count} workers" if count else "serial")
def workers(request: pytest.FixtureRequest) -> int:
    """Return how many workers an engine under test has; 0 runs jobs inside `submit`."""
    count: int = request.param
    return count


@pytest.fixture(scope="session")
def ca(tmp_path_factory: pytest.TempPathFactory) -> CertificateAuthority:
    """Return an authority that nothing trusts unless it is given `ca.path`."""
    return CertificateAuthority(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="session")
def docker_registries(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[SharedDockerRegistries]:
    """Return the docker-registries that tests share, for fixtures of a wider scope."""
    with ExitStack() as running:
        yield SharedDockerRegistries(
            lambda: running.enter_context(DockerRegistry(tmp_path_factory.mktemp("registry")))
        )


@pytest.fixture
def docker_registry(
    request: pytest.FixtureRequest, docker_registries: SharedDockerRegistries
) -> DockerRegistry:
    """Return a docker-registry for many tests: use a repository name of your own in it.

    A test that runs with several numbers of workers has another registry for each: its names and
    blobs are new there each time.
    """
    has_workers = "workers" in request.fixturenames
    return docker_registries.get(request.getfixturevalue("workers") if has_workers else None)


@pytest.fixture
def fresh_docker_registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DockerRegistry]:
    """Run an empty docker-registry that a test may kill and restart."""
    with DockerRegistry(tmp_path_factory.mktemp("registry")) as registry:
        yield registry


@pytest.fixture
def skopeo(home: Path) -> Skopeo:
    """Return a runner for the real skopeo."""
    return Skopeo(home)
