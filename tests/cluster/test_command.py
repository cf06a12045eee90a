"""`concil mirror --dask`, as a person runs it."""

from __future__ import annotations

import json
import signal
import subprocess
from pathlib import Path

import pytest
import requests

from tests.cli.runner import Program, assert_fails
from tests.cluster.conftest import IMAGES, LARGE, DestinationRegistry, SourceRegistry
from tests.support.dask import DaskProcesses
from tests.support.docker_registry import DockerRegistry
from tests.support.images import assert_same_image, make_image, put_image
from tests.support.tls import CertificateAuthority

pytestmark = [pytest.mark.real, pytest.mark.timeout(240)]


@pytest.fixture
def program(tmp_path: Path) -> Program:
    return Program(tmp_path)


def written(origin: SourceRegistry, tmp_path: Path) -> Path:
    """A list of all images, and one that is not there."""
    plan = tmp_path / "images.txt"
    names = [*origin.images, "none:v1"]
    plan.write_text("".join(f"{origin.registry.url}/{name}\n" for name in names))
    return plan


def wait_for_line(process: subprocess.Popen[bytes], text: str) -> None:
    """Read standard output until a line has the text."""
    assert process.stdout is not None
    for line in process.stdout:
        if text in line.decode():
            return
    raise AssertionError(f"no line has {text!r}")


def test_summary_report_and_exit_code_are_those_of_one_machine(
    program: Program,
    dask: DaskProcesses,
    source: SourceRegistry,
    destination: DestinationRegistry,
    tmp_path: Path,
) -> None:
    plan, report = written(source, tmp_path), tmp_path / "report.json"
    words = ("mirror", plan, f"{destination.relay.url}/m", "--dask", dask.address, "--retry", "1")

    result = program(*words, "--report", report)

    assert result.code == 3, result.err
    assert f"{IMAGES + 1} images: {IMAGES} copied, 0 up to date, 1 failed" in result.out
    failures = [line for line in result.err.splitlines() if line.startswith("concil: failed: ")]
    assert len(failures) == 1
    assert "/none:v1" in failures[0]
    images = json.loads(report.read_text())["images"]
    assert sorted(image["outcome"] for image in images) == [*["copied"] * IMAGES, "failed"]


def test_workers_trust_whom_the_plan_trusts(
    program: Program,
    dask: DaskProcesses,
    destination: DestinationRegistry,
    ca: CertificateAuthority,
    tmp_path: Path,
) -> None:
    image, plan = make_image(1, (1000,)), tmp_path / "sync.yml"
    with DockerRegistry(tmp_path / "closed", certificate=ca.issue("127.0.0.1")) as closed:
        with requests.Session() as session:
            session.trust_env, session.verify = False, str(ca.path)
            put_image(closed.url, "app", "v1", image, session=session)
        plan.write_text(f'"{closed.host}":\n  tls-verify: false\n  images: {{app: [v1]}}\n')

        result = program("mirror", plan, f"{destination.relay.url}/m", "--dask", dask.address)

    assert (result.code, result.messages) == (0, "")
    assert_same_image(destination.registry.url, "m/app", "v1", image)


def test_ctrl_c_ends_the_workers_part_too(
    program: Program,
    dask: DaskProcesses,
    source: SourceRegistry,
    destination: DestinationRegistry,
    tmp_path: Path,
) -> None:
    destination.relay.rate = 2 << 20  # bytes a second: the large layer takes six
    words = (
        "mirror",
        written(source, tmp_path),
        f"{destination.relay.url}/m",
        "--dask",
        dask.address,
    )
    child = program.start(*words)
    destination.relay.wait_for(lambda relay: relay.bytes_up > 1 << 20, 60)

    child.send_signal(signal.SIGINT)
    _, err = child.communicate(timeout=60)

    assert child.returncode == 130
    assert err.decode().splitlines()[-1].startswith("concil: interrupted")
    destination.relay.wait_for(lambda relay: relay.open_connections == 0, 60)
    assert destination.relay.bytes_up < len(LARGE.blob)


def test_a_service_goes_on_when_its_scheduler_is_there_again(
    program: Program, source: SourceRegistry, destination: DestinationRegistry, tmp_path: Path
) -> None:
    plan = tmp_path / "images.txt"
    plan.write_text("".join(f"{source.registry.url}/{name}\n" for name in source.images))
    destination.relay.latency = 0.05  # seconds: so that images take a while
    with DaskProcesses(tmp_path / "dask", workers=1) as dask:
        words = ("--dask", dask.address, "--every", "1s", "--jitter", "0s")
        service = program.start("mirror", plan, f"{destination.relay.url}/m", *words)
        try:
            destination.relay.wait_for(lambda _: destination.log.count("PUT", "/manifests/") > 3)
            dask.kill_scheduler()
            dask.restart_scheduler(workers=1)
            wait_for_line(service, f"{IMAGES} images: 0 copied, {IMAGES} up to date")
        finally:
            service.send_signal(signal.SIGTERM)
            _, err = service.communicate(timeout=60)

    assert service.returncode == 0, err
    assert b"scheduler" in err
    # Only the images that were under way on the two threads of the worker are copied again.
    assert destination.log.count("PUT", "/manifests/") <= IMAGES + 2
    for name, image in source.images.items():
        repository, _, tag = name.partition(":")
        assert_same_image(destination.registry.url, f"m/{repository}", tag, image)


@pytest.mark.parametrize(
    ("address", "code"), [("tcp://127.0.0.1:1", 1), ("nonsense", 2), ("nonsense://x:1", 2)]
)
def test_no_scheduler_is_one_line(
    program: Program, source: SourceRegistry, tmp_path: Path, address: str, code: int
) -> None:
    plan = written(source, tmp_path)

    result = program("mirror", plan, "http://127.0.0.1:1/m", "--dask", address)

    assert_fails(result, code, "scheduler", address)
