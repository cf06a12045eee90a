"""The lab's real parts do what the tests rely on."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import requests

from tests.support import images, system
from tests.support.docker_registry import DockerRegistry
from tests.support.faults import Fault
from tests.support.images import DOCKER, OCI, make_image, make_index, put_image
from tests.support.process import ServerError, ServerProcess
from tests.support.relay import Relay
from tests.support.request_log import RequestLog
from tests.support.skopeo import Skopeo, SkopeoError
from tests.support.tls import CertificateAuthority

SIZE = 3_000_000  # bytes


@pytest.mark.real
def test_requests_to_the_real_registry_are_counted(docker_registry: DockerRegistry) -> None:
    image = make_image(10, [SIZE, 5])
    log = RequestLog()

    with Relay(docker_registry.host, observer=log) as relay:
        put_image(relay.url, "lab/counted", "latest", image)
        images.get_manifest(relay.url, "lab/counted", "latest")

    assert log.count("POST", "/lab/counted/blobs/uploads/") == 3
    assert log.count("PUT", "/blobs/uploads/") == 3
    assert log.body_bytes("PUT", "/blobs/uploads/") == sum(map(len, image.blobs.values()))
    assert [each.path for each in log.matching("PUT", "/manifests/")] == [
        "/v2/lab/counted/manifests/latest"
    ]
    assert log.body_bytes("PUT", "/manifests/") == len(image.manifest)
    assert log.count("GET") == 1
    assert log.count() == 8


@pytest.mark.real
def test_the_answer_to_a_chosen_request_is_lost(docker_registry: DockerRegistry) -> None:
    log = RequestLog()
    log.lose_response("PUT", "/blobs/uploads/")
    blob = images.make_blob(11, SIZE)

    with Relay(docker_registry.host, observer=log) as relay:
        with pytest.raises(requests.ConnectionError):
            images.put_blob(relay.url, "lab/lost", blob)

        assert images.get_blob(relay.url, "lab/lost", images.digest_of(blob)) == blob


@pytest.mark.real
def test_cut_upload_shows_how_much_of_it_passed(docker_registry: DockerRegistry) -> None:
    log = RequestLog()
    fault = Fault(action="rst", after=1_000_000, direction="up")

    with Relay(docker_registry.host, observer=log, faults=[fault]) as relay:
        with pytest.raises(requests.ConnectionError):
            images.put_blob(relay.url, "lab/cut", images.make_blob(12, SIZE))
        relay.wait_for(lambda relay: relay.open_connections == 0)

        [sent] = log.matching("PUT")
        assert not sent.is_complete
        assert 990_000 < sent.body_size < 1_000_000


@pytest.mark.real
@pytest.mark.parametrize("types", [OCI, DOCKER])
def test_images_come_back_from_the_real_registry_byte_for_byte(
    docker_registry: DockerRegistry, types: images.MediaTypes
) -> None:
    shared = images.make_layer(20, 10_000)
    platforms = ("linux/amd64", "linux/arm64", "linux/arm/v7")
    children = [
        make_image(21 + number, [shared, 100], platform=platform, types=types)
        for number, platform in enumerate(platforms)
    ]
    index = make_index([make_index(children[:1], types=types), *children[1:]], types=types)
    repository = f"lab/{'oci' if types is OCI else 'docker'}"

    digest = put_image(docker_registry.url, repository, "all", index)

    assert digest == index.digest
    assert len(index.all_blobs()) == 1 + 3 + 3
    images.assert_same_image(docker_registry.url, repository, "all", index)


@pytest.mark.real
def test_skopeo_reads_generated_images_and_layouts(
    docker_registry: DockerRegistry, skopeo: Skopeo, tmp_path: Path
) -> None:
    index = make_index([make_image(30), make_image(31, platform="linux/arm64")])
    images.write_layout(tmp_path / "layout", {"v1": index})
    address = f"docker://{docker_registry.host}/lab/skopeo"

    skopeo.copy(f"oci:{tmp_path / 'layout'}:v1", f"{address}:v1")

    assert skopeo.inspect_raw(f"{address}:v1") == index.manifest
    assert skopeo.list_tags(address) == ["v1"]
    images.assert_same_image(docker_registry.url, "lab/skopeo", "v1", index)
    with pytest.raises(SkopeoError, match="no-such-tag"):
        skopeo.inspect_raw(f"{address}:no-such-tag")


@pytest.mark.real
def test_registry_keeps_port_and_content_over_a_kill(
    fresh_docker_registry: DockerRegistry,
) -> None:
    registry = fresh_docker_registry
    image = make_image(40)
    put_image(registry.url, "kept", "latest", image)
    host = registry.host

    registry.kill()
    with pytest.raises(requests.ConnectionError):
        images.get_manifest(registry.url, "kept", "latest")
    registry.restart()

    assert registry.host == host
    images.assert_same_image(registry.url, "kept", "latest", image)


@pytest.mark.real
def test_registry_asks_for_a_password_behind_its_own_certificate(
    tmp_path: Path, ca: CertificateAuthority
) -> None:
    with (
        DockerRegistry(tmp_path, users={"me": "secret"}, certificate=ca.issue()) as registry,
        requests.Session() as session,
    ):
        with pytest.raises(requests.exceptions.SSLError):
            session.get(f"{registry.url}/v2/", timeout=10)
        session.verify = str(ca.path)
        refused = session.get(f"{registry.url}/v2/", timeout=10)
        session.auth = ("me", "secret")
        put_image(registry.url, "secret", "latest", make_image(50), session=session)

        assert refused.status_code == 401
        assert refused.headers["WWW-Authenticate"].startswith("Basic ")


@pytest.mark.real
@pytest.mark.parametrize(("delete", "status"), [(True, 202), (False, 405)])
def test_registry_deletes_only_where_it_may(tmp_path: Path, delete: bool, status: int) -> None:
    with DockerRegistry(tmp_path, delete=delete) as registry:
        digest = images.put_blob(registry.url, "deleted", b"blob")
        answer = requests.delete(f"{registry.url}/v2/deleted/blobs/{digest}", timeout=10)

        assert answer.status_code == status


@pytest.mark.real
def test_registry_in_memory_leaves_nothing_behind(tmp_path: Path) -> None:
    with DockerRegistry(tmp_path, in_memory=True) as registry:
        images.put_blob(registry.url, "memory", b"blob")
        assert registry.storage.exists()

    assert not registry.storage.exists()


def test_server_that_does_not_start_shows_its_log(tmp_path: Path) -> None:
    process = ServerProcess(
        [sys.executable, "-c", "print('no port left')"], "ready", tmp_path / "log", {}
    )

    with pytest.raises(ServerError, match="no port left"):
        process.start()


def test_server_dies_with_the_process_that_started_it(tmp_path: Path) -> None:
    fifo = tmp_path / "alive"
    os.mkfifo(fifo)
    # The server holds the pipe open for writing as long as it lives.
    server = (
        f"import time; pipe = open({str(fifo)!r}, 'w');print('ready', flush=True); time.sleep(600)"
    )
    starter = (
        "import os, pathlib, sys\n"
        "from tests.support.process import ServerProcess\n"
        f"ServerProcess([sys.executable, '-c', {server!r}], 'ready',"
        f" pathlib.Path({str(tmp_path / 'log')!r}), {{}}).start()\n"
        "os.kill(os.getpid(), 9)\n"
    )
    root = Path(__file__).parent.parent.parent
    dying = subprocess.Popen([sys.executable, "-c", starter], cwd=root)

    with fifo.open() as pipe:
        dying.wait(30)

        assert pipe.read() == ""  # returns when the last writer has gone


def test_same_seed_makes_the_same_content(tmp_path: Path) -> None:
    size = images.BLOCK_SIZE + 5
    blob = images.make_blob(7, size)

    digest = images.write_blob(tmp_path / "blob", 7, size)

    assert len(blob) == size
    assert (tmp_path / "blob").read_bytes() == blob
    assert digest == f"sha256:{hashlib.sha256(blob).hexdigest()}"
    assert make_image(7).digest == make_image(7).digest
    assert make_image(7).digest != make_image(8).digest
    assert images.make_blob(7, 0) == b""


def test_home_and_proxies_are_the_tests_own(home: Path) -> None:
    assert Path.home() == home
    assert os.environ["DOCKER_CONFIG"].startswith(str(home))
    assert "HTTPS_PROXY" not in os.environ


def test_every_program_that_a_test_needs_can_be_installed() -> None:
    needed = {
        program
        for path in Path(__file__).parents[1].rglob("*.py")
        for program in re.findall(r'require_program\("([^"]+)"\)', path.read_text())
    }

    assert needed == set(system.PROGRAMS)


def test_missing_programs_are_named_with_what_to_type(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(system, "SYSTEM_PATH", "")

    with pytest.raises(system.MissingProgramError, match="skopeo"):
        system.require_program("skopeo")
    assert system.missing_programs() == list(system.PROGRAMS)
    assert "nginx-light" in system.install_command(["nginx"])
