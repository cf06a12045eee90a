"""Certificates per host, from the certs.d directories of docker and podman."""

from __future__ import annotations

import os
import re
import ssl
import stat
import threading
from collections.abc import Sequence
from pathlib import Path

from concil.config import MIB
from concil.errors import UsageError, safe_repr
from concil.runtime.dataclass import dataclass

_MAX_FILE_SIZE = MIB  # bytes of one file
# A host that is safe as a directory name: no "..", no slash.
_DIRECTORY_NAME = re.compile(r"[A-Za-z0-9_\[][A-Za-z0-9_.:\[\]-]*")
_REMEDY = "a certs.d directory contains ca.crt, or client.cert and client.key"
CertificatePair = tuple[str, str]


@dataclass(frozen=True, slots=True)
class HostCertificates:
    """Extra CA certificates for a host, and the client certificate to present to it."""

    ca_cert_data: str = ""  # PEM
    client_certificate: CertificatePair | None = None  # paths of the client certificate and its key


class CertificateDirectories:
    """The machine's `certs.d` directories. Any thread may call any method."""

    def __init__(self, directories: Sequence[Path] | None = None) -> None:
        """Search ``directories`` in order; the first with a directory for a host wins.

        Args:
            directories: None for `default_directories`.
        """
        self._directories = tuple(default_directories() if directories is None else directories)
        self._certificates_by_host: dict[str, HostCertificates] = {}
        self._lock = threading.Lock()  # guards _certificates_by_host

    def copy_without_cache(self) -> CertificateDirectories:
        """Return an object for the same directories with an empty cache."""
        return CertificateDirectories(self._directories)

    def __reduce__(self) -> tuple[type[CertificateDirectories], tuple[tuple[Path, ...]]]:
        """Pickle the directories only, not the cache."""
        return CertificateDirectories, (self._directories,)

    def certificates_for(self, host: str) -> HostCertificates:
        """Return the certificates for ``host[:port]``, reading each host's directory once.

        Raises:
            UsageError: a file is missing, unreadable or not a certificate.
        Source: containers/image, docs/containers-certs.d.5.md.
        """
        with self._lock:
            certificates = self._certificates_by_host.get(host)
        if certificates is None:
            certificates = self._find_certificates(host.lower())
            with self._lock:
                self._certificates_by_host[host] = certificates
        return certificates

    def _find_certificates(self, host: str) -> HostCertificates:
        if _DIRECTORY_NAME.fullmatch(host):
            for root in self._directories:
                if os.access(root / host, os.R_OK | os.X_OK):
                    return read_directory(root / host)
        return HostCertificates()


def default_directories() -> tuple[Path, ...]:
    """Return the directories that docker and podman search, the user's first."""
    config_home = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")  # noqa: PTH111 - no home is no error
    return (
        Path(config_home, "containers/certs.d"),
        Path("/etc/containers/certs.d"),
        Path("/etc/docker/certs.d"),
    )


def read_directory(directory: Path) -> HostCertificates:
    """Read ``*.crt`` as CA certificates, ``*.cert`` with ``*.key`` as client certificate.

    Raises:
        UsageError: the directory cannot be read, one file of a pair is missing, or a file
            is not PEM.
    """
    try:
        names = sorted(os.listdir(directory))  # noqa: PTH208 - only the names are needed
    except OSError as error:
        raise _certificate_error(directory, error.strerror or type(error).__name__) from error
    authorities = [_read_ca_certs(directory / name) for name in names if name.endswith(".crt")]
    pairs = []
    for name in names:
        stem, dot, suffix = name.rpartition(".")
        counterpart = {"cert": f"{stem}.key", "key": f"{stem}.cert"}.get(suffix) if dot else None
        if counterpart is not None and counterpart not in names:
            raise _certificate_error(directory, f"{name} exists without {counterpart}")
        if suffix == "cert" and counterpart is not None:
            pairs.append((str(directory / name), str(directory / counterpart)))
    for pair in pairs[:1]:
        check_client_certificate(*pair)
    return HostCertificates("\n".join(authorities), pairs[0] if pairs else None)


def parse_ca_certs(content: bytes) -> str:
    """Return PEM certificates as text, without any non-ASCII characters of comments.

    Raises:
        ValueError: ``content`` holds no certificate.
    """
    text = content.decode("ascii", "ignore")
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=text)
    except ssl.SSLError as error:
        raise ValueError(_describe_cause(error)) from error
    return text


def check_client_certificate(certificate: str, key: str | None = None) -> None:
    """Load a client certificate and its key once, to report errors early.

    Raises:
        UsageError: they cannot be read, the key has a password, or they do not match.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        # Without a password callback OpenSSL would prompt on the terminal.
        context.load_cert_chain(certificate, key, password=lambda: "")
    except (OSError, ValueError) as error:
        raise _certificate_error(certificate, _describe_cause(error)) from error


def _read_ca_certs(path: Path) -> str:
    """Return the CA certificates of a file, as PEM text."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb") as file:  # noqa: PTH123 - O_NONBLOCK, so that a FIFO does not block
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise _certificate_error(path, "not a regular file")
            return parse_ca_certs(file.read(_MAX_FILE_SIZE))
    except UsageError:
        raise
    except (OSError, ValueError) as error:
        raise _certificate_error(path, _describe_cause(error)) from error


def _describe_cause(error: OSError | ValueError) -> str:
    if isinstance(error, ssl.SSLError):
        if error.reason == "KEY_VALUES_MISMATCH":
            return "the key belongs to another certificate"
        return "it is not a PEM certificate or key, or the key is encrypted"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return "not a file of certificates in PEM"


def _certificate_error(path: Path | str, cause: str) -> UsageError:
    return UsageError(f"cannot use certificates in {safe_repr(str(path))}: {cause}", remedy=_REMEDY)
