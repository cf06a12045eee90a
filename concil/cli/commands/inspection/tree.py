"""`concil tree`: prints the tree of an image."""

from __future__ import annotations

import sys
from collections.abc import Iterator

from concil.cli.context import CommandContext
from concil.cli.open_engine import open_engine
from concil.cli.output import results
from concil.cli.output.errors import DONE
from concil.engine.images.image_tree import TreeNode
from concil.oci.address import parse_address
from concil.runtime.quantities import format_size
from concil.transfer.journal import Journal

_BRANCHES = ("├── ", "└── ", "│   ", "    ")
_ASCII_BRANCHES = ("|-- ", "`-- ", "|   ", "    ")


def run(command: CommandContext) -> int:
    """Print the platforms, referrers and tags of cosign of an image, recursively."""
    arguments = command.arguments
    with open_engine(command, journal=Journal(None)) as engine:
        root = engine.tree(arguments.address)
    name = str(parse_address(arguments.address))
    if arguments.format == "json":
        results.print_json({"name": name, **_to_json(root)})
        return DONE
    encoding = (getattr(sys.stdout, "encoding", None) or "").lower()
    branches = _BRANCHES if encoding.startswith("utf") else _ASCII_BRANCHES
    results.print_line(f"{name}  {_describe(root)}")
    for line in _lines(root, "", branches):
        results.print_line(line)
    return DONE


def _lines(node: TreeNode, indent: str, branches: tuple[str, ...]) -> Iterator[str]:
    for child in node.children:
        is_last = child is node.children[-1]
        yield f"{indent}{branches[is_last]}{_describe(child)}"
        yield from _lines(child, indent + branches[2 + is_last], branches)


def _describe(node: TreeNode) -> str:
    """Return relation or platform, type, digest and size of a manifest."""
    kind = "index" if "index" in node.media_type or "list" in node.media_type else ""
    names = {"referrer": "referrer", "tag": f"tag {node.tag}"}
    parts = [names.get(node.relation, ""), node.platform, kind, node.artifact_type, node.digest]
    text = "  ".join(filter(None, parts))
    size = f"  {format_size(node.size)}" if node.size else ""
    return f"{text}{size}{f'  ({node.note})' if node.note else ''}"


def _to_json(node: TreeNode) -> dict[str, object]:
    optional = {
        "platform": node.platform,
        "artifactType": node.artifact_type,
        "tag": node.tag,
        "note": node.note,
    }
    return {
        "relation": node.relation,
        "digest": node.digest,
        "mediaType": node.media_type,
        "size": node.size,
        **{name: value for name, value in optional.items() if value},
        "children": [_to_json(child) for child in node.children],
    }
