"""The verbs: where each is declared, and how functions are found by name.

Only the parser of the verb that runs is imported, then its command: an import takes longer than
the start of the interpreter.
"""

from __future__ import annotations

import importlib

TYPE_CHECKING = False  # as that of typing, which takes longer to import than this module
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_PARSERS = "concil.cli.parsers"
# By name, in the order of the help: the function that adds the options, and the line of the help.
VERBS = {
    "copy": (f"{_PARSERS}.copy:declare", "copy one image"),
    "mirror": (f"{_PARSERS}.mirror:declare", "copy the images of a list or plan"),
    "check": (f"{_PARSERS}.check:declare_check", "check that copies are complete and whole"),
    "gc": (f"{_PARSERS}.check:declare_gc", "remove from a layout what no image needs"),
    "blob": (f"{_PARSERS}.blob:declare", "push, pull or check a single blob"),
    "tags": (f"{_PARSERS}.images:declare_tags", "list the tags of a repository"),
    "digest": (f"{_PARSERS}.images:declare_digest", "print the digest of an image"),
    "manifest": (f"{_PARSERS}.images:declare_manifest", "print the manifest of an image"),
    "delete": (f"{_PARSERS}.images:declare_delete", "delete an image"),
    "inspect": (f"{_PARSERS}.images:declare_inspect", "describe an image"),
    "login": (f"{_PARSERS}.login:declare_login", "log in to a registry"),
    "logout": (f"{_PARSERS}.login:declare_logout", "remove the login for a registry"),
    "transfers": (f"{_PARSERS}.transfers:declare", "list or discard interrupted transfers"),
    "serve": (f"{_PARSERS}.serve:declare", "serve an OCI layout directory as a registry"),
    "completion": (f"{_PARSERS}.completion:declare", "print a completion script for a shell"),
    "demo": (f"{_PARSERS}.demo:declare", "demonstrate a mirror between two local registries"),
}


def load_function(path: str) -> Callable[..., Any]:
    """Import a function that is named as ``package.module:function``."""
    module, _, name = path.partition(":")
    function: Callable[..., Any] = getattr(importlib.import_module(module), name)
    return function
