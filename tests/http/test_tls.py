"""TLS: private authorities, client certificates, the least version; with the real nginx."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from concil.errors import TLSFailure
from concil.http.requests_session import TLSSettings, create_session
from concil.http.transport import DEFAULT_OPTIONS, SendOptions, Transport
from tests.support.docker_registry import DockerRegistry, SharedDockerRegistries
from tests.support.nginx import NginxTLS
from tests.support.scripted_server import ScriptedServer, reply
from tests.support.tls import Certificate, CertificateAuthority, write_client_certs


@pytest.fixture(scope="module")
def clients(tmp_path_factory: pytest.TempPathFactory) -> CertificateAuthority:
    """The authority of the users: another one than that of the servers."""
    return CertificateAuthority(tmp_path_factory.mktemp("clients"))


@pytest.fixture(scope="module")
def client(clients: CertificateAuthority) -> Certificate:
    return clients.issue("alice.example")


@pytest.fixture(scope="module")
def front(
    tmp_path_factory: pytest.TempPathFactory,
    docker_registries: SharedDockerRegistries,
    ca: CertificateAuthority,
    clients: CertificateAuthority,
) -> Iterator[NginxTLS]:
    """The real registry behind the real nginx, for those with a certificate."""
    place = tmp_path_factory.mktemp("nginx")
    host = docker_registries.get().host
    with NginxTLS(place, host, ca.issue(), client_ca=clients.path) as front:
        yield front


def status(url: str, tls: TLSSettings | None = None, options: SendOptions = DEFAULT_OPTIONS) -> int:
    """What GET answers in a session of its own."""
    with create_session(tls) as session:
        response = Transport(session).send(requests.Request("GET", url), options)
        response.close()
        return response.status_code


def pair_of(certificate: Certificate) -> tuple[str, str]:
    return str(certificate.certificate), str(certificate.key)


@pytest.mark.real
def test_nginx_takes_a_client_certificate(
    front: NginxTLS, ca: CertificateAuthority, client: Certificate
) -> None:
    assert status(f"https://{front.host}/v2/", TLSSettings(str(ca.path), pair_of(client))) == 200


@pytest.mark.real
def test_without_a_client_certificate_nginx_answers_400(
    front: NginxTLS, ca: CertificateAuthority
) -> None:
    assert status(f"https://{front.host}/v2/", TLSSettings(str(ca.path))) == 400


@pytest.mark.real
def test_a_certificate_directory_that_was_named(
    front: NginxTLS, ca: CertificateAuthority, client: Certificate, tmp_path: Path
) -> None:
    place = write_client_certs(tmp_path / "certs", ca, client)

    assert status(f"https://{front.host}/v2/", TLSSettings(cert_dir=str(place))) == 200


@pytest.mark.real
@pytest.mark.filterwarnings("ignore::urllib3.exceptions.InsecureRequestWarning")
@pytest.mark.parametrize("verify", [True, False])
def test_the_certificates_of_a_host_are_found_where_podman_has_them(
    front: NginxTLS, ca: CertificateAuthority, client: Certificate, home: Path, verify: bool
) -> None:
    write_client_certs(home / "config/containers/certs.d" / front.host, ca, client)

    assert status(f"https://{front.host}/v2/", TLSSettings(verify)) == 200
    with pytest.raises(TLSFailure, match="not trusted"):
        status(f"https://localhost:{front.port}/v2/")  # another name is another host


@pytest.mark.real
def test_a_ca_that_was_named_counts_alone(
    front: NginxTLS, ca: CertificateAuthority, client: Certificate, home: Path, tmp_path: Path
) -> None:
    write_client_certs(home / "config/containers/certs.d" / front.host, ca, client)
    other = CertificateAuthority(tmp_path / "other")

    with pytest.raises(TLSFailure, match="not trusted"):
        status(f"https://{front.host}/v2/", TLSSettings(str(other.path)))


@pytest.mark.real
def test_an_old_version_of_tls_is_refused(
    tmp_path: Path, docker_registry: DockerRegistry, ca: CertificateAuthority
) -> None:
    issued = ca.issue()
    for protocols in ("TLSv1 TLSv1.1", "TLSv1.2"):
        place = tmp_path / protocols[-1]
        with NginxTLS(place, docker_registry.host, issued, protocols=protocols) as front:
            url = f"https://{front.host}/v2/"
            if protocols == "TLSv1.2":
                assert status(url, TLSSettings(str(ca.path))) == 200
            else:
                for verify in (str(ca.path), False):
                    with pytest.raises(TLSFailure):
                        status(url, TLSSettings(verify))


class Seeing:
    """An https server that asks for a client certificate, and notes who showed one."""

    def __init__(self, issued: Certificate, clients: CertificateAuthority) -> None:
        self.context = issued.server_context()
        self.context.verify_mode = ssl.CERT_OPTIONAL
        self.context.load_verify_locations(clients.path)
        self.shown: list[bool] = []
        self.context.sslsocket_class = self._noting()

    def _noting(self) -> type[ssl.SSLSocket]:
        shown = self.shown

        class Noting(ssl.SSLSocket):
            def do_handshake(self, block: bool = False) -> None:
                super().do_handshake(block)
                shown.append(bool(self.getpeercert()))

        return Noting


def test_a_client_certificate_is_shown_at_home_only(
    ca: CertificateAuthority, clients: CertificateAuthority, client: Certificate
) -> None:
    issued = ca.issue()
    home, elsewhere = Seeing(issued, clients), Seeing(issued, clients)
    with (
        ScriptedServer(context=home.context) as registry,
        ScriptedServer(context=elsewhere.context) as storage,
        create_session(TLSSettings(str(ca.path), pair_of(client))) as session,
    ):
        transport = Transport(session)
        registry.respond("GET", "/blob", reply(307, Location=f"{storage.url}/key"))
        registry.respond("GET", "/again", reply(200, b"content"))
        storage.respond("GET", "/key", reply(307, Location=f"{registry.url}/again"))
        for url, options in (
            (f"{registry.url}/blob", SendOptions()),
            (f"{storage.url}/upload", SendOptions(credentials_url=registry.url)),
        ):
            transport.send(requests.Request("GET", url), options).close()

    assert home.shown[0] is True
    assert elsewhere.shown
    assert not any(elsewhere.shown)


def test_what_a_session_holds_stays_at_home(
    server: ScriptedServer, storage: ScriptedServer
) -> None:
    """A Location of an upload may lead elsewhere: the session's own headers must not."""
    with create_session() as session:
        session.headers["Authorization"] = "Bearer secret"
        session.auth = ("user", "secret")
        Transport(session).send(
            requests.Request("PUT", f"{storage.url}/upload", data=b"x"),
            SendOptions(credentials_url=server.url),
        ).close()

    [seen] = storage.requests
    assert "authorization" not in seen.headers
