"""Options that several verbs share, and the configuration built from them."""

from __future__ import annotations

import argparse
import ssl
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from concil.auth.credentials import docker_config_io
from concil.auth.credentials.credentials import Credentials
from concil.cli.options import rates
from concil.config import RetryPolicy, TransferConfig
from concil.display.display import MODES
from concil.engine.image_resolver import Endpoints
from concil.engine.store_factory import EndpointOptions
from concil.errors import ConcilError, UsageError, safe_repr
from concil.http.certs_d import check_client_certificate, read_directory
from concil.http.requests_session import TLSSettings
from concil.oci.platform import Platform

if TYPE_CHECKING:
    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]  # noqa: SLF001  # argparse has no public name for it

MAX_JOBS = 256
REF_HELP = "host/repository:tag, oci:DIR:NAME, oci-archive:FILE:NAME or docker-archive:FILE:TAG"
_TLS_SWITCHES = ("--tls-verify", "--src-tls-verify", "--dest-tls-verify")
_SIDE_HELP = {"src-": " of the source", "dest-": " of the destination"}
_BOOLEANS = {"true": True, "1": True, "t": True, "false": False, "0": False, "f": False}


def expand_tls_switches(argv: Sequence[str]) -> list[str]:
    """Give every TLS switch its value: a bare ``--tls-verify`` would take the next argument.

    ``--no-tls-verify`` means ``--tls-verify=false``, which is skopeo's spelling.
    """
    end = list(argv).index("--") if "--" in argv else len(argv)
    replacements = {name: f"{name}=true" for name in _TLS_SWITCHES}
    replacements |= {f"--no-{name[2:]}": f"{name}=false" for name in _TLS_SWITCHES}
    return [replacements.get(argument, argument) for argument in argv[:end]] + list(argv[end:])


def add_common(parser: argparse.ArgumentParser) -> None:
    """Add the options of every verb; a value before the verb is the default after it."""
    group = parser.add_argument_group("messages")
    group.add_argument(
        "-v",
        "--verbose",
        action="count",
        default=argparse.SUPPRESS,
        help="log more; twice: every request",
    )
    group.add_argument(
        "-q",
        "--quiet",
        action="store_true",
        default=argparse.SUPPRESS,
        help="print nothing but errors and results",
    )


def add_progress(parser: argparse.ArgumentParser) -> None:
    """Add the options of verbs that transfer blobs."""
    parser.add_argument(
        "--progress",
        choices=MODES,
        help="progress display: auto (the default) shows bars on a terminal and plain lines "
        "elsewhere; json writes one event per line; all of them write to standard error",
    )
    parser.add_argument(
        "-j",
        "--jobs",
        type=_parse_jobs,
        default=TransferConfig().workers,
        metavar="N",
        help="number of blobs and ranges that are transferred at the same time (default: "
        "%(default)s); 0: one after the other, without threads",
    )
    rates.add_options(parser.add_argument_group("rate limits"))


def add_registry(parser: argparse.ArgumentParser, *, sides: Sequence[str] = ()) -> None:
    """Add the options for registries: connection and credentials.

    Args:
        sides: "src" and "dest" for a verb that has two sides; empty for one.
    """
    group = add_connection(parser, sides=sides)
    for name in ("", *(f"{side}-" for side in sides)):
        side = _SIDE_HELP.get(name, " of both sides" if sides else "")
        group.add_argument(
            f"--{name}authfile",
            metavar="FILE",
            help=f"read stored logins{side} from this file only (the format of podman's auth.json)",
        )
        if name or not sides:
            group.add_argument(
                f"--{name}creds",
                metavar="USER:PASSWORD",
                help=f"credentials{side}, unless the address contains its own",
            )


def add_connection(
    parser: argparse.ArgumentParser, *, sides: Sequence[str] = ()
) -> argparse._ArgumentGroup:
    """Add the connection options and return their group; ``sides`` as in `add_registry`."""
    group = parser.add_argument_group("registries")
    for name in ("", *(f"{side}-" for side in sides)):
        side = _SIDE_HELP.get(name, " of both sides" if sides else "")
        group.add_argument(
            f"--{name}tls-verify",
            type=_parse_bool,
            metavar="true|false",
            help=f"verify the certificate{side} (default: true); =false also allows plain http",
        )
        group.add_argument(
            f"--{name}cacert",
            metavar="FILE",
            help=f"trust only certificates{side} that this CA has signed (PEM)",
        )
        group.add_argument(
            f"--{name}cert-dir",
            metavar="DIR",
            help=f"directory with certificates{side}: *.crt are trusted in addition to the "
            "system's, *.cert with *.key is the client certificate; default: the certs.d "
            "directories of podman and docker",
        )
    group.add_argument("--cert", metavar="FILE", help="client certificate for the registry (PEM)")
    group.add_argument(
        "--key",
        metavar="FILE",
        help="key of the client certificate, if it is not in the same file (PEM)",
    )
    group.add_argument(
        "--insecure", action="store_true", help="trust any certificate, and allow plain http"
    )
    group.add_argument(
        "--retry",
        type=_parse_count,
        default=RetryPolicy().max_attempts - 1,
        metavar="N",
        help="number of consecutive retries without progress (default: %(default)s)",
    )
    return group


def add_platform(parser: argparse.ArgumentParser, help_text: str) -> None:
    """Add ``--platform``."""
    parser.add_argument(
        "--platform",
        action="append",
        default=[],
        metavar="OS/ARCH[/VARIANT]",
        help=f"{help_text}, for example linux/amd64,linux/arm/v7; may be repeated",
    )


def parse_platforms(arguments: argparse.Namespace) -> tuple[str, ...]:
    """Return the platforms of ``--platform``.

    Raises:
        UsageError: one of them is not a platform.
    """
    platforms = [part.strip() for platform in arguments.platform for part in platform.split(",")]
    for platform in platforms:
        try:
            Platform.parse(platform)
        except ConcilError as error:
            raise UsageError(str(error), remedy=error.remedy) from error
    return tuple(dict.fromkeys(platforms))


def build_config(arguments: argparse.Namespace) -> TransferConfig:
    """Return the transfer settings of the options."""
    defaults = TransferConfig()
    jobs: int = getattr(arguments, "jobs", defaults.workers)
    return TransferConfig(
        workers=jobs,
        concurrent_images=max(defaults.concurrent_images, jobs),
        jobs_per_host=max(defaults.jobs_per_host, jobs),
        requests=getattr(arguments, "limit_requests", None),
        bandwidth=getattr(arguments, "limit_rate", None),
        host_limits=getattr(arguments, "hosts", {}),  # of the plan of a mirror
        retry=RetryPolicy(max_attempts=arguments.retry + 1),
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
    verify: bool | None = getattr(arguments, f"{prefix}tls_verify")
    if verify is None:
        verify = arguments.tls_verify
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
    return EndpointOptions(
        TLSSettings(
            ca_certificates if verify else False, _check_client_certificate(arguments), directory
        ),
        Credentials.parse(creds) if creds is not None else None,
        None if authfile is None else _check_authfile(authfile),
    )


def build_endpoints(arguments: argparse.Namespace) -> Endpoints:
    """Return the options of both sides; they are equal for a verb with one side."""
    if hasattr(arguments, "src_creds"):
        return Endpoints(
            build_endpoint_options(arguments, "src"), build_endpoint_options(arguments, "dest")
        )
    return Endpoints(build_endpoint_options(arguments), build_endpoint_options(arguments))


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


def _check_ca(text: str) -> str:
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
            f"cannot use --cacert {safe_repr(text)}: {cause}",
            remedy="give a PEM file with CA certificates",
        ) from error
    return text


def _parse_bool(text: str) -> bool:
    value = _BOOLEANS.get(text.lower())
    if value is None:
        raise argparse.ArgumentTypeError(f"{text!a} is neither true nor false")
    return value


def _parse_count(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 5):
        raise argparse.ArgumentTypeError(f"{text!a} is not a number from 0 to 9999")
    return int(text)


def _parse_jobs(text: str) -> int:
    number = _parse_count(text) if text.isascii() and text.isdigit() and len(text) < 5 else -1
    if not 0 <= number <= MAX_JOBS:
        raise argparse.ArgumentTypeError(f"{text!a} is not a number from 0 to {MAX_JOBS}")
    return number
