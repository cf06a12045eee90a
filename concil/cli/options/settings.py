"""Builds the settings of transfers and connections from parsed options."""

from __future__ import annotations

import argparse
import contextlib
import ssl
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from concil.auth.credentials import docker_config_io
from concil.auth.credentials.credentials import Credentials
from concil.config import HostLimits, RetryPolicy, TransferConfig
from concil.engine.store_factory import EndpointOptions
from concil.errors import ConcilError, UsageError, safe_repr
from concil.http.certs_d import check_client_certificate, read_directory
from concil.http.requests_session import TLSSettings
from concil.oci.platform import Platform

if TYPE_CHECKING:
    from concil.plan.formats.toml_hosts import HostField

_TLS_FIELDS = frozenset({"insecure", "cacert", "cert-dir", "cert", "key"})  # of the config file


def parse_platforms(arguments: argparse.Namespace) -> tuple[str, ...]:
    """Return the platforms of ``--platform``.

    Raises:
        UsageError: one of them is not a platform.
    """
    platforms = [part.strip() for platform in arguments.platform for part in platform.split(",")]
    names = []
    for text in platforms:
        try:
            names.append(str(Platform.parse(text)))
        except ConcilError as error:
            raise UsageError(str(error), remedy=error.remedy) from error
    return tuple(dict.fromkeys(names))


def may_overwrite(arguments: argparse.Namespace) -> bool:
    """Return whether images at the destination may be changed.

    Raises:
        UsageError: they may not, and are to be checked and mended.
    """
    if arguments.no_clobber and arguments.recheck:
        raise UsageError(
            "--no-clobber leaves images as they are, and --recheck mends them",
            remedy="omit one of them",
        )
    return not arguments.no_clobber


def refuse_spool(arguments: argparse.Namespace) -> None:
    """Raise UsageError if options of the spool are given for a single destination."""
    if arguments.spool is not None or arguments.spool_size is not None:
        raise UsageError(
            "--spool and --spool-size are for several destinations, and one is given",
            remedy="omit them",
        )


def build_config(arguments: argparse.Namespace) -> TransferConfig:
    """Return the transfer settings of the options."""
    defaults = TransferConfig()
    jobs: int | None = getattr(arguments, "jobs", None)
    jobs = defaults.workers if jobs is None else jobs
    retries: int | None = arguments.retry
    spool_size: int | None = getattr(arguments, "spool_size", None)
    cache_size: int | None = getattr(arguments, "cache_size", None)
    # Those of the plan of a mirror, and of the config file.
    host_limits: Mapping[str, HostLimits] = getattr(arguments, "hosts", {})
    return TransferConfig(
        workers=jobs,
        concurrent_images=max(defaults.concurrent_images, jobs),
        jobs_per_host=max(defaults.jobs_per_host, jobs),
        requests=getattr(arguments, "limit_requests", None),
        bandwidth=getattr(arguments, "limit_rate", None),
        host_limits=host_limits,
        retry=defaults.retry if retries is None else RetryPolicy(max_attempts=retries + 1),
        spool_directory=getattr(arguments, "spool", None),
        spool_size=defaults.spool_size if spool_size is None else spool_size,
        cache=getattr(arguments, "cache", None),
        cache_size=defaults.cache_size if cache_size is None else cache_size,
    )


def build_endpoint_options(arguments: argparse.Namespace, side: str = "") -> EndpointOptions:
    """Return the connection options of one side.

    Args:
        side: "src", "dest", or "" for a verb with one side.
    Raises:
        UsageError: a certificate cannot be read, the credentials have no colon, or there
            is no such auth file.
        AccessDenied: the auth file is invalid.
    """
    prefix = f"{side}_" if side else ""
    certificate = _check_client_certificate(arguments)
    verify: bool | None = getattr(arguments, f"{prefix}tls_verify")
    if verify is None:
        verify = arguments.tls_verify
    is_given = verify is not None or arguments.insecure
    if verify is None:
        verify = not arguments.insecure
    creds: str | None = getattr(arguments, f"{prefix}creds", None)
    authfile: str | None = getattr(arguments, f"{prefix}authfile", None)
    if authfile is None:
        authfile = getattr(arguments, "authfile", None)
    ca_path: str | None = getattr(arguments, f"{prefix}cacert")
    if ca_path is None:
        ca_path = arguments.cacert
    ca_certificates = _check_ca(ca_path) if ca_path is not None else True
    directory: str | None = getattr(arguments, f"{prefix}cert_dir") or arguments.cert_dir
    if directory is not None:
        read_directory(Path(directory))  # fails before anything is transferred
    # What the options say of trust is for all hosts.
    is_given = is_given or ca_path is not None or directory is not None
    return EndpointOptions(
        TLSSettings(ca_certificates if verify else False, certificate, directory),
        Credentials.parse(creds) if creds is not None else None,
        None if authfile is None else _check_authfile(authfile),
        {} if is_given else _tls_of_config_file(arguments, certificate),
    )


def _tls_of_config_file(
    arguments: argparse.Namespace, certificate: str | tuple[str, str] | None
) -> dict[str, TLSSettings]:
    """Return the TLS settings of the hosts in the config file.

    Args:
        certificate: the client certificate of the options, which takes precedence.
    Raises:
        UsageError: a certificate cannot be read.
    """
    tls_by_host = {}
    tables: Mapping[str, Mapping[str, HostField]] = getattr(arguments, "host_fields", {})
    for host, fields in tables.items():
        values = {name: field.value for name, field in fields.items()}
        if not values.keys() & _TLS_FIELDS:
            continue
        with _naming_line(arguments, fields.get("cert")):
            if "cert" in values:
                check_client_certificate(values["cert"], values.get("key"))
        with _naming_line(arguments, fields.get("cert-dir")):
            if "cert-dir" in values:
                read_directory(Path(values["cert-dir"]))
        with _naming_line(arguments, fields.get("cacert")):
            trusted = _check_ca(values["cacert"], "cacert") if "cacert" in values else True
        own = (values["cert"], values["key"]) if "key" in values else values.get("cert")
        tls_by_host[host] = TLSSettings(
            False if values.get("insecure") else trusted,
            certificate or own,
            values.get("cert-dir"),
        )
    return tls_by_host


@contextlib.contextmanager
def _naming_line(arguments: argparse.Namespace, field: HostField | None) -> Iterator[None]:
    """Let the error of a field name its line of the config file."""
    try:
        yield
    except UsageError as error:
        line = field.line if field is not None else 1
        message = f"{arguments.config_path}:{line}: {error}"
        raise UsageError(message, remedy=error.remedy) from error


def add_host_limits(arguments: argparse.Namespace, limits: Mapping[str, HostLimits]) -> None:
    """Use the limits of a plan and those of the config file, which they replace.

    May be called again, with those of another plan.
    """
    merged: dict[str, HostLimits] = dict(getattr(arguments, "file_hosts", {}))
    for host, own in limits.items():
        general = merged.get(host, HostLimits())
        merged[host] = HostLimits(
            general.jobs if own.jobs is None else own.jobs,
            general.requests if own.requests is None else own.requests,
            general.bandwidth if own.bandwidth is None else own.bandwidth,
        )
    arguments.hosts = merged


def _check_client_certificate(arguments: argparse.Namespace) -> str | tuple[str, str] | None:
    certificate: str | None = arguments.cert
    key: str | None = arguments.key
    if certificate is None:
        if key is not None:
            raise UsageError("--key is given without --cert", remedy="add --cert FILE")
        return None
    check_client_certificate(certificate, key)
    return certificate if key is None else (certificate, key)


def _check_authfile(text: str) -> str:
    if docker_config_io.read_auth_file(Path(text)) is None:
        raise UsageError(
            f"--authfile {safe_repr(text)}: no such file",
            remedy=f"log in first: concil login --authfile {safe_repr(text)} HOST",
        )
    return text


def _check_ca(text: str, name: str = "--cacert") -> str:
    path = Path(text)
    try:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        if path.is_dir():
            context.load_verify_locations(capath=text)
        else:
            context.load_verify_locations(cafile=text)
    except (OSError, ValueError) as error:
        cause = "not a PEM certificate" if isinstance(error, ssl.SSLError) else str(error)
        if isinstance(error, OSError) and not isinstance(error, ssl.SSLError) and error.strerror:
            cause = error.strerror
        raise UsageError(
            f"cannot use {name} {safe_repr(text)}: {cause}",
            remedy="give a PEM file with CA certificates",
        ) from error
    return text
