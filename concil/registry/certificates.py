"""Certificates by host, from the directories that docker, podman and skopeo read."""

from __future__ import annotations

import os
import re
import ssl
import stat
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from concil.config import MIB
from concil.errors import UsageError, shown

_LIMIT = MIB  # bytes of one file
# What may be the name of a directory: no "..", no slash.
_HOST = re.compile(r"[A-Za-z0-9_\[][A-Za-z0-9_.:\[\]-]*")
_REMEDY = "certs.d has ca.crt, and client.cert with client.key beside it"
Pair = tuple[str, str]


@dataclass(frozen=True, slots=True)
class HostCertificates:
    """Whom to trust for a host beside the usual authorities, and what to show it."""

    authorities: str = ""  # PEM
    pair: Pair | None = None  # paths of the client certificate and its key


class CertificateDirectories:
    """The `certs.d` directories of a machine. Any thread may call any method."""

    def __init__(self, roots: Sequence[Path] | None = None) -> None:
        """Look below these directories, the first one that knows a host; None: the usual."""
        self._roots = tuple(usual_roots() if roots is None else roots)
        self._found: dict[str, HostCertificates] = {}
        self._lock = threading.Lock()  # guards _found

    def anew(self) -> CertificateDirectories:
        """The same directories, with nothing looked up yet."""
        return CertificateDirectories(self._roots)

    def __reduce__(self) -> tuple[type[CertificateDirectories], tuple[tuple[Path, ...]]]:
        """Travel to another process without what was looked up."""
        return CertificateDirectories, (self._roots,)

    def of(self, host: str) -> HostCertificates:
        """What there is for ``host[:port]``; looked up once.

        Raises:
            UsageError: a file is missing, unreadable or no certificate.
        Source: containers/image, docs/containers-certs.d.5.md.
        """
        with self._lock:
            found = self._found.get(host)
        if found is None:
            found = self._look_up(host.lower())
            with self._lock:
                self._found[host] = found
        return found

    def _look_up(self, host: str) -> HostCertificates:
        if _HOST.fullmatch(host):
            for root in self._roots:
                if os.access(root / host, os.R_OK | os.X_OK):
                    return read_directory(root / host)
        return HostCertificates()


def usual_roots() -> tuple[Path, ...]:
    """Where docker and podman look, the user's own directory first."""
    own = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")  # noqa: PTH111 - no home is no error
    return (
        Path(own, "containers/certs.d"),
        Path("/etc/containers/certs.d"),
        Path("/etc/docker/certs.d"),
    )


def read_directory(directory: Path) -> HostCertificates:
    """Read ``*.crt`` as authorities, ``*.cert`` with ``*.key`` as the client's certificate.

    Raises:
        UsageError: it cannot be read, a half of a pair is missing, or a file is no PEM.
    """
    try:
        names = sorted(os.listdir(directory))  # noqa: PTH208 - names are what is looked at
    except OSError as error:
        raise _unusable(directory, error.strerror or type(error).__name__) from error
    authorities = [_authority(directory / name) for name in names if name.endswith(".crt")]
    pairs = []
    for name in names:
        stem, dot, kind = name.rpartition(".")
        other = {"cert": f"{stem}.key", "key": f"{stem}.cert"}.get(kind) if dot else None
        if other is not None and other not in names:
            raise _unusable(directory, f"{name} is there without {other}")
        if kind == "cert" and other is not None:
            pairs.append((str(directory / name), str(directory / other)))
    for pair in pairs[:1]:
        check_pair(*pair)
    return HostCertificates("\n".join(authorities), pairs[0] if pairs else None)


def authorities_in(content: bytes) -> str:
    """Return the text of certificates in PEM, as far as it is ASCII: there may be notes around.

    Raises:
        ValueError: there is none.
    """
    text = content.decode("ascii", "ignore")
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=text)
    except ssl.SSLError as error:
        raise ValueError(_cause(error)) from error
    return text


def check_pair(certificate: str, key: str | None = None) -> None:
    """Try a client certificate and its key before they are needed.

    Raises:
        UsageError: they cannot be read, the key has a password, or they are no pair.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        # Without a password at hand OpenSSL would ask for it on the terminal.
        context.load_cert_chain(certificate, key, password=lambda: "")
    except (OSError, ValueError) as error:
        raise _unusable(certificate, _cause(error)) from error


def _authority(path: Path) -> str:
    """The text of a file of certificates."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb") as file:  # noqa: PTH123 - not blocked by a pipe
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise _unusable(path, "not a regular file")
            return authorities_in(file.read(_LIMIT))
    except UsageError:
        raise
    except (OSError, ValueError) as error:
        raise _unusable(path, _cause(error)) from error


def _cause(error: OSError | ValueError) -> str:
    if isinstance(error, ssl.SSLError):
        if error.reason == "KEY_VALUES_MISMATCH":
            return "the key belongs to another certificate"
        return "no certificate or key in PEM, or a key with a password"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return "not a file of certificates in PEM"


def _unusable(path: Path | str, cause: str) -> UsageError:
    return UsageError(f"cannot use certificates in {shown(str(path))}: {cause}", remedy=_REMEDY)
