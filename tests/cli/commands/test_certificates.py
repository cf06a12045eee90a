"""Client certificates on the command line, with the real nginx in front of the registry."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from concil.cli.open_engine import build_endpoints
from concil.server import EmbeddedRegistry
from tests.cli.options.test_options import parse
from tests.cli.runner import Cli, assert_fails
from tests.support.images import make_image, put_image, write_layout
from tests.support.nginx import NginxTLS
from tests.support.skopeo import Skopeo
from tests.support.tls import Certificate, CertificateAuthority, write_client_certs


@pytest.fixture
def client(ca: CertificateAuthority) -> Certificate:
    return ca.issue("alice.example")


@pytest.fixture
def front(
    tmp_path: Path, registry: EmbeddedRegistry, ca: CertificateAuthority
) -> Iterator[NginxTLS]:
    put_image(registry.url, "app", "v1", make_image(3))
    with NginxTLS(tmp_path / "nginx", registry.host, ca.issue(), client_ca=ca.path) as front:
        yield front


@pytest.fixture
def certs(tmp_path: Path, ca: CertificateAuthority, client: Certificate) -> Path:
    """A directory as skopeo's --cert-dir has it."""
    return write_client_certs(tmp_path / "certs", ca, client)


@pytest.mark.real
def test_certificates_are_named_by_file_or_directory(
    cli: Cli, front: NginxTLS, ca: CertificateAuthority, client: Certificate, certs: Path
) -> None:
    files = (f"--cacert={ca.path}", f"--cert={client.certificate}", f"--key={client.key}")

    for words in (files, (f"--cert-dir={certs}",)):
        assert cli("tags", *words, f"{front.host}/app").lines == ["v1"]


@pytest.mark.real
def test_concil_and_skopeo_find_the_certificates_of_a_host_in_the_same_place(
    cli: Cli, skopeo: Skopeo, front: NginxTLS, certs: Path, home: Path
) -> None:
    # skopeo looks below ~/.config whatever XDG_CONFIG_HOME says.
    for config in (home / "config", home / ".config"):
        shutil.copytree(certs, config / "containers/certs.d" / front.host)

    assert cli("tags", f"{front.host}/app").lines == ["v1"]
    assert b'"v1"' in skopeo.run("list-tags", f"docker://{front.host}/app")


@pytest.mark.real
def test_each_side_has_its_certificates(
    cli: Cli, front: NginxTLS, certs: Path, tmp_path: Path, jobs: str
) -> None:
    write_layout(tmp_path / "layout", {"v2": make_image(4)})

    result = cli(
        "copy", jobs, f"--dest-cert-dir={certs}", f"oci:{tmp_path}/layout:v2", f"{front.host}/b:v2"
    )

    assert result.code == 0, result.err


@pytest.mark.real
def test_without_a_client_certificate_it_is_one_line(
    cli: Cli, front: NginxTLS, ca: CertificateAuthority
) -> None:
    assert_fails(cli("tags", f"--cacert={ca.path}", f"{front.host}/app"), 1, "400")


def test_each_side_becomes_settings_of_its_own(
    certs: Path, client: Certificate, tmp_path: Path
) -> None:
    shutil.copytree(certs, tmp_path / "other")
    pair = (f"--cert={client.certificate}", f"--key={client.key}")

    sides = build_endpoints(
        parse("copy", *pair, f"--cert-dir={certs}", f"--src-cert-dir={tmp_path}/other", "a", "b")
    )

    assert sides.source.tls.cert_dir == str(tmp_path / "other")
    assert sides.destination.tls.cert_dir == str(certs)
    assert sides.source.tls.cert == (str(client.certificate), str(client.key))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--key=x",), "--key is given without --cert"),
        (("--cert=/nowhere/x",), "No such file"),
        (("--cert-dir=/nowhere/x",), "No such file"),
    ],
)
def test_a_certificate_that_cannot_be_used_is_one_line(
    cli: Cli, words: tuple[str, ...], message: str
) -> None:
    assert_fails(cli("tags", *words, "reg.example/app"), 2, message)
