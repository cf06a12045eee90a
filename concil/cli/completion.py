"""Completes the command line in a shell, by argcomplete: the only importer of it but its verb.

The shell runs the program with the line so far in the environment. Only the parser of the verb
in that line is created, and an engine is imported only to list tags.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import time
from collections.abc import Iterable, Iterator

from concil.cli.argument_parser import create_parser
from concil.cli.verbs import VERBS

_TIMEOUT = 2.0  # seconds for a registry to list tags
_MAX_TAGS = 1000
# Metavars of arguments that are addresses of images.
_ADDRESSES = frozenset({"REF", "REPO", "SRC", "DST", "PLAN|REF"})
_PLATFORMS = (
    *(f"linux/{name}" for name in ("386", "amd64", "arm/v6", "arm/v7", "arm64", "ppc64le")),
    *("linux/riscv64", "linux/s390x", "windows/amd64"),
)
_LAYOUT_SCHEMES = ("oci:", "oci-archive:", "docker-archive:")


def complete() -> int:
    """Write the completions of the line in the environment, and exit.

    Returns:
        The exit code if completion is not installed.
    """
    try:
        import argcomplete  # noqa: PLC0415  # needed only here
    except ImportError:
        return 1
    line = os.environ.get("COMP_LINE", "")[: int(os.environ.get("COMP_POINT", "0") or 0) or None]
    parser = create_parser(_find_verb(line))
    for action in _all_actions(parser):
        if action.metavar == "REF|show":
            action.completer = _complete_config  # type: ignore[attr-defined]
        elif action.metavar in _ADDRESSES:
            action.completer = _complete_address  # type: ignore[attr-defined]
        elif "--platform" in action.option_strings:
            action.completer = argcomplete.ChoicesCompleter(list(_PLATFORMS))  # type: ignore[arg-type, attr-defined]
    argcomplete.autocomplete(parser, always_complete_options="long")
    return 0


def _find_verb(line: str) -> str:
    """Return the verb of a line, "" if it is not typed completely."""
    words = line.split()[1:]
    if not line.endswith(" "):
        words = words[:-1]  # it is being typed
    # No option before the verb takes a value.
    verb = next((word for word in words if not word.startswith("-")), "")
    return verb if verb in VERBS else ""


def _all_actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """Yield the arguments of a parser, and those of the verbs below it."""
    for action in parser._actions:  # noqa: SLF001  # argparse has no public name for it
        yield action
        if isinstance(action.choices, dict):
            for verb_parser in action.choices.values():
                yield from _all_actions(verb_parser)


def _complete_address(prefix: str, **_: object) -> Iterable[str]:
    """Return the tags of the repository that was typed, else files and directories."""
    from argcomplete.completers import FilesCompleter  # noqa: PLC0415  # as above

    scheme = next((scheme for scheme in _LAYOUT_SCHEMES if prefix.startswith(scheme)), "")
    rest = prefix[len(scheme) :]
    repository, colon, tag = rest.rpartition(":")
    # Not HOST:PORT, nor a name without a host: nobody expects a request to docker.io from a key.
    is_repository = bool(scheme) or "/" in repository.rpartition("://")[2]
    if colon and repository and is_repository and "/" not in tag:
        return [f"{scheme}{repository}:{name}" for name in _list_tags(scheme + repository, tag)]
    found = FilesCompleter()(rest)
    return [f"{scheme}{name}" for name in found]


def _complete_config(prefix: str, **_: object) -> Iterable[str]:
    """Return what `concil config` takes: an address of an image, or `show`."""
    return [*_complete_address(prefix), *(["show"] if "show".startswith(prefix) else [])]


def _list_tags(address: str, prefix: str) -> list[str]:
    """Return the tags that begin with a prefix, as many as come quickly; none after an error."""
    from concil.config import RetryPolicy, Timeouts, TransferConfig  # noqa: PLC0415  # seldom
    from concil.engine.engine import Engine  # noqa: PLC0415
    from concil.transfer.journal import Journal  # noqa: PLC0415

    config = TransferConfig(workers=1, retry=RetryPolicy(max_attempts=1))
    timeouts = Timeouts(connect=_TIMEOUT, idle=_TIMEOUT)
    deadline = time.monotonic() + _TIMEOUT
    tags: list[str] = []
    # Whatever is wrong: a shell that completes shows no messages.
    with (
        contextlib.suppress(Exception),
        Engine(config, timeouts=timeouts, journal=Journal(None)) as engine,
    ):
        for tag in engine.list_tags(address):
            if tag.startswith(prefix) and tag.isprintable():
                tags.append(tag)
            if len(tags) >= _MAX_TAGS or time.monotonic() > deadline:
                break
    return tags
