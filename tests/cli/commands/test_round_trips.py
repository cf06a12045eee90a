"""An image there and back on every way into the real registry, by the command line alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.login_harness import AuthRegistry, CommandLineHarness
from tests.support.docker_registry import DockerRegistry
from tests.support.images import Image, digest_of, make_image, make_index, write_layout
from tests.support.nginx import NginxTLS
from tests.support.proxy import Proxy
from tests.support.tls import CertificateAuthority
from tests.tokens.conftest import PASSWORD, USER

pytestmark = [pytest.mark.real, pytest.mark.threads_only]
USERS = {USER: PASSWORD}
PROXY_PASSWORD = "bob:pr0xy-s3cret"


@pytest.fixture
def image() -> Image:
    """Return an index for two platforms; a layer of one is worth several chunks and ranges."""
    large = make_image(1, (12_000_000, 300), platform="linux/amd64")
    return make_index([large, make_image(2, platform="linux/arm64")])


class RoundTrip:
    """Copies an image into a registry, to another repository there, and out again."""

    def __init__(self, desk: CommandLineHarness, directory: Path, jobs: str, image: Image) -> None:
        self.desk = desk
        self._directory = directory
        self._jobs = jobs
        self._image = image

    def there_and_back(self, place: str, *words: str) -> None:
        """Do so and compare every byte.

        Args:
            place: the registry, or a part of it that no other test writes to.
            words: options of each copy.
        """
        write_layout(self._directory / "made", {"v1": self._image})
        self._copy(f"oci:{self._directory}/made:v1", f"{place}/ways/in:v1", *words)
        self._copy(f"{place}/ways/in:v1", f"{place}/ways/on:v1", *words)
        self._copy(f"{place}/ways/on:v1", f"oci:{self._directory}/back:v1", *words)
        blobs = self._directory / "back" / "blobs" / "sha256"
        manifests = {digest_of(each.manifest): each.manifest for each in self._image.walk()}
        for digest, content in {**self._image.all_blobs(), **manifests}.items():
            assert (blobs / digest.removeprefix("sha256:")).read_bytes() == content

    def _copy(self, source: str, destination: str, *words: str) -> None:
        result = self.desk("copy", self._jobs, *words, source, destination)
        assert result.code == 0, result.err
        assert result.out.endswith(f"@{self._image.digest}\n")
        assert PASSWORD not in result.err


@pytest.fixture
def round_trip(harness: CommandLineHarness, tmp_path: Path, jobs: str, image: Image) -> RoundTrip:
    return RoundTrip(harness, tmp_path, jobs, image)


@pytest.mark.parametrize("stored", [True, False], ids=["stored", "given"])
def test_passwords_and_tokens(
    round_trip: RoundTrip, auth_registry: AuthRegistry, workers: int, stored: bool
) -> None:
    if stored:
        assert round_trip.desk.log_in(auth_registry.host).code == 0
        round_trip.there_and_back(f"{auth_registry.host}/stored{workers}")
    else:
        both = (f"--{side}-creds={USER}:{PASSWORD}" for side in ("src", "dest"))
        round_trip.there_and_back(f"{auth_registry.host}/given{workers}", *both)


def test_tls_by_a_private_authority(
    round_trip: RoundTrip, ca: CertificateAuthority, tmp_path: Path
) -> None:
    with DockerRegistry(tmp_path / "tls", users=USERS, certificate=ca.issue()) as registry:
        trust = f"--cacert={ca.path}"
        assert round_trip.desk.log_in(trust, registry.host).code == 0

        round_trip.there_and_back(registry.host, trust)

        assert round_trip.desk("tags", f"{registry.host}/ways/in").code == 1
        assert round_trip.desk("tags", trust, f"{registry.host}/ways/in").lines == ["v1"]


def test_a_client_certificate(
    round_trip: RoundTrip, ca: CertificateAuthority, tmp_path: Path
) -> None:
    trust, mine = f"--cacert={ca.path}", ca.issue("alice.example")
    shown = (trust, f"--cert={mine.certificate}", f"--key={mine.key}")
    with (
        DockerRegistry(tmp_path / "registry", users=USERS) as registry,
        NginxTLS(tmp_path / "nginx", registry.host, ca.issue(), client_ca=ca.path) as front,
    ):
        assert round_trip.desk.log_in(trust, front.host).code == 1
        assert round_trip.desk.log_in(*shown, front.host).code == 0

        round_trip.there_and_back(front.host, *shown)

        assert any("PATCH" in line or "PUT" in line for line in front.access_log)
        assert round_trip.desk("tags", trust, f"{front.host}/ways/in").code == 1


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_proxy(
    round_trip: RoundTrip, ca: CertificateAuthority, tmp_path: Path, scheme: str
) -> None:
    """Nobody but the proxy knows where that host is."""
    certificate = ca.issue("reg.example") if scheme == "https" else None
    with (
        Proxy(password=PROXY_PASSWORD) as proxy,
        DockerRegistry(tmp_path / "tls", users=USERS, certificate=certificate) as registry,
    ):
        place = f"{scheme}://reg.example:{registry.port}"
        trust = (f"--cacert={ca.path}",) if certificate else ()
        round_trip.desk.monkeypatch.setenv(f"{scheme}_proxy", proxy.url)
        assert round_trip.desk.log_in(*trust, place).code == 0

        round_trip.there_and_back(place, *trust)

        methods = {passed.method for passed in proxy.requests}
        assert methods == {"CONNECT"} if certificate else methods >= {"GET", "PATCH", "PUT"}
