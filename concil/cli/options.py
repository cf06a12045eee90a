"""Options that several verbs share, and the settings they become."""

from __future__ import annotations

import argparse
import ssl
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from concil.bars import MODES
from concil.cli import rates
from concil.config import RetryPolicy, TransferConfig
from concil.content import Platform
from concil.engine import Sides
from concil.errors import ConcilError, UsageError, shown
from concil.registry import auth_disk
from concil.registry.certificates import check_pair, read_directory
from concil.registry.credentials import Credentials
from concil.registry.http_session import TLSSettings
from concil.stores import Access

if TYPE_CHECKING:
    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]  # noqa: SLF001  # argparse has no public name for it

MOST_JOBS = 256
REF_HELP = "host/repository:tag, oci:DIR:NAME, oci-archive:FILE:NAME or docker-archive:FILE:TAG"
_SWITCHES = ("--tls-verify", "--src-tls-verify", "--dest-tls-verify")
_SIDES = {"src-": " of the source", "dest-": " of the destination"}
_WORDS = {"true": True, "1": True, "t": True, "false": False, "0": False, "f": False}


def spelt_out(argv: Sequence[str]) -> list[str]:
    """Give every TLS switch its value: ``--tls-verify`` alone would take the next argument.

    ``--no-tls-verify`` is the same as ``--tls-verify=false``, as skopeo writes it.
    """
    end = list(argv).index("--") if "--" in argv else len(argv)
    words = {name: f"{name}=true" for name in _SWITCHES}
    words |= {f"--no-{name[2:]}": f"{name}=false" for name in _SWITCHES}
    return [words.get(word, word) for word in argv[:end]] + list(argv[end:])


def add_common(parser: argparse.ArgumentParser) -> None:
    """Add what every verb takes; the values in front of the verb stay if none follow."""
    group = parser.add_argument_group("messages")
    group.add_argument(
        "-v",
        "--verbose",
        action="count",
        default=argparse.SUPPRESS,
        help="say more; twice: every request",
    )
    group.add_argument(
        "-q",
        "--quiet",
        action="store_true",
        default=argparse.SUPPRESS,
        help="say nothing but errors and results",
    )


def add_progress(parser: argparse.ArgumentParser) -> None:
    """Add what verbs that move blobs take."""
    parser.add_argument(
        "--progress",
        choices=MODES,
        help="bars on a terminal and plain lines elsewhere (auto, the default), or one of the "
        "others; json writes an event a line; all of it on standard error",
    )
    parser.add_argument(
        "-j",
        "--jobs",
        type=_jobs,
        default=TransferConfig().workers,
        metavar="N",
        help="blobs and ranges that are moved at once (default: %(default)s); 0: one after "
        "the other, without threads",
    )
    rates.add_to(parser.add_argument_group("manners"))


def add_registry(parser: argparse.ArgumentParser, *, sides: Sequence[str] = ()) -> None:
    """Add how registries are reached, and by whom.

    Args:
        sides: "src" and "dest" where a verb has two; none: it has one.
    """
    group = add_connection(parser, sides=sides)
    for name in ("", *(f"{side}-" for side in sides)):
        side = _SIDES.get(name, " of both sides" if sides else "")
        group.add_argument(
            f"--{name}authfile",
            metavar="FILE",
            help=f"look for stored logins{side} in this file only, as in podman's auth.json",
        )
        if name or not sides:
            group.add_argument(
                f"--{name}creds",
                metavar="USER:PASSWORD",
                help=f"log in{side} with these, unless the address has its own",
            )


def add_connection(
    parser: argparse.ArgumentParser, *, sides: Sequence[str] = ()
) -> argparse._ArgumentGroup:
    """Add how registries are reached, whoever it is; return the group. As `add_registry`."""
    group = parser.add_argument_group("registries")
    for name in ("", *(f"{side}-" for side in sides)):
        side = _SIDES.get(name, " of both sides" if sides else "")
        group.add_argument(
            f"--{name}tls-verify",
            type=_truth,
            metavar="true|false",
            help=f"check the certificate{side} (default: true); =false allows plain http too",
        )
        group.add_argument(
            f"--{name}cacert",
            metavar="FILE",
            help=f"trust certificates{side} if this CA signed them (PEM), and no others",
        )
        group.add_argument(
            f"--{name}cert-dir",
            metavar="DIR",
            help=f"certificates{side}: *.crt is trusted beside the system's, *.cert with *.key is "
            "shown; default: what certs.d of podman and docker has for the host",
        )
    group.add_argument(
        "--cert", metavar="FILE", help="show the registry this client certificate (PEM)"
    )
    group.add_argument(
        "--key", metavar="FILE", help="its key, where that is not in the same file (PEM)"
    )
    group.add_argument(
        "--insecure", action="store_true", help="trust any certificate, and plain http"
    )
    group.add_argument(
        "--retry",
        type=_count,
        default=RetryPolicy().attempts - 1,
        metavar="N",
        help="times to try again in a row without any progress (default: %(default)s)",
    )
    return group


def add_platform(parser: argparse.ArgumentParser, what: str) -> None:
    """Add ``--platform``."""
    parser.add_argument(
        "--platform",
        action="append",
        default=[],
        metavar="OS/ARCH[/VARIANT]",
        help=f"{what}; as in linux/amd64,linux/arm/v7; may be repeated",
    )


def platforms_of(arguments: argparse.Namespace) -> tuple[str, ...]:
    """Return what ``--platform`` asks for.

    Raises:
        UsageError: one of them is no platform.
    """
    found = [part.strip() for text in arguments.platform for part in text.split(",")]
    for text in found:
        try:
            Platform.parse(text)
        except ConcilError as error:
            raise UsageError(str(error), remedy=error.remedy) from error
    return tuple(dict.fromkeys(found))


def config_of(arguments: argparse.Namespace) -> TransferConfig:
    """Return the settings of a transfer."""
    normal = TransferConfig()
    jobs: int = getattr(arguments, "jobs", normal.workers)
    return TransferConfig(
        workers=jobs,
        images=max(normal.images, jobs),
        per_host=max(normal.per_host, jobs),
        requests=getattr(arguments, "limit_requests", None),
        bandwidth=getattr(arguments, "limit_rate", None),
        hosts=getattr(arguments, "hosts", {}),  # of the plan of a mirror
        retry=RetryPolicy(attempts=arguments.retry + 1),
    )


def access_of(arguments: argparse.Namespace, side: str = "") -> Access:
    """Return how one side is reached.

    Args:
        side: "src", "dest", or "" for a verb that has only one.
    Raises:
        UsageError: a certificate cannot be read, the credentials have no colon, or there
            is no file of logins of that name.
        AccessDenied: that is no file of logins.
    """
    prefix = f"{side}_" if side else ""
    verify: bool | None = getattr(arguments, f"{prefix}tls_verify")
    if verify is None:
        verify = arguments.tls_verify
    if verify is None:
        verify = not arguments.insecure
    creds: str | None = getattr(arguments, f"{prefix}creds", None)
    logins: str | None = getattr(arguments, f"{prefix}authfile", None)
    if logins is None:
        logins = getattr(arguments, "authfile", None)
    authority: str | None = getattr(arguments, f"{prefix}cacert")
    if authority is None:
        authority = arguments.cacert
    trusted = _checked_ca(authority) if authority is not None else True
    directory: str | None = getattr(arguments, f"{prefix}cert_dir") or arguments.cert_dir
    if directory is not None:
        read_directory(Path(directory))  # told before anything begins
    return Access(
        TLSSettings(trusted if verify else False, _checked_pair(arguments), directory),
        Credentials.parse(creds) if creds is not None else None,
        None if logins is None else _checked_logins(logins),
    )


def sides_of(arguments: argparse.Namespace) -> Sides:
    """Return how the sides of a transfer are reached; both alike for a verb that has one."""
    if hasattr(arguments, "src_creds"):
        return Sides(access_of(arguments, "src"), access_of(arguments, "dest"))
    return Sides(access_of(arguments), access_of(arguments))


def _checked_pair(arguments: argparse.Namespace) -> str | tuple[str, str] | None:
    certificate: str | None = arguments.cert
    key: str | None = arguments.key
    if certificate is None:
        if key is not None:
            raise UsageError("--key was given without --cert", remedy="name the certificate")
        return None
    check_pair(certificate, key)
    return certificate if key is None else (certificate, key)


def _checked_logins(text: str) -> str:
    if auth_disk.read(Path(text)) is None:
        raise UsageError(
            f"--authfile {shown(text)}: no such file",
            remedy=f"log in first: concil login --authfile {shown(text)} HOST",
        )
    return text


def _checked_ca(text: str) -> str:
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
            f"cannot use --cacert {shown(text)}: {cause}", remedy="name a PEM file of a CA"
        ) from error
    return text


def _truth(text: str) -> bool:
    found = _WORDS.get(text.lower())
    if found is None:
        raise argparse.ArgumentTypeError(f"{text!a} is neither true nor false")
    return found


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 5):
        raise argparse.ArgumentTypeError(f"{text!a} is not a number from 0 to 9999")
    return int(text)


def _jobs(text: str) -> int:
    number = _count(text) if text.isascii() and text.isdigit() and len(text) < 5 else -1
    if not 0 <= number <= MOST_JOBS:
        raise argparse.ArgumentTypeError(f"{text!a} is not a number from 0 to {MOST_JOBS}")
    return number
