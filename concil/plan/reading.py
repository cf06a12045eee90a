"""Reads the file of a plan, in whichever format it is written."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path

from concil.errors import StoreError, UsageError, shown
from concil.plan import plain, regsync, skopeo, toml, yaml_nodes
from concil.plan.rules import Plan

_LIMIT = 64 * 1024 * 1024  # bytes


def read(path: str) -> Plan:
    """Read a plan: by its suffix TOML or YAML, else a list with one image a line.

    YAML is the file of `skopeo sync` or of regsync, told apart by what is in it.

    Args:
        path: a file; ``-`` is standard input, a list.
    Raises:
        UsageError: it is no file, no text, too large, or has an entry that makes no sense.
        StoreError: it cannot be read.
    """
    name = "standard input" if path == "-" else path
    content = _content(path, name)
    shown_name = name if name.isprintable() else shown(name)
    if len(content) > _LIMIT:
        raise UsageError(f"{shown_name} is larger than a list of images can be")
    text = None
    with contextlib.suppress(UnicodeDecodeError):  # it holds the whole plan, passwords included
        text = content.decode("utf-8-sig")
    if text is None:
        raise UsageError(f"{shown_name} is not UTF-8 text", remedy="a list has one image a line")
    suffix = Path(path).suffix.lower()
    if suffix == ".toml":
        return toml.plan(text, shown_name)
    if suffix in (".yaml", ".yml"):
        document = yaml_nodes.load(text, shown_name)
        return regsync.plan(document) if regsync.is_one(document) else skopeo.plan(document)
    return Plan(tuple(plain.rules(text, shown_name)))


def _content(path: str, name: str) -> bytes:
    try:
        if path == "-":
            if sys.stdin is None:
                raise UsageError("standard input is closed", remedy="name a file")
            return sys.stdin.buffer.read(_LIMIT + 1)
        with Path(path).open("rb") as file:
            return file.read(_LIMIT + 1)
    except FileNotFoundError as error:
        raise UsageError(f"no such file: {shown(name)}", remedy="check the path") from error
    except IsADirectoryError as error:
        raise UsageError(f"{shown(name)} is a directory", remedy="name a list") from error
    except (OSError, ValueError) as error:
        cause = getattr(error, "strerror", None) or "not a path"
        raise StoreError(
            f"cannot read {shown(name)}: {cause}", remedy="check the path and its permissions"
        ) from error
