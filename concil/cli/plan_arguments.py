"""Reads the arguments of verbs that take a plan and a destination."""

from __future__ import annotations

import argparse
from collections.abc import Iterable

from concil.cli.output.errors import single_line
from concil.errors import UsageError, safe_repr
from concil.oci.address import parse_address
from concil.oci.reference import Reference
from concil.plan.expand import PlanExpansion
from concil.plan.target_names import DestinationPrefix, hide_credentials
from concil.transfer.mirror.report import MirrorItem


def destination_arguments(arguments: argparse.Namespace) -> list[str]:
    """Return the destinations of ``--dest``, or the one of the argument, as they are written."""
    if arguments.dest is not None and arguments.destination is not None:
        raise UsageError(
            "two destinations are given", remedy="omit one of them, or write --dest for each"
        )
    return arguments.dest or [each for each in (arguments.destination,) if each is not None]


def parse_destinations(arguments: argparse.Namespace) -> tuple[DestinationPrefix, ...]:
    """Return the destinations of all images; () if the plan has all targets."""
    names = destination_arguments(arguments)
    for number, name in enumerate(names):
        if name.rstrip("/") in [other.rstrip("/") for other in names[:number]]:
            raise UsageError(
                f"{safe_repr(hide_credentials(name))} is given twice", remedy="omit one of them"
            )
    return tuple(map(DestinationPrefix, names))


def check_plan(arguments: argparse.Namespace, expansion: PlanExpansion) -> list[MirrorItem]:
    """Check the plan; return its images, with placeholders for unlisted tags.

    Raises:
        UsageError: it has no images, or a password would be sent to several hosts.
    """
    probes = expansion.check()
    if not probes:
        raise UsageError(
            f"there are no images in {single_line(arguments.plan)}",
            remedy="write one image per line",
        )
    _check_hosts("--src-creds", arguments.src_creds, [item.source for item in probes])
    _check_hosts("--dest-creds", arguments.dest_creds, [item.destination for item in probes])
    return probes


def _check_hosts(option: str, creds: str | None, addresses: Iterable[str]) -> None:
    """Check that the password of an option is sent to one host only."""
    if creds is None:
        return
    parsed_addresses = [parse_address(text) for text in addresses]
    hosts = {
        address.host
        for address in parsed_addresses
        if isinstance(address, Reference) and not address.username
    }
    if len(hosts) > 1:
        raise UsageError(
            f"{option} would go to {len(hosts)} hosts: {', '.join(sorted(hosts)[:4])}",
            remedy="write user:password@ in front of the host to which they belong, or mirror "
            "each host separately",
        )
