"""Parses the addresses that a server of the command line listens on."""

from __future__ import annotations

from concil.errors import UsageError, safe_repr


def parse_listen_address(text: str) -> tuple[str, int]:
    """Parse ``host:port``, ``[ipv6]:port``, or ``:port`` for every address of the machine.

    Raises:
        UsageError: it is none of them.
    """
    host, colon, port = text.rpartition(":")
    bare_host = host.removeprefix("[").removesuffix("]")
    is_bracketed = host.startswith("[") and host.endswith("]")
    number = int(port) if port.isascii() and port.isdigit() and len(port) < 6 else -1
    if not colon or not 0 <= number < 65536 or (":" in bare_host and not is_bracketed):
        raise UsageError(
            f"not a listen address: {safe_repr(text)}",
            remedy="write HOST:PORT, for example 127.0.0.1:5000 or [::1]:5000",
        )
    return bare_host or "0.0.0.0", number  # noqa: S104  # the user omitted the host
