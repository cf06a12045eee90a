"""`concil` without arguments, and the words `help` and `version`."""

from __future__ import annotations

from concil.cli.verbs import ALIASES, VERBS

TYPE_CHECKING = False  # as that of typing, which takes longer to import than this module
if TYPE_CHECKING:
    from collections.abc import Sequence

SHORT_HELP = """\
concil copies images and blobs between OCI registries, layouts, archives and files.

  concil copy docker.io/library/alpine:3 registry.example/library/alpine:3
  concil mirror images.txt registry.example/mirror
  concil ls registry.example/team/app
  concil login registry.example

All verbs: concil --help. One verb: concil help copy.
"""


def replace_words(argv: Sequence[str]) -> list[str]:
    """Replace `help`, `version` and the aliases of verbs by what the parser knows.

    ``help copy`` becomes ``copy --help``, and ``cp`` becomes ``copy``.
    """
    words = list(argv)
    position = next((n for n, word in enumerate(words) if not word.startswith("-")), None)
    if position is None:
        return words
    verb = words[position]
    if verb == "version":
        return ["--version"]
    if verb == "help":
        below = [word for word in words[position + 1 :] if not word.startswith("-")]
        return [*replace_words(below), "--help"]
    if verb not in VERBS:
        words[position] = ALIASES.get(verb, verb)
    return words
