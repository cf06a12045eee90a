"""Declares options that several verbs share."""

from __future__ import annotations

import argparse

from concil.defaults import MAX_ATTEMPTS

TYPE_CHECKING = False  # as that of typing, which takes longer to import than this module
if TYPE_CHECKING:
    from collections.abc import Sequence

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
        type=parse_count,
        metavar="N",
        help=f"number of consecutive retries without progress (default: {MAX_ATTEMPTS - 1})",
    )
    return group


def add_format(parser: argparse.ArgumentParser) -> None:
    """Add ``--format``."""
    parser.add_argument(
        "--format",
        choices=("table", "json"),
        default="table",
        help="print text for people (the default), or one JSON document",
    )


def add_platform(parser: argparse.ArgumentParser, help_text: str) -> None:
    """Add ``--platform``."""
    parser.add_argument(
        "--platform",
        action="append",
        default=[],
        metavar="OS/ARCH[/VARIANT]",
        help=f"{help_text}, for example linux/amd64,linux/arm/v7, or local for this machine; may "
        "be repeated",
    )


def _parse_bool(text: str) -> bool:
    value = _BOOLEANS.get(text.lower())
    if value is None:
        raise argparse.ArgumentTypeError(f"{text!a} is neither true nor false")
    return value


def parse_count(text: str) -> int:
    """Parse a number from 0 to 9999."""
    if not (text.isascii() and text.isdigit() and len(text) < 5):
        raise argparse.ArgumentTypeError(f"{text!a} is not a number from 0 to 9999")
    return int(text)
