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
    "push": (f"{_PARSERS}.artifacts:declare_push", "push files and directories as an artifact"),
    "pull": (f"{_PARSERS}.artifacts:declare_pull", "pull the files of an artifact"),
    "attach": (f"{_PARSERS}.artifacts:declare_attach", "attach files to an image"),
    "referrers": (f"{_PARSERS}.artifacts:declare_referrers", "list what refers to an image"),
    "blob": (f"{_PARSERS}.blob:declare", "push, pull, check, mount or delete a single blob"),
    "check": (f"{_PARSERS}.check:declare_check", "check that copies are complete and whole"),
    "gc": (f"{_PARSERS}.check:declare_gc", "remove from a layout what no image needs"),
    "tags": (f"{_PARSERS}.images:declare_tags", "list the tags of a repository"),
    "ls": (f"{_PARSERS}.inspection:declare_ls", "list repositories or tags"),
    "tag": (f"{_PARSERS}.images:declare_tag", "give an image more tags"),
    "digest": (f"{_PARSERS}.images:declare_digest", "print the digest of an image"),
    "manifest": (f"{_PARSERS}.images:declare_manifest", "print or push a manifest"),
    "delete": (f"{_PARSERS}.images:declare_delete", "delete an image"),
    "inspect": (f"{_PARSERS}.images:declare_inspect", "describe an image"),
    "tree": (f"{_PARSERS}.inspection:declare_tree", "print platforms and referrers of an image"),
    "config": (f"{_PARSERS}.inspection:declare_config", "print the config of an image"),
    "diff": (f"{_PARSERS}.inspection:declare_diff", "compare two images"),
    "du": (f"{_PARSERS}.inspection:declare_du", "print the sizes of images"),
    "login": (f"{_PARSERS}.login:declare_login", "log in to a registry"),
    "logout": (f"{_PARSERS}.login:declare_logout", "remove the login for a registry"),
    "transfers": (f"{_PARSERS}.transfers:declare", "list or discard interrupted transfers"),
    "serve": (f"{_PARSERS}.serve:declare", "serve an OCI layout directory as a registry"),
    "completion": (f"{_PARSERS}.completion:declare", "print a completion script for a shell"),
    "demo": (f"{_PARSERS}.demo:declare", "demonstrate a mirror between two local registries"),
}
# Names that other tools have for a verb.
ALIASES = {"cp": "copy", "sync": "mirror"}


def load_function(path: str) -> Callable[..., Any]:
    """Import a function that is named as ``package.module:function``."""
    module, _, name = path.partition(":")
    function: Callable[..., Any] = getattr(importlib.import_module(module), name)
    return function
