"""A certificate authority of the tests' own."""

from __future__ import annotations

import shutil
import ssl
from dataclasses import dataclass
from pathlib import Path

import trustme

LOOPBACK = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True, slots=True)
class Certificate:
    """A server's certificate chain and key, as PEM files."""

    certificate: Path
    key: Path

    def server_context(self) -> ssl.SSLContext:
        """Return a context for a server written in Python."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.certificate, self.key)
        return context


def write_client_certs(
    directory: Path, authority: CertificateAuthority, client: Certificate
) -> Path:
    """Write a directory of client certificates as podman, docker and skopeo have it for a host."""
    directory.mkdir(parents=True)
    shutil.copy(authority.path, directory / "ca.crt")
    shutil.copy(client.certificate, directory / "client.cert")
    shutil.copy(client.key, directory / "client.key")
    return directory


class CertificateAuthority:
    """Signs certificates that only those trust who are given `path`."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self.path = directory / "ca.pem"
        self._authority = trustme.CA()
        self._authority.cert_pem.write_to_path(str(self.path))
        self._issued = 0

    def issue(self, *names: str) -> Certificate:
        """Sign a certificate for host names and addresses, by default all of loopback's."""
        self._issued += 1
        leaf = self._authority.issue_cert(*(names or LOOPBACK))
        issued = Certificate(
            self.directory / f"server-{self._issued}.pem",
            self.directory / f"server-{self._issued}.key",
        )
        for index, pem in enumerate(leaf.cert_chain_pems):
            pem.write_to_path(str(issued.certificate), append=index > 0)
        leaf.private_key_pem.write_to_path(str(issued.key))
        return issued
