"""Certificates by host: what the directories of podman and docker mean."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from concil.errors import UsageError
from concil.http.certs_d import (
    CertificateDirectories,
    HostCertificates,
    check_client_certificate,
    default_directories,
    read_directory,
)
from tests.support.tls import Certificate, CertificateAuthority


@pytest.fixture
def client(ca: CertificateAuthority) -> Certificate:
    return ca.issue("client.example")


def put(directory: Path, *, ca: Path | None = None, pair: Certificate | None = None) -> Path:
    directory.mkdir(parents=True)
    if ca is not None:
        shutil.copy(ca, directory / "ca.crt")
    if pair is not None:
        shutil.copy(pair.certificate, directory / "client.cert")
        shutil.copy(pair.key, directory / "client.key")
    return directory


def test_a_directory_has_authorities_and_a_pair(
    tmp_path: Path, ca: CertificateAuthority, client: Certificate
) -> None:
    place = put(tmp_path / "d", ca=ca.path, pair=client)
    (place / "README").write_text("of no interest")

    found = read_directory(place)

    assert found.ca_cert_data.strip() == ca.path.read_text().strip()
    assert found.client_certificate == (str(place / "client.cert"), str(place / "client.key"))


def test_the_first_directory_that_knows_the_host_is_used(
    tmp_path: Path, ca: CertificateAuthority, client: Certificate
) -> None:
    put(tmp_path / "own" / "reg.example:5000", ca=ca.path)
    put(tmp_path / "etc" / "reg.example:5000", pair=client)
    put(tmp_path / "etc" / "reg.example", pair=client)
    directories = CertificateDirectories([tmp_path / "own", tmp_path / "etc"])

    assert directories.certificates_for("reg.example:5000").client_certificate is None
    assert directories.certificates_for("Reg.Example").client_certificate is not None
    assert directories.certificates_for("other.example") == HostCertificates()


@pytest.mark.parametrize("host", ["..", ".", "", "../x", "a/b", "/etc", "%2e%2e", "a\x00b"])
def test_a_host_that_is_no_name_leads_to_no_directory(
    tmp_path: Path, client: Certificate, host: str
) -> None:
    put(tmp_path / "x", pair=client)
    (tmp_path / "roots").mkdir()

    assert CertificateDirectories([tmp_path / "roots"]).certificates_for(host) == HostCertificates()


def test_the_users_own_directory_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", "/home/me/.conf")

    assert default_directories() == (
        Path("/home/me/.conf/containers/certs.d"),
        Path("/etc/containers/certs.d"),
        Path("/etc/docker/certs.d"),
    )


@pytest.mark.parametrize(
    ("missing", "said"),
    [
        ("client.key", "client.cert exists without client.key"),
        ("client.cert", "client.key exists without client.cert"),
    ],
)
def test_half_a_pair_is_told(tmp_path: Path, client: Certificate, missing: str, said: str) -> None:
    place = put(tmp_path / "d", pair=client)
    (place / missing).unlink()

    with pytest.raises(UsageError, match=said):
        read_directory(place)


def test_a_directory_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="No such file"):
        read_directory(tmp_path / "none")


@pytest.mark.parametrize("content", [b"", b"text", b"\xff\x00", b"-----BEGIN CERTIFICATE-----\n"])
def test_an_authority_that_is_none_is_told(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "ca.crt").write_bytes(content)

    with pytest.raises(UsageError, match=r"ca\.crt.*PEM"):
        read_directory(tmp_path)


def test_the_key_of_another_certificate_is_told(ca: CertificateAuthority) -> None:
    with pytest.raises(UsageError, match="another certificate"):
        check_client_certificate(str(ca.issue("a").certificate), str(ca.issue("b").key))


def test_a_key_with_a_password_is_told_and_nobody_is_asked(
    tmp_path: Path, client: Certificate
) -> None:
    key = load_pem_private_key(client.key.read_bytes(), None)
    locked = key.private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret")
    )
    (tmp_path / "locked.pem").write_bytes(client.certificate.read_bytes() + locked)

    with pytest.raises(UsageError, match="the key is encrypted"):
        check_client_certificate(str(tmp_path / "locked.pem"))


def test_a_pipe_in_the_place_of_a_file_is_told(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "ca.crt")

    with pytest.raises(UsageError, match="not a regular file"):
        read_directory(tmp_path)
