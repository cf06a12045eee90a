"""Loads a plan in any supported format."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path

from concil.errors import StoreError, UsageError, safe_repr
from concil.plan.formats import regsync, skopeo, text_list, toml_plan, yaml_nodes
from concil.plan.rule import ParsedPlan

_MAX_PLAN_SIZE = 64 * 1024 * 1024  # bytes


def load_plan(path: str) -> ParsedPlan:
    """Load a plan: TOML or YAML by its suffix, otherwise a list with one image per line.

    YAML is a file of `skopeo sync` or of regsync, distinguished by its content.

    Args:
        path: a file; ``-`` reads a list from standard input.
    Raises:
        UsageError: it is not a file, not text, too large, or has an invalid entry.
        StoreError: it cannot be read.
    """
    name = "standard input" if path == "-" else path
    content = _read_content(path, name)
    shown_name = name if name.isprintable() else safe_repr(name)
    if len(content) > _MAX_PLAN_SIZE:
        raise UsageError(f"{shown_name} is larger than the limit for lists of images")
    text = None
    with contextlib.suppress(UnicodeDecodeError):  # it quotes the plan: passwords
        text = content.decode("utf-8-sig")
    if text is None:
        raise UsageError(f"{shown_name} is not UTF-8 text", remedy="write one image per line")
    suffix = Path(path).suffix.lower()
    if suffix == ".toml":
        return toml_plan.parse_plan(text, shown_name, Path(path).parent)
    if suffix in (".yaml", ".yml"):
        document = yaml_nodes.load(text, shown_name)
        return (
            regsync.parse_plan(document)
            if regsync.is_regsync(document)
            else skopeo.parse_plan(document)
        )
    return ParsedPlan(tuple(text_list.parse_rules(text, shown_name)))


def _read_content(path: str, name: str) -> bytes:
    try:
        if path == "-":
            if sys.stdin is None:
                raise UsageError("standard input is closed", remedy="give a file")
            return sys.stdin.buffer.read(_MAX_PLAN_SIZE + 1)
        with Path(path).open("rb") as file:
            return file.read(_MAX_PLAN_SIZE + 1)
    except FileNotFoundError as error:
        raise UsageError(f"no such file: {safe_repr(name)}", remedy="check the path") from error
    except IsADirectoryError as error:
        raise UsageError(
            f"{safe_repr(name)} is a directory", remedy="give a list or plan"
        ) from error
    except (OSError, ValueError) as error:
        cause = getattr(error, "strerror", None) or "not a valid path"
        raise StoreError(
            f"cannot read {safe_repr(name)}: {cause}", remedy="check the path and its permissions"
        ) from error
